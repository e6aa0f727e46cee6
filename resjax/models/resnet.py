"""The paper's shortcuts (section 3.3), residual blocks (Figure 5), and networks (sections 3.4 and 4.2).

A network is a stem, stages of blocks, global average pooling and one fully connected layer.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

from resjax.models.batch_norm import BatchNorm
from resjax.models.convolutions import convolve
from resjax.models.families import Block, Option, StrideIn, cifar_blocks, imagenet_blocks
from resjax.models.ops import max_pool, relu
from resjax.models.stage import Stage
from resjax.system.errors import check
from resjax.system.serialization import shortly


class Shortcut(nn.Module):
    """The shortcut of a block (section 3.3): x itself, or x mapped to `[batch, height/stride, width/stride, filters]`.

    A: the identity or, where dimensions change, every stride-th pixel, with zeros for the new channels. Option A has no
    parameters. B: the identity or, where dimensions change, a projection (1x1 convolution and batch norm). C: a
    projection in every block. plain: no shortcut, as in a network without residual learning.

    A custom block can use a shortcut, with `conv` and `norm` from the network, as follows:

        y = Shortcut(self.shortcut, self.conv, self.norm, name="shortcut")(x, self.filters, self.stride)
    """

    option: Option
    conv: Callable[..., Any]
    norm: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array, filters: int, stride: int) -> jax.Array:
        same = x.shape[-1] == filters and stride == 1
        match self.option:
            case "plain":
                return jnp.zeros((), x.dtype)
            case "A" | "B" if same:
                return x
            case "A":
                return append_zero_channels(x[:, ::stride, ::stride], filters)
            case _:
                projected: jax.Array = self.norm(name="bn")(self.conv(filters, 1, stride, name="conv")(x))
                return projected


def append_zero_channels(x: jax.Array, filters: int) -> jax.Array:
    """Pad `[..., channels]` to `[..., filters]` with zero channels at the end, as the authors' Torch code does."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, filters - x.shape[-1])])


Side = Literal["fan_in", "fan_out"]


def convolution(filters: int, size: int, stride: int = 1, *, name: str, initialization: Side = "fan_in",
                **computed: Any) -> nn.Module:
    """Build a padded convolution with He initialisation (He et al. 2015) and without bias.

    `computed` are further fields of `nn.Conv`, such as `dtype` and `precision`. Feature maps of shape `[batch, height,
    width, channels]` become `[batch, height / stride, width / stride, filters]`.

        y = convolution(16, 3, stride=2, name="conv1")(x)
    """
    he = nn.initializers.variance_scaling(2.0, initialization, "normal")
    return nn.Conv(filters, (size, size), stride, padding=size // 2, use_bias=False, kernel_init=he,
                   conv_general_dilated=convolve, name=name, **computed)


class BasicBlock(nn.Module):
    """The block on the left of Figure 5, relu(shortcut(x) + F(x)), where F is two 3x3 convolutions with batch norm.

    Feature maps of shape `[batch, height, width, channels]` become `[batch, height / stride, width / stride, filters]`.
    The first convolution has the stride.

    The block can be used alone, as `BasicBlock(filters=16)(x, train=train)`. Inside a network, the network provides
    `conv` and `norm`.
    """

    filters: int
    stride: int = 1
    shortcut: Option = "A"
    conv: Callable[..., Any] = convolution
    norm: Callable[..., Any] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        norm = self.norm or partial(BatchNorm, train=train)
        y = self.conv(self.filters, 3, self.stride, name="conv1")(x)
        y = norm(name="bn1", rectify=True)(y)
        y = self.conv(self.filters, 3, name="conv2")(y)
        y = norm(name="bn2")(y)
        return relu(y + Shortcut(self.shortcut, self.conv, norm, name="shortcut")(x, self.filters, self.stride))


class Bottleneck(nn.Module):
    """The block on the right of Figure 5: like `BasicBlock`, but F is a 1x1, a 3x3 and a 1x1 convolution.

    Feature maps of shape `[batch, height, width, channels]` become `[batch, height / stride, width / stride, 4 *
    filters]`. The first two convolutions have `filters` output channels.

    In the paper ("v1"), the first 1x1 convolution has the stride. In most later code ("v1.5"), the 3x3 convolution has
    it. `stride_in` chooses between the two.
    """

    filters: int
    stride: int = 1
    shortcut: Option = "B"
    stride_in: StrideIn = "1x1"
    conv: Callable[..., Any] = convolution
    norm: Callable[..., Any] | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        norm = self.norm or partial(BatchNorm, train=train)
        first, second = (self.stride, 1) if self.stride_in == "1x1" else (1, self.stride)
        y = self.conv(self.filters, 1, first, name="conv1")(x)
        y = norm(name="bn1", rectify=True)(y)
        y = self.conv(self.filters, 3, second, name="conv2")(y)
        y = norm(name="bn2", rectify=True)(y)
        y = self.conv(4 * self.filters, 1, name="conv3")(y)
        y = norm(name="bn3")(y)
        return relu(y + Shortcut(self.shortcut, self.conv, norm, name="shortcut")(x, 4 * self.filters, self.stride))


Precision = Literal["float32", "tensorfloat32", "bfloat16"]


