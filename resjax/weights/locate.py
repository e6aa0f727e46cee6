"""Where a network lies among the tensors of a file: below which prefix, under whose names, and which is its last layer.

The rule: the network is what lies below the prefix of its first kernels; segments that wrappers put into names do not
count. Of what lies beside it, one fully connected layer is its last layer, whatever it is called. Several layers are a
head that it does not have: they are left out, which is said, and it gives features. So are single vectors, and whatever
belongs to a loss by its name. A convolution beside it makes it a part of a larger network, which is refused.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from resjax.system.errors import BadInput, check
from resjax.system.terminal import harmless, tell
from resjax.weights.tensor_names import FAMILIES

Tensors = dict[str, np.ndarray]
WRAPPERS = frozenset({  # parallel training and averages, torch.compile, checkpointing, FSDP, Lightning's strategies
    "module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"})
COUNTERS = frozenset({  # what stands among weights and is none: counts of batches, of updates and of averaged models
    "n_averaged", "num_updates", "num_batches_tracked", "step", "global_step", "iteration", "epoch", "initted",
    "decay"})


class Mark(NamedTuple):
    """How a family is told: its first kernel and one more, and how the names of its layers begin."""

    first: str
    second: str
    layers: str


MARKS = {
    "torchvision": Mark("conv1.weight", "layer1.0.conv1.weight", r"(conv1|bn1|layer\d+)\."),
    "huggingface": Mark("embedder.embedder.convolution.weight",
                        "encoder.stages.0.layers.0.layer.0.convolution.weight", r"(embedder|encoder)\."),
    "keras": Mark("conv1_conv/kernel", "conv2_block1_1_conv/kernel", r"conv\d_"),
    "keras-2016": Mark("conv1/kernel", "res2a_branch2a/kernel", r"(conv1|bn_conv1|res\d|bn\d)"),
    "vgg": Mark("features.0.weight", "features.2.weight", r"features\."),
    "keras-vgg": Mark("block1_conv1/kernel", "block1_conv2/kernel", r"block\d_conv\d/")}
LOSS = re.compile(r"(^|[._/])(loss|criterion)", re.IGNORECASE)


class Located(NamedTuple):
    """A network's own tensors, without prefix, and those beside it."""

    family: str
    own: Tensors
    beside: Tensors


def unwrapped(name: str) -> str:
    """Drop the segments of a name that wrappers and compilers put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def find_prefixes(names: Iterable[str]) -> list[tuple[str, str]]:
    """List the networks among the names of tensors: family and prefix."""
    known = set(names)
    return [(family, name.removesuffix(mark.first)) for family, mark in MARKS.items() for name in sorted(known)
            if name.endswith(mark.first) and name.removesuffix(mark.first)[-1:] in ("", ".", "/")
            and name.removesuffix(mark.first) + mark.second in known]


def without_wrappers(tensors: Mapping[str, np.ndarray], source: str) -> Tensors:
    """Drop wrappers' segments and counters. Raises BadInput if two tensors then have one name."""
    found: dict[str, str] = {}
    for name, tensor in tensors.items():
        if name.rpartition(".")[2] in COUNTERS and tensor.size == 1:
            continue
        if (short := unwrapped(name)) in found:
            raise BadInput(f"{source}: {found[short]} and {name} are the same tensor, twice")
        found[short] = name
    return {short: tensors[name] for short, name in found.items()}


