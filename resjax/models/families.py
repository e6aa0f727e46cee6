"""The families of the paper's networks, their shortcuts and strides, and the number of blocks per stage for each depth.

This module does not import JAX, so that runs can be listed and checked quickly.
"""

from typing import Literal

from resjax.system.errors import BadInput

Option = Literal["plain", "A", "B", "C"]  # shortcuts, section 3.3
StrideIn = Literal["1x1", "3x3"]
Block = Literal["basic", "bottleneck"]
Bare = Literal["plain", "A"]  # the shortcuts without parameters

IMAGENET: dict[int, tuple[Block, tuple[int, ...]]] = {  # Table 1: the blocks of conv2_x ... conv5_x
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}

VGG_STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # the convolutions of VGG's stages (Simonyan & Zisserman 2015)
VGG_FILTERS = (64, 128, 256, 512, 512)


def vgg_stages(depth: int) -> tuple[int, ...]:
    """Return the number of convolutions in each stage of VGG. Raises BadInput for an unknown depth."""
    if depth not in VGG_STAGES:
        raise BadInput(f"depth is {depth}; for VGG it must be 16 or 19, as in the paper")
    return VGG_STAGES[depth]


def imagenet_blocks(depth: int) -> tuple[Block, tuple[int, ...]]:
    """Return the kind of block and the blocks per stage of a network of Table 1. Raises BadInput for another depth."""
    if depth not in IMAGENET:
        raise BadInput(f"depth is {depth}; it must be a depth of Table 1: {', '.join(map(str, IMAGENET))}")
    return IMAGENET[depth]


def cifar_blocks(depth: int) -> tuple[int, ...]:
    """Return the blocks per stage of a network of section 4.2. A network of 6n+2 layers has three stages of n blocks.

    Raises BadInput for another depth.
    """
    if depth < 8 or (depth - 2) % 6:
        n = max(1, (depth - 2) // 6)
        raise BadInput(f"depth is {depth}; it must be 6n+2, such as {6 * n + 2} or {6 * n + 8}")
    return ((depth - 2) // 6,) * 3


def check_depth(family: str, depth: int) -> None:
    """Raise BadInput unless this depth exists in a family of networks."""
    try:
        {"cifar": cifar_blocks, "imagenet": imagenet_blocks, "vgg": vgg_stages}[family](depth)
    except BadInput as error:
        raise BadInput(f"architecture: {error}") from None


def network_title(family: str, depth: int, shortcut: Option, stride_in: StrideIn) -> str:
    """Return a network's name, such as "ResNet B-50 v1 in ImageNet form" or "plain-20 in CIFAR form"."""
    if family == "vgg":
        return f"VGG-{depth} in ImageNet form"
    stride = {"1x1": "v1", "3x3": "v1.5"}[stride_in] if family == "imagenet" and depth >= 50 else ""
    kind = "plain" if shortcut == "plain" else f"ResNet {shortcut}"
    form = "CIFAR" if family == "cifar" else "ImageNet"
    return " ".join(filter(None, (f"{kind}-{depth}", stride, f"in {form} form")))
