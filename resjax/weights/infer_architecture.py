"""Infers a network from the names and shapes of its tensors, and from hints if names and shapes are ambiguous."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Literal

from resjax.experiment import Architecture
from resjax.models.families import IMAGENET, Bare, Block, Option, StrideIn
from resjax.system.errors import BadInput, check
from resjax.weights.locate import Tensors
from resjax.weights.tensor_names import Names, module_name

MOST_CHANNELS = 1024  # largest number of image channels


def head_kernel(names: Names) -> str:
    """Return the name of the last layer's kernel."""
    return names.head + names.dense["kernel"]


def ends(tensors: Tensors, names: Names, source: str) -> tuple[int, int]:
    """Return the numbers of image channels and classes (0 without a last layer). Raises BadInput for bad kernels."""
    stem, last = tensors[names.prefix + names.stem[0] + names.conv["kernel"]], tensors.get(head_kernel(names))
    if stem.ndim != 4 or (last is not None and last.ndim != 2) or 0 in (stem.size, 1 if last is None else last.size):
        raise BadInput(f"{source}: the first kernel has shape {stem.shape} and the last "
                       f"{None if last is None else last.shape}; a convolution must have four axes, and a fully "
                       "connected layer two")
    channels = stem.transpose(names.conv_axes).shape[2]
    check_channels(channels, source)
    return channels, 0 if last is None else last.transpose(names.dense_axes).shape[1]


def check_channels(channels: int, source: str) -> None:
    """Raise BadInput for images with more channels than networks support."""
    check(channels <= MOST_CHANNELS,
          f"{source}: its images would have {channels:,} channels; the limit is {MOST_CHANNELS}")


def infer_architecture(tensors: Tensors, names: Names, source: str, stride_in: StrideIn | None,
                       shortcut: Bare | None) -> Architecture:
    """Infer the architecture, that is, family, depth and shortcut.

    Tensors do not show two facts, which are given as hints. `stride_in` says where bottlenecks have their stride.
    `shortcut` says whether a network without projections is plain or uses option A. Raises BadInput if a required hint
    is None or the network is unknown.
    """
    blocks = tuple(count_blocks(tensors, names))
    bottleneck = kernel_name(names, 1, 0, "conv3") in tensors
    kind: Block = "bottleneck" if bottleneck else "basic"
    family: Literal["cifar", "imagenet"] = "cifar" if len(blocks) == 3 else "imagenet"
    depths: dict[tuple[Block, tuple[int, ...]], int] = {table: depth for depth, table in IMAGENET.items()}
    if family == "cifar" and len(set(blocks)) == 1:
        depths["basic", blocks] = 6 * blocks[0] + 2
    if (kind, blocks) not in depths:
        raise BadInput(f"{source}: {kind} blocks {blocks} form neither a network of Table 1 nor one of section 4.2")
    if bottleneck and stride_in is None:
        raise BadInput(f"{source}: the tensors do not show which convolution has the stride; pass --stride-in 3x3 "
                       "(v1.5, torchvision and timm) or --stride-in 1x1 (v1, the paper)")
    option = find_shortcut(tensors, names, blocks, bottleneck, source) or shortcut
    if option is None:
        raise BadInput(f"{source}: no shortcut has a tensor, so this is a plain network or uses option A; pass "
                       "--shortcut plain or --shortcut A")
    return Architecture(family=family, depth=depths[kind, blocks], shortcut=option,
                        ghost_batch_size=64 if family == "cifar" else 32,
                        stride_in=stride_in if bottleneck and stride_in else "1x1")


def count_blocks(tensors: Tensors, names: Names) -> Iterator[int]:
    """Count the blocks of each stage."""
    stage = 1
    while kernel_name(names, stage, 0, "conv1") in tensors:
        yield next(block for block in count(1) if kernel_name(names, stage, block, "conv1") not in tensors)
        stage += 1


def find_shortcut(tensors: Tensors, names: Names, stages: Sequence[int], bottleneck: bool,
                  source: str) -> Option | None:
    """Distinguish options B and C by the location of projections; None if there are no projections."""
    all_blocks = {(stage, block) for stage, blocks in enumerate(stages, 1) for block in range(blocks)}
    changing = {(stage, 0) for stage in range(1 if bottleneck else 2, len(stages) + 1)}
    projected = {(stage, block) for stage, block in all_blocks if kernel_name(names, stage, block, "conv") in tensors}
    if not projected:
        return None
    if projected not in (all_blocks, changing):
        raise BadInput(f"{source}: its shortcuts project in the blocks {sorted(projected)} (stage, block); option B "
                       f"would project in {sorted(changing)}, and option C in all blocks")
    return "C" if projected == all_blocks else "B"


def kernel_name(names: Names, stage: int, block: int, module: str) -> str:
    """Return the name of a convolution's kernel in a block, or in its shortcut ("conv")."""
    where = ("shortcut",) if module == "conv" else ()
    return module_name(names, (f"stage{stage}", block, *where, module)) + names.conv["kernel"]
