"""The residual networks that detectors use as backbones."""

from typing import NamedTuple

from resjax.models.families import Block


class Backbone(NamedTuple):
    """A residual network as a backbone. Its last stage processes regions, and the other stages process whole images."""

    block: Block
    blocks: tuple[int, ...]
    filters: int


RESNETS = {
    "resnet50": Backbone("bottleneck", (3, 4, 6, 3), 64),
    "resnet101": Backbone("bottleneck", (3, 4, 23, 3), 64),
    "resnet18": Backbone("basic", (2, 2, 2, 2), 64),
    "small": Backbone("basic", (2, 2, 2), 32),  # stride 8, for training from scratch on a few hundred images
    "tiny": Backbone("basic", (1, 1, 1), 16)}
