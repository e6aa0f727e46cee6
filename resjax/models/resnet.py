"""The networks of the paper: a stem, stages of blocks, global average pooling, one fully connected layer."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from resjax.models.activation import relu
from resjax.models.blocks import BasicBlock, Bottleneck
from resjax.models.convolution import convolve
from resjax.models.normalization import BatchNorm
from resjax.models.pooling import max_pool
from resjax.models.shortcut import OPTIONS, Option, Shortcut

Precision = Literal["float32", "tensorfloat32", "bfloat16"]


class Stage(nn.Module):
    """Blocks on maps of one size. The first may change the dimensions; the others are identical and stacked.

    Up to `unroll` of them are compiled one by one, which runs faster; more run as a loop, whose compile time does
    not grow with depth. Their parameters carry a leading axis `[blocks - 1, ...]` either way: a checkpoint never
    depends on that choice.
    """

    block: Callable[..., nn.Module]
    blocks: int
    filters: int
    stride: int
    unroll: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.block(filters=self.filters, stride=self.stride, name="first")(x)
        rest = self.blocks - 1
        if rest:
            loop = nn.scan(lambda block, x, _: (block(x), None), length=rest, unroll=rest if rest <= self.unroll else 1,
                           variable_axes={"params": 0, "batch_stats": 0, "intermediates": 0},
                           split_rngs={"params": True})
            x, _ = loop(self.block(filters=self.filters, name="rest"), x, None)
        return x


class ResNet(nn.Module):
    """Images `[batch, height, width, channels]` to logits `[batch, classes]`, float32.

    `blocks` counts the blocks of each stage; the filters double from stage to stage, where the maps halve.
    With `train=True` batch norm uses the batch's own statistics, over groups of `norm_group` images, and updates the
    collection `batch_stats`; with `fixed_norm` it keeps to those that it has. Images are divided by `std`, channel by
    channel, for weights made elsewhere; the paper does not. They may be of any size: the average over the last maps
    comes last. With `features=True` the outputs of the stages are returned instead, each
    `[batch, height, width, channels]`.
    """

    blocks: tuple[int, ...]
    filters: int
    classes: int
    shortcut: Option = "A"
    block: Literal["basic", "bottleneck"] = "basic"
    stride_in: Literal["1x1", "3x3"] = "1x1"
    stem: Literal["3x3", "7x7"] = "3x3"
    initialization: Literal["fan_in", "fan_out"] = "fan_in"
    norm_group: int = 64
    norm_momentum: float = 0.9
    fixed_norm: bool = False
    std: tuple[float, ...] = ()
    unroll: int = 8
    precision: Precision = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, features: bool = False) -> Any:
        dtype = jnp.bfloat16 if self.precision == "bfloat16" else jnp.float32
        matmul = None if self.precision == "bfloat16" else self.precision

        def conv(filters: int, size: int, stride: int = 1, *, name: str) -> nn.Module:
            he = nn.initializers.variance_scaling(2.0, self.initialization, "normal")
            return nn.Conv(filters, (size, size), stride, padding=size // 2, use_bias=False, kernel_init=he,
                           dtype=dtype, precision=matmul, conv_general_dilated=convolve, name=name)

        norm = partial(BatchNorm, train=train and not self.fixed_norm, group=self.norm_group,
                       momentum=self.norm_momentum)
        shortcut = partial(Shortcut, self.shortcut, conv, norm)
        block: Any = partial(BasicBlock, conv, norm, shortcut)
        if self.block == "bottleneck":
            block = partial(Bottleneck, conv, norm, shortcut, stride_in=self.stride_in)

        x = (x / jnp.array(self.std) if self.std else x).astype(dtype)
        if self.stem == "3x3":
            x = relu(norm(name="bn1")(conv(self.filters, 3, name="conv1")(x)))
        else:
            x = relu(norm(name="bn1")(conv(self.filters, 7, 2, name="conv1")(x)))
            x = max_pool(x)
        outputs = []
        for i, blocks in enumerate(self.blocks):
            x = Stage(block, blocks, self.filters * 2**i, stride=1 if i == 0 else 2, unroll=self.unroll,
                      name=f"stage{i + 1}")(x)
            outputs.append(x)
        if features:
            return tuple(outputs)
        x = x.astype(jnp.float32).mean((1, 2))
        he = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        return nn.Dense(self.classes, kernel_init=he, precision=matmul, name="fc")(x)


def cifar_resnet(depth: int, shortcut: Option = "A", classes: int = 10, **settings: Any) -> ResNet:
    """Build a network of section 4.2: `depth` = 6n+2 layers on maps of 32, 16 and 8 with 16, 32 and 64 filters.

    `shortcut` is "A", "B", "C" or "plain"; `settings` are fields of `ResNet`.
    Raises ValueError for another depth or shortcut.
    """
    if depth < 8 or (depth - 2) % 6:
        n = max(1, (depth - 2) // 6)
        raise ValueError(f"depth {depth} is not 6n+2: the nearest are {6 * n + 2} and {6 * n + 8}")
    _check_shortcut(shortcut)
    return ResNet((((depth - 2) // 6),) * 3, filters=16, classes=classes, shortcut=shortcut, **settings)


IMAGENET = {  # Table 1: the blocks of conv2_x ... conv5_x
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


def imagenet_resnet(depth: int, shortcut: Option = "B", classes: int = 1000, *,
                    stride_in: Literal["1x1", "3x3"] = "1x1", **settings: Any) -> ResNet:
    """Build a network of Table 1; `stride_in` places a bottleneck's stride ("1x1" is the paper's).

    Raises ValueError for a depth that is not in the table, or an unknown shortcut.
    """
    if depth not in IMAGENET:
        raise ValueError(f"depth {depth} is not in Table 1: it has {', '.join(map(str, IMAGENET))}")
    _check_shortcut(shortcut)
    block, blocks = IMAGENET[depth]
    return ResNet(blocks, filters=64, classes=classes, shortcut=shortcut, block=block, stride_in=stride_in,
                  stem="7x7", **{"norm_group": 32, **settings})


def _check_shortcut(shortcut: str) -> None:
    if shortcut not in OPTIONS:
        raise ValueError(f"shortcut {shortcut!r} is unknown: it is one of {', '.join(OPTIONS)}")