def locate(tensors: Tensors, source: str) -> Located:
    """Find the network. Raises BadInput if there is none, or more than one."""
    found = find_prefixes(tensors)
    if not found:
        known = "; ".join(f"{names.title}: {MARKS[family].first} ... {names.head}{names.dense['kernel']}"
                          for family, names in FAMILIES.items() if family in MARKS)
        raise BadInput(f"{source}: its names are nobody's that we know ({', '.join(sorted(tensors)[:3])} ...). A "
                       f"ResNet has, below any prefix, one of: {known}")
    if len(found) > 1:
        raise BadInput(f"{source}: it holds {len(found)} networks, below "
                       f"{', '.join(prefix or 'no prefix' for _, prefix in found[:5])}; save one alone")
    family, prefix = found[0]
    layers = re.compile(MARKS[family].layers)
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()
           if name.startswith(prefix) and layers.match(name.removeprefix(prefix))}
    beside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()
              if not (name.startswith(prefix) and layers.match(name.removeprefix(prefix)))}
    if family == "torchvision":
        family = told_apart(own, beside)
    return Located(family, own, beside)


def told_apart(own: Tensors, beside: Tensors) -> str:
    """Tell pytorch_resnet_cifar10's names from torchvision's by a projection, or where there is none by the last layer.

    Without both it is one of the former, whose option A has no parameters.
    """
    if any(".downsample." in name for name in own):
        return "torchvision"
    projected = any(".shortcut." in name for name in own)
    return "torchvision" if not projected and any(name.startswith("fc.") for name in beside) else "akamaster"


def find_head(beside: Tensors, kernel: str, source: str) -> Tensors:
    """Find the last layer among the tensors beside a network: its kernel, called `kernel` there, and its bias, named as
    leaves of a layer; nothing where there is none or more than that. Says what is left out. Raises BadInput for
    convolutions.
    """
    modules: dict[str, Tensors] = {}
    for name, tensor in beside.items():
        parent, leaf = re.fullmatch(r"(?:(.*)[./])?([^./]*)", name, re.DOTALL).groups("")  # type: ignore[union-attr]
        modules.setdefault(parent, {})[leaf] = tensor
    layers = {name: leaves for name, leaves in modules.items() if not LOSS.search(name) and is_layer(leaves)}
    if convolutions := [name for name, leaves in layers.items() if any(leaf.ndim > 2 for leaf in leaves.values())]:
        raise BadInput(f"{source}: beside the network lie convolutions ({', '.join(convolutions[:3])}), so it is a "
                       "part of a larger one; save the network's own state_dict")
    lone = next((name for name, leaves in modules.items() if leaves.keys() == {"bias"}), None)
    check(lone is None, f"{source}: {lone}.bias is the bias of a layer whose kernel is not there")
    alone = next(iter(layers.values())) if len(layers) == 1 else {}
    is_head = kernel in alone and alone[kernel].ndim == 2 and alone.keys() <= {kernel, "bias"}
    left_out = sorted(name for name in modules if not (is_head and name in layers))
    if left_out:
        dropped = "; a head of several layers is not read, and features are" if layers and not is_head else ""
        tell(harmless(f"{source}: left out, as no part of the network: {', '.join(left_out[:5])}"
                      f"{f' and {len(left_out) - 5} more' if len(left_out) > 5 else ''}{dropped}"))
    return alone if is_head else {}


def is_layer(leaves: Tensors) -> bool:
    """Tell a layer from a single vector: it has a matrix, or as norms have two vectors."""
    return any(tensor.ndim > 1 for tensor in leaves.values()) or sum(tensor.ndim == 1 for tensor in leaves.values()) > 1


def canonical(located: Located, source: str) -> Tensors:
    """Name a ResNet's tensors as the table of its family does, the last layer among them, with a bias."""
    names = FAMILIES[located.family]
    head = find_head(located.beside, names.dense["kernel"][1:], source)
    tensors = {names.prefix + name: tensor for name, tensor in located.own.items()}
    if head:
        kernel = head[names.dense["kernel"][1:]]
        tensors[names.head + names.dense["kernel"]] = kernel
        classes = kernel.transpose(names.dense_axes).shape[1]
        tensors[names.head + names.dense["bias"]] = head.get("bias", np.zeros(classes, np.float32))
    check(bool(tensors), f"{source}: it holds no tensor")
    return tensors
