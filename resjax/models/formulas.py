"""Counts parameters and multiply-adds of the paper's networks by formula. No JAX is needed, so listing them is fast.

`models.counts` derives the same numbers from the traced computation, and the tests compare both.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from resjax.models.families import VGG_FILTERS, cifar_blocks, imagenet_blocks, vgg_stages

if TYPE_CHECKING:
    from resjax.experiment import Architecture


class Convolution(NamedTuple):
    """A convolution followed by batch norm; `height` and `width` are the size of its output."""

    size: int
    channels: int
    filters: int
    height: int
    width: int


class Sizes(NamedTuple):
    """The number of trainable parameters, and the multiply-adds of convolutions and the last layer for one image."""

    parameters: int
    macs: int


def count(architecture: "Architecture", image: tuple[int, int, int], classes: int) -> Sizes:
    """Count the parameters of a network and its multiply-adds for an image `(height, width, channels)`."""
    if architecture.family == "vgg":
        return count_vgg(architecture.depth, image, classes)
    layers = list(convolutions(architecture, image))
    kernels = [layer.size**2 * layer.channels * layer.filters for layer in layers]
    last = layers[-1].filters * classes
    return Sizes(sum(kernels) + 2 * sum(layer.filters for layer in layers) + last + classes,
                 sum(kernel * layer.height * layer.width for kernel, layer in zip(kernels, layers, strict=True)) + last)


def count_vgg(depth: int, image: tuple[int, int, int], classes: int) -> Sizes:
    """Count VGG's 3x3 convolutions and its three fully connected layers on every 7x7 window, all with biases."""
    height, width, inside = image
    parameters = macs = 0
    for layers, filters in zip(vgg_stages(depth), VGG_FILTERS, strict=True):
        for _ in range(layers):
            parameters += 9 * inside * filters + filters
            macs += 9 * inside * filters * height * width
            inside = filters
        height, width = height // 2, width // 2
    windows, inside = max(0, height - 6) * max(0, width - 6), 49 * inside
    for units in (4096, 4096, classes):
        parameters += inside * units + units
        macs += inside * units * windows
        inside = units
    return Sizes(parameters, macs)


def convolutions(architecture: "Architecture", image: tuple[int, int, int]) -> Iterator[Convolution]:
    """List the convolutions of a network (Table 1, section 4.2), including the projections of its shortcuts."""
    height, width, channels = image
    if architecture.family == "imagenet":
        (kind, blocks), filters = imagenet_blocks(architecture.depth), 64
        yield Convolution(7, channels, filters, half(height), half(width))
        height, width = half(half(height)), half(half(width))
    else:
        kind, blocks, filters = "basic", cifar_blocks(architecture.depth), 16
        yield Convolution(3, channels, filters, height, width)
    channels = filters
    for stage, several in enumerate(blocks):
        inside = filters * 2**stage
        out = 4 * inside if kind == "bottleneck" else inside
        for number in range(several):
            shape = (height, width, channels)
            height, width = (half(height), half(width)) if number == 0 and stage > 0 else (height, width)
            yield from block(architecture, shape, inside, Convolution(1, inside, out, height, width))
            channels = out


def block(architecture: "Architecture", shape: tuple[int, int, int], inside: int,
          last: Convolution) -> Iterator[Convolution]:
    """List the convolutions of a block on a map `(height, width, channels)`; bottlenecks end with `last`."""
    height, width, channels = shape
    _, _, out, tall, wide = last
    if inside == out:
        yield Convolution(3, channels, out, tall, wide)
        yield Convolution(3, out, out, tall, wide)
    else:
        yield Convolution(1, channels, inside, *((tall, wide) if architecture.stride_in == "1x1" else (height, width)))
        yield Convolution(3, inside, inside, tall, wide)
        yield last
    changes = shape != (tall, wide, out)
    if architecture.shortcut == "C" or (architecture.shortcut == "B" and changes):
        yield Convolution(1, channels, out, tall, wide)


def half(side: int) -> int:
    """Halve a side, rounding up, as a stride of 2 does."""
    return -(-side // 2)