BLOCKS: dict[str, Any] = {"basic": BasicBlock, "bottleneck": Bottleneck}
PARTS = ("filters", "stride", "shortcut", "conv", "norm")


class ResNet(nn.Module):
    """A residual or plain network from images `[batch, height, width, channels]` to float32 logits `[batch, classes]`.

    `blocks` gives the number of blocks in each stage. From stage to stage, the number of filters doubles, and the
    height and width of the maps halve. With `train=True`, batch norm uses the batch's own statistics, over
    `ghost_batch_size` images at a time, and updates the collection `batch_stats`. With `frozen_batch_norm`, batch norm
    always uses the stored statistics. Images may have any size, because the last maps are averaged. If `classes` is 0,
    this average is returned. With `features=True`, the outputs of all stages are returned instead of logits, each
    `[batch, height, width, channels]`.

    `block` is "basic", "bottleneck", or a custom module with the fields `filters, stride, shortcut, conv, norm`. See
    `Stage` for the way in which a block is called. With `pre_activation` (He et al. 2016, arXiv 1603.05027), the stem
    is a convolution without batch norm and ReLU. Batch norm and ReLU follow the last stage instead, as pre-activation
    blocks require.

        network = ResNet((3, 3, 3), filters=16, classes=10, block=partial(SqueezeAndExcitation, reduction=4))
    """

    blocks: tuple[int, ...]
    filters: int
    classes: int
    shortcut: Option = "A"
    block: Block | Callable[..., nn.Module] = "basic"
    stride_in: StrideIn = "1x1"
    stem: Literal["3x3", "7x7"] = "3x3"
    initialization: Side = "fan_in"
    ghost_batch_size: int | None = 64
    norm_momentum: float = 0.9
    frozen_batch_norm: bool = False
    unroll: int = 8
    precision: Precision = "float32"
    pre_activation: bool = False

    __repr__ = shortly

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, features: bool = False) -> Any:
        dtype = jnp.bfloat16 if self.precision == "bfloat16" else jnp.float32
        matmul = None if self.precision == "bfloat16" else self.precision

        conv = partial(convolution, initialization=self.initialization, dtype=dtype, precision=matmul)
        norm = partial(BatchNorm, train=train and not self.frozen_batch_norm, ghost_batch_size=self.ghost_batch_size,
                       momentum=self.norm_momentum)
        kind: Any = self.block if callable(self.block) else BLOCKS[self.block]
        block = partial(kind, shortcut=self.shortcut, conv=conv, norm=norm,
                        **{"stride_in": self.stride_in} if self.block == "bottleneck" else {})

        size, stride = (3, 1) if self.stem == "3x3" else (7, 2)
        x = conv(self.filters, size, stride, name="conv1")(x.astype(dtype))
        if not self.pre_activation:
            x = norm(name="bn1", rectify=True)(x)
        if self.stem == "7x7":
            x = max_pool(x)
        outputs = []
        for i, blocks in enumerate(self.blocks):
            x = Stage(block, blocks, self.filters * 2**i, stride=1 if i == 0 else 2, unroll=self.unroll,
                      first=1 + sum(self.blocks[:i]), total=sum(self.blocks), name=f"stage{i + 1}")(x, train=train)
            outputs.append(x)
        if self.pre_activation:
            x = norm(name="bn", rectify=True)(x)
        if features:
            return tuple(outputs)
        x = x.astype(jnp.float32).mean((1, 2))
        if not self.classes:
            return x
        he = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        return nn.Dense(self.classes, kernel_init=he, precision=matmul, name="fc")(x)


def cifar_resnet(depth: int, shortcut: Option = "A", classes: int = 10, **settings: Any) -> ResNet:
    """Build a network of section 4.2 with `depth` = 6n+2 layers.

    Its three stages have 16, 32 and 64 filters. For images of 32x32 pixels, the maps of the stages have 32x32, 16x16
    and 8x8 pixels.

    `shortcut` is "A", "B", "C" or "plain". `settings` are fields of `ResNet`, such as `filters=32` for twice the width.
    Images `[batch, height, width, channels]` become logits `[batch, classes]`. Raises BadInput, a ValueError, for an
    invalid depth or shortcut.
    """
    check_shortcut(shortcut)
    return ResNet(cifar_blocks(depth), classes=classes, shortcut=shortcut, **{"filters": 16, **settings})


def imagenet_resnet(depth: int, shortcut: Option = "B", classes: int = 1000, **settings: Any) -> ResNet:
    """Build a network of Table 1. `settings` are fields of `ResNet`, such as `stride_in="3x3"`.

    Images `[batch, height, width, channels]` become logits `[batch, classes]`. Raises BadInput, a ValueError, for an
    unknown shortcut or a depth that is not in Table 1.
    """
    check_shortcut(shortcut)
    block, blocks = imagenet_blocks(depth)
    return ResNet(blocks, classes=classes, shortcut=shortcut, stem="7x7",
                  **{"filters": 64, "ghost_batch_size": 32, "block": block, **settings})


def check_shortcut(shortcut: str) -> None:
    """Raise BadInput for an unknown shortcut."""
    options = get_args(Option)
    check(shortcut in options, f"shortcut is {shortcut!r}; it must be one of {', '.join(options)}")
