"""The weights that a detector starts from: a classifier's, or none."""

from typing import Any, NamedTuple

import jax
import numpy as np

from resjax.detection.annotations import AnnotatedImages
from resjax.detection.config import RESNETS, Detection
from resjax.detection.phases import PROPOSER
from resjax.models import ResNet
from resjax.network import Network
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded
from resjax.training.restore import load
from resjax.training.step import TrainState
from resjax.weights.files import Tensors, read_tensors
from resjax.weights.vgg import layers, read_layer

MEASURED = 100  # images whose mean colour stands for all
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # what torchvision's VGG-16 is used to, in RGB of 0 to 255


class Weights(NamedTuple):
    """The mean colour `[1, 1, 3]`, and the parameters and batch statistics that replace those drawn, by module."""

    mean: np.ndarray
    params: dict[str, Any]
    batch_stats: dict[str, Any]


def initial_weights(detection: Detection, images: AnnotatedImages) -> Weights:
    """Load what `initialize_from` names, and with nothing named measure the mean colour only.

    Raises BadInput where the weights are of another network.
    """
    source, detector = detection.initialize_from, detection.detector
    if not source:
        return Weights(mean_colour(images), {}, {})
    if detector.backbone == "vgg16":
        return vgg_weights(read_tensors(expanded(source)), source, detector.hidden)
    return resnet_weights(load(source, stride_in=detector.stride_in, shortcut="A"), detection)


def mean_colour(images: AnnotatedImages) -> np.ndarray:
    """Average the pixels of the first hundred images: `[1, 1, 3]`."""
    count = min(MEASURED, len(images.records))
    colours = np.array([images.pixels(index).mean((0, 1)) for index in range(count)])
    mean: np.ndarray = colours.mean(0).reshape(1, 1, 3).astype(np.float32)
    return mean


def resnet_weights(network: Network, detection: Detection) -> Weights:
    """Divide a classifier: the stages but the last are shared, the last works on regions, its last layer goes."""
    detector, model, std = detection.detector, network.model, network.preprocessing.std
    backbone = RESNETS[detector.backbone]
    same = isinstance(model, ResNet) and (model.blocks, model.filters, model.block, model.stem) == (
        backbone.blocks, backbone.filters, backbone.block, "7x7")
    strides = backbone.block == "basic" or not same or model.stride_in == detector.stride_in
    if not (same and strides and model.shortcut == "B" and np.allclose(std or 1.0, detection.data.std or 1.0)):
        raise BadInput(f"initialize-from: {detection.initialize_from} holds {network.title} with std "
                       f"{std}, and the detector is {detector.backbone} B, strides in the {detector.stride_in}, with "
                       f"std {detection.data.std}")
    last = f"stage{len(backbone.blocks)}"

    def divide(tree: Any) -> dict[str, Any]:
        shared = {name: leaves for name, leaves in tree.items() if name not in (last, "fc")}
        return {"shared": shared, "regional": {last: tree[last]}}

    mean = network.mean.mean((0, 1)).reshape(1, 1, -1)
    return Weights(mean, divide(network.variables["params"]), divide(network.variables["batch_stats"]))


def vgg_weights(tensors: Tensors, source: str, hidden: int) -> Weights:
    """Read VGG-16 under torchvision's names. Raises BadInput where a tensor is missing or of another shape."""
    params: dict[str, dict[str, Any]] = {"convolutions": {}, "hidden": {}}
    for layer in layers("torchvision", 16, last=False):
        missing = [name for name in (layer.kernel, layer.bias) if name not in tensors]
        check(not missing, f"initialize-from: {source} has no {''.join(missing[:1])}; VGG-16 is read under "
                           "torchvision's names")
        if layer.path[-1] == "fc6":
            shape = tensors[layer.kernel].shape
            check(shape == (hidden, 25088), f"initialize-from: {layer.kernel} of {source} is of {shape}, not "
                                            f"{hidden, 25088}")
        params[layer.path[0]][layer.path[1]] = read_layer(tensors, "torchvision", layer)
    mean = np.array(IMAGENET_MEAN, np.float32).reshape(1, 1, 3)
    return Weights(mean, {"shared": params["convolutions"], "regional": params["hidden"]}, {})


def start_from(weights: Weights, first: TrainState) -> TrainState:
    """Put weights into a first state, on its devices; what they lack stays as it was drawn."""

    def merge(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
        return dict(old) | {name: jax.tree.map(place, new[name], old[name]) for name in new}

    def place(new: Any, old: jax.Array) -> jax.Array:
        placed: jax.Array = jax.device_put(np.array(jax.device_get(new), old.dtype), old.sharding)
        return placed

    params = merge(weights.params, first.params)
    if PROPOSER in params:  # the network that proposes starts from the same convolutions
        own = {name: leaves for name, leaves in weights.params.items() if name == "shared"}
        params[PROPOSER] = merge(own, first.params[PROPOSER])
    started: TrainState = first.replace(params=params,
                                        batch_stats=merge(weights.batch_stats, first.batch_stats))
    return started
