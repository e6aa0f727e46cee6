"""Locates a network among the tensors of a file, by the names of its first kernels.

These names show the network's naming family (see `tensor_names`) and a prefix. The network consists of all tensors
whose names have this prefix, followed by a layer name of the family. Segments that wrappers such as torch.compile add
to names are ignored. If the other tensors contain exactly one layer, and this layer is fully connected, it is taken as
the last layer, whatever its name. Several layers are taken as a custom head. The head is left out with a message, and
the network then returns only features. Single vectors are left out too, as are the tensors of modules whose names begin
with "loss" or "criterion". If the other tensors contain a convolution, the network is part of a larger one, which is
refused.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from resjax.system.errors import BadInput, check
from resjax.system.terminal import harmless, tell
from resjax.weights.tensor_names import FAMILIES

Tensors = dict[str, np.ndarray]
WRAPPERS = frozenset({  # of parallel training, averages, torch.compile, checkpointing, FSDP and Lightning
    "module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"})
COUNTERS = frozenset({  # counters of batches, updates and averaged models among the weights
    "n_averaged", "num_updates", "num_batches_tracked", "step", "global_step", "iteration", "epoch", "initted",
    "decay"})


class Mark(NamedTuple):
    """The marks of a family: its first kernel, one more kernel, and the pattern of its layer names."""

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
    """A network's own tensors, without their prefix, and the other tensors of the file."""

    family: str
    own: Tensors
    beside: Tensors


def unwrapped(name: str) -> str:
    """Remove the segments that wrappers and compilers add to a name."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def find_prefixes(names: Iterable[str]) -> list[tuple[str, str]]:
    """List the networks among tensor names, by family and prefix."""
    known = set(names)
    return [(family, name.removesuffix(mark.first)) for family, mark in MARKS.items() for name in sorted(known)
            if name.endswith(mark.first) and name.removesuffix(mark.first)[-1:] in ("", ".", "/")
            and name.removesuffix(mark.first) + mark.second in known]


def without_wrappers(tensors: Mapping[str, np.ndarray], source: str) -> Tensors:
    """Remove wrappers' segments and counters. Raises BadInput if two tensors then have the same name."""
    originals: dict[str, str] = {}
    for name, tensor in tensors.items():
        if name.rpartition(".")[2] in COUNTERS and tensor.size == 1:
            continue
        if (short := unwrapped(name)) in originals:
            raise BadInput(f"{source}: {originals[short]} and {name} are the same tensor")
        originals[short] = name
    return {short: tensors[name] for short, name in originals.items()}


def locate(tensors: Tensors, source: str) -> Located:
    """Find the network. Raises BadInput if there is none, or more than one."""
    networks = find_prefixes(tensors)
    if not networks:
        known = "; ".join(f"{names.title}: {MARKS[family].first} ... {names.head}{names.dense['kernel']}"
                          for family, names in FAMILIES.items() if family in MARKS)
        raise BadInput(f"{source}: unknown tensor names ({', '.join(sorted(tensors)[:3])} ...). A "
                       f"ResNet must have, after any prefix, one of: {known}")
    if len(networks) > 1:
        raise BadInput(f"{source}: contains {len(networks)} networks, with the prefixes "
                       f"{', '.join(prefix or '(none)' for _, prefix in networks[:5])}; save only one")
    family, prefix = networks[0]
    layers = re.compile(MARKS[family].layers)
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()
           if name.startswith(prefix) and layers.match(name.removeprefix(prefix))}
    beside = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()
              if not (name.startswith(prefix) and layers.match(name.removeprefix(prefix)))}
    if family == "torchvision":
        family = torchvision_or_akamaster(own, beside)
    return Located(family, own, beside)


def torchvision_or_akamaster(own: Tensors, beside: Tensors) -> str:
    """Distinguish the names of pytorch_resnet_cifar10 and torchvision, by a projection or by the last layer.

    Without a projection and a last layer, the names are pytorch_resnet_cifar10's, because its option A has no
    parameters.
    """
    if any(".downsample." in name for name in own):
        return "torchvision"
    projected = any(".shortcut." in name for name in own)
    return "torchvision" if not projected and any(name.startswith("fc.") for name in beside) else "akamaster"


def find_head(beside: Tensors, kernel: str, source: str) -> Tensors:
    """Find the last layer among the tensors outside of the network, if there is exactly one layer.

    Returns the layer's kernel and bias by leaf name; empty if there is no layer or more than one. Reports which tensors
    are left out. Raises BadInput for convolutions.
    """
    modules: dict[str, Tensors] = {}
    for name, tensor in beside.items():
        parent, leaf = re.fullmatch(r"(?:(.*)[./])?([^./]*)", name, re.DOTALL).groups("")  # type: ignore[union-attr]
        modules.setdefault(parent, {})[leaf] = tensor
    layers = {name: leaves for name, leaves in modules.items() if not LOSS.search(name) and is_layer(leaves)}
    if convolutions := [name for name, leaves in layers.items() if any(leaf.ndim > 2 for leaf in leaves.values())]:
        raise BadInput(f"{source}: contains other convolutions ({', '.join(convolutions[:3])}), so the network is "
                       "part of a larger one; save only the network's state_dict")
    lone = next((name for name, leaves in modules.items() if leaves.keys() == {"bias"}), None)
    check(lone is None, f"{source}: {lone}.bias is the bias of a layer without a kernel")
    alone = next(iter(layers.values())) if len(layers) == 1 else {}
    is_head = kernel in alone and alone[kernel].ndim == 2 and alone.keys() <= {kernel, "bias"}
    left_out = sorted(name for name in modules if not (is_head and name in layers))
    if left_out:
        dropped = "; a head of several layers is not read, so there are only features" if layers and not is_head else ""
        tell(harmless(f"{source}: skipped tensors that are not part of the network: {', '.join(left_out[:5])}"
                      f"{f' and {len(left_out) - 5} more' if len(left_out) > 5 else ''}{dropped}"))
    return alone if is_head else {}


def is_layer(leaves: Tensors) -> bool:
    """Return whether tensors form a layer, that is, include a matrix or, for norms, two vectors."""
    return any(tensor.ndim > 1 for tensor in leaves.values()) or sum(tensor.ndim == 1 for tensor in leaves.values()) > 1


def canonical(located: Located, source: str) -> Tensors:
    """Rename a ResNet's tensors to its family's table, including the last layer with a bias."""
    names = FAMILIES[located.family]
    head = find_head(located.beside, names.dense["kernel"][1:], source)
    tensors = {names.prefix + name: tensor for name, tensor in located.own.items()}
    if head:
        kernel = head[names.dense["kernel"][1:]]
        tensors[names.head + names.dense["kernel"]] = kernel
        classes = kernel.transpose(names.dense_axes).shape[1]
        tensors[names.head + names.dense["bias"]] = head.get("bias", np.zeros(classes, np.float32))
    return tensors
