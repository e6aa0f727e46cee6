"""Faster R-CNN as pure Flax modules: shared convolutions, region proposal network, and layers that process regions.

With a residual network, the last stage processes pooled regions, and the other stages are shared ("Networks on Conv
feature maps", appendix A of the paper). With VGG-16, the two hidden fully connected layers process pooled regions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
from flax import linen as nn

from resjax.detection.backbones import RESNETS
from resjax.detection.config import Detector
from resjax.detection.improvements import join_context, maxout, with_whole_image
from resjax.detection.pooling import roi_align, roi_max_pool
from resjax.models import BasicBlock, BatchNorm, Bottleneck, ResNet, Stage
from resjax.models.convolutions import convolve
from resjax.models.vgg import VGGConvolutions, VGGHidden

NORM_MOMENTUM = 0.97  # detectors have small batches, so running statistics average over more batches


class Regions(Protocol):
    """Regions to classify, with boxes `[batch, rois, 4]` in pixels, and further fields."""

    @property
    def boxes(self) -> jax.Array: ...


Choose = Callable[[jax.Array, jax.Array], Regions]  # from logits [batch, anchors] and deltas [batch, anchors, 4]
# From boxes [batch, n, 4] to pooled maps [batch, n, size, size, channels], at one scale or at each of two scales.
Pool = Callable[[jax.Array], Sequence[jax.Array]]


class Outputs(NamedTuple):
    """Predictions for all anchors `[batch, anchors(, 4)]` and for the regions chosen from them.

    The regions have `logits` `[batch, rois, classes + 1]`, where class 0 is background, and `deltas` `[batch, rois,
    classes, 4]`.
    """

    objectness: jax.Array
    anchor_deltas: jax.Array
    regions: Any
    logits: jax.Array
    deltas: jax.Array


class RegionProposalNetwork(nn.Module):
    """A 3x3 convolution and two sibling 1x1 convolutions, for a logit and four deltas per anchor and position."""

    channels: int
    anchors: int

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        conv = partial(nn.Conv, kernel_init=nn.initializers.normal(0.01), conv_general_dilated=convolve)
        x = nn.relu(conv(self.channels, (3, 3), padding=1, name="conv")(features))
        objectness = conv(self.anchors, (1, 1), padding=0, name="objectness")(x)
        deltas = conv(4 * self.anchors, (1, 1), padding=0, name="deltas")(x)
        return objectness.reshape(len(x), -1), deltas.reshape(len(x), -1, 4)


class LastStage(nn.Module):
    """The last stage of a residual network and global pooling, on pooled regions `[n, size, size, channels]`."""

    detector: Detector

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, images: int) -> jax.Array:
        backbone, detector = RESNETS[self.detector.backbone], self.detector
        group = len(x) // images * detector.ghost_batch_size
        norm = partial(BatchNorm, train=train and not detector.frozen_batch_norm, ghost_batch_size=group,
                       momentum=NORM_MOMENTUM)
        block: Any = partial(BasicBlock, shortcut="B", norm=norm)
        if backbone.block == "bottleneck":
            block = partial(Bottleneck, stride_in=detector.stride_in, norm=norm)
        stage = len(backbone.blocks)
        x = Stage(block, backbone.blocks[-1], backbone.filters * 2 ** (stage - 1), stride=2, name=f"stage{stage}")(x)
        return x.mean((1, 2))


class FasterRCNN(nn.Module):
    """A detector from images `[batch, height, width, 3]` of any height and width, minus the mean colour, to `Outputs`.

    `sizes` `[batch, 2]` (height, width) are the sizes without padding. `choose` selects regions from the predictions
    for anchors. No gradient flows through `choose`.
    """

    detector: Detector
    classes: int

    def setup(self) -> None:
        detector = self.detector
        vgg = detector.backbone == "vgg16"
        self.shared: Any = VGGConvolutions(16) if vgg else shared_stages(detector)
        self.regional: Any = VGGHidden(detector.hidden) if vgg else LastStage(detector)
        self.rpn = RegionProposalNetwork(detector.rpn_channels,
                                         len(detector.anchor_sizes) * len(detector.anchor_ratios))
        self.scores = nn.Dense(self.classes + 1, kernel_init=nn.initializers.normal(0.01))
        self.boxes = nn.Dense(4 * self.classes, kernel_init=nn.initializers.normal(0.001))

    def __call__(self, images: jax.Array, sizes: jax.Array, choose: Choose, *, train: bool = False) -> Outputs:
        features = self.features(images, train=train)
        objectness, anchor_deltas = self.rpn(features)
        regions = choose(*jax.lax.stop_gradient((objectness, anchor_deltas)))
        pool = partial(pool_regions, self.detector, features)
        logits, deltas = self.classify(lambda boxes: [pool(boxes)], regions.boxes, sizes, train=train)
        return Outputs(objectness, anchor_deltas, regions, logits, deltas)

    def propose(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return only the predictions for anchors; see `Outputs`."""
        said: tuple[jax.Array, jax.Array] = self.rpn(self.features(images))
        return said

    def features(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Compute the shared maps `[batch, height / stride, width / stride, channels]`."""
        if self.detector.backbone == "vgg16":
            maps: jax.Array = self.shared(images)
            return maps
        stages = self.shared(images, train=train, features=True)
        last: jax.Array = stages[-1]
        return last

    def classify(self, pool: Pool, boxes: jax.Array, sizes: jax.Array, *,
                 train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Return the logits `[batch, rois, classes + 1]` and deltas `[.., classes, 4]` of boxes `[batch, rois, 4]`."""
        context = self.detector.global_context
        x = maxout([self.describe(maps, train=train) for maps in pool(
            with_whole_image(boxes, sizes) if context else boxes)])
        x = join_context(x) if context else x
        return self.scores(x), self.boxes(x).reshape(*boxes.shape[:2], self.classes, 4)

    def describe(self, pooled: jax.Array, *, train: bool) -> jax.Array:
        """Convert pooled maps `[batch, n, size, size, channels]` to features `[batch, n, channels]`."""
        images, regions = pooled.shape[:2]
        x = pooled.reshape(images * regions, *pooled.shape[2:])
        features: jax.Array = (self.regional(x, train=train) if self.detector.backbone == "vgg16" else
                               self.regional(x, train=train, images=images))
        return features.reshape(images, regions, -1)


def pool_regions(detector: Detector, features: jax.Array, boxes: jax.Array) -> jax.Array:
    """Pool boxes `[batch, n, 4]` (in image pixels) from the shared maps. Returns `[batch, n, size, size, channels]`."""
    pool = roi_max_pool if detector.pooling == "max" else roi_align
    # 14 for ResNets whose conv5_x halves the pooled maps; 8 for small maps with a small stride
    size = 7 if detector.backbone == "vgg16" else 14 if detector.stride == 16 else 8
    scale = 1 / detector.stride
    return jax.vmap(lambda maps, boxes: pool(maps, boxes, size, scale))(features, boxes)


def shared_stages(detector: Detector) -> ResNet:
    """Build a residual network without its last stage. The parameters keep their names."""
    backbone = RESNETS[detector.backbone]
    return ResNet(backbone.blocks[:-1], backbone.filters, classes=1, shortcut="B", block=backbone.block,
                  stride_in=detector.stride_in, stem="7x7", ghost_batch_size=detector.ghost_batch_size,
                  norm_momentum=NORM_MOMENTUM, frozen_batch_norm=detector.frozen_batch_norm,
                  precision=detector.precision)
