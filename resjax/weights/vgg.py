"""Recognises, reads and writes VGG-16 and VGG-19 with the tensor names of torchvision or Keras.

The first fully connected layer takes the last feature maps as one vector. Keras and resjax order the vector row by row
with channels innermost, whereas PyTorch orders it channel by channel.
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resjax.experiment import Architecture
from resjax.models import VGG
from resjax.models.counts import variable_shapes
from resjax.models.families import VGG_STAGES
from resjax.models.vgg import SIDE
from resjax.system.errors import check
from resjax.weights.infer_architecture import check_channels
from resjax.weights.locate import Located, Tensors, find_head

Family = Literal["torchvision", "keras"]
LAST: dict[Family, dict[int, str]] = {  # the last convolution by depth, deepest network first
    "torchvision": {19: "features.34.weight", 16: "features.28.weight"},
    "keras": {19: "block5_conv4/kernel", 16: "block5_conv3/kernel"}}
DENSE = {"torchvision": ("classifier.0", "classifier.3", "classifier.6"), "keras": ("fc1", "fc2", "predictions")}
AXES: dict[Family, tuple[tuple[int, ...], tuple[int, ...]]] = {  # axis orders of convolution and dense kernels
    "torchvision": ((2, 3, 1, 0), (1, 0)), "keras": ((0, 1, 2, 3), (0, 1))}


class LayerNames(NamedTuple):
    """A layer, with its path in our parameters, and a family's names for its kernel and bias."""

    path: tuple[str, ...]
    kernel: str
    bias: str


def canonical_vgg(located: Located, source: str) -> tuple[Family, Tensors]:
    """Rename a VGG's tensors to torchvision's or Keras's names.

    This includes timm's VGG networks, whose first two dense layers are convolutions over the whole maps.
    """
    family: Family = "torchvision" if located.family == "vgg" else "keras"
    fc6, fc7, last = DENSE[family]
    hidden = {"pre_logits.fc1": fc6, "pre_logits.fc2": fc7, fc6: fc6, fc7: fc7}
    separator, kernel = (".", "weight") if family == "torchvision" else ("/", "kernel")
    tensors, beside = dict(located.own), dict(located.beside)
    for name, tensor in located.beside.items():
        module, _, leaf = name.rpartition(separator)
        if module in hidden:
            del beside[name]
            matrix = tensor.reshape(len(tensor), -1) if tensor.ndim == 4 and module not in (fc6, fc7) else tensor
            tensors[f"{hidden[module]}{separator}{leaf}"] = matrix
    head = find_head(beside, kernel, source)
    if head:
        classes = head[kernel].transpose(AXES[family][1]).shape[1]
        tensors[f"{last}{separator}{kernel}"] = head[kernel]
        tensors[f"{last}{separator}bias"] = head.get("bias", np.zeros(classes, np.float32))
    return family, tensors


def find_depth(family: Family, tensors: Mapping[str, np.ndarray], source: str) -> int:
    """Return the depth. Raises BadInput for networks with these names but another depth or batch norm, or AlexNet."""
    odd = next((name for name in tensors if name.endswith((".running_mean", "/gamma"))), None)
    check(odd is None, f"{source}: a VGG with batch norm ({odd}), which is not a network of the paper")
    depths = [depth for depth, last in LAST[family].items() if last in tensors]
    check(bool(depths), f"{source}: a VGG, AlexNet or the like whose depth is not 16 or 19, so it is not a network "
                        "of the paper")
    return depths[0]


def layers(family: Family, depth: int, last: bool, hidden: bool = True) -> Iterator[LayerNames]:
    """List the layers in execution order. `hidden` and `last` say which dense layers there are."""
    kernel, bias = ("/kernel", "/bias") if family == "keras" else (".weight", ".bias")
    stages = VGG_STAGES[depth]
    starts = accumulate((2 * count + 1 for count in stages), initial=0)  # PyTorch's list includes ReLUs and pooling
    for stage, (count, start) in enumerate(zip(stages, starts, strict=False), 1):
        for layer in range(1, count + 1):
            name = f"block{stage}_conv{layer}" if family == "keras" else f"features.{start + 2 * (layer - 1)}"
            yield LayerNames(("convolutions", f"conv{stage}_{layer}"), name + kernel, name + bias)
    for path, name in zip((("hidden", "fc6"), ("hidden", "fc7"), ("fc",)), DENSE[family], strict=True):
        if last if path == ("fc",) else hidden:
            yield LayerNames(path, name + kernel, name + bias)


def describe_vgg(tensors: Tensors, family: Family, depth: int, source: str) -> tuple[Architecture, VGG, int]:
    """Return the architecture, the network with the widths of the tensors, and the number of image channels.

    Without the last layer, the network has 0 classes. Without the hidden layers, it has 0 units, like Keras's networks
    without top. Raises BadInput for a missing tensor or an invalid kernel.
    """
    leaf = "/kernel" if family == "keras" else ".weight"
    hidden = any(name + leaf in tensors for name in DENSE[family][:2])
    table = list(layers(family, depth, DENSE[family][2] + leaf in tensors, hidden))
    shapes = {}
    for layer in table:
        axes = AXES[family][layer.path[0] != "convolutions"]
        for name in (layer.kernel, layer.bias):
            check(name in tensors, f"{source}: {name} is missing, which corresponds to {'/'.join(layer.path)} in "
                                   f"resjax's VGG-{depth}")
        shape = tensors[layer.kernel].shape
        check(len(shape) == len(axes) and 0 not in shape,
              f"{source}: {layer.kernel} has shape {shape}; a convolution must have four axes, and a dense layer two")
        shapes[layer.path[-1]] = tuple(shape[axis] for axis in axes)
    channels, filters = shapes["conv1_1"][2], tuple(shapes[f"conv{stage}_1"][3] for stage in range(1, 6))
    check_channels(channels, source)
    classes = shapes["fc"][1] if "fc" in shapes else 0
    model = VGG(depth, classes, filters, shapes["fc6"][1] if hidden else 0)
    wanted = flatten_dict(variable_shapes(model, (32 * SIDE, 32 * SIDE, channels))["params"])
    for layer in table:
        for name, leaf in ((layer.kernel, "kernel"), (layer.bias, "bias")):
            actual = shapes[layer.path[-1]] if leaf == "kernel" else tensors[name].shape
            shape = wanted[(*layer.path, leaf)].shape
            check(actual == shape, f"{source}: {name} has shape {tensors[name].shape}, but {'/'.join(layer.path)}/"
                                   f"{leaf} in resjax has {shape}")
    return Architecture(family="vgg", depth=depth, shortcut="plain"), model, channels


def to_vgg_variables(tensors: Tensors, family: Family, model: VGG, source: str) -> Any:
    """Fill VGG's variables in float32, and use every tensor. Raises BadInput for extra or non-finite tensors."""
    params: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    unused = set(tensors)
    for layer in layers(family, model.depth, bool(model.classes), bool(model.units)):
        for name in (layer.kernel, layer.bias):
            check(bool(np.isfinite(tensors[name]).all()), f"{source}: {name} contains a value that is not finite")
        params[layer.path] = read_layer(tensors, family, layer)
        unused -= {layer.kernel, layer.bias}
    check(not unused, f"{source}: VGG-{model.depth} has no parameter for {', '.join(sorted(unused)[:5])}")
    return {"params": unflatten_dict(params)}


def read_layer(tensors: Tensors, family: Family, layer: LayerNames) -> dict[str, np.ndarray]:
    """Return a layer's kernel and bias in float32, with our axis order."""
    kernel, bias = (np.asarray(tensors[name], np.float32) for name in (layer.kernel, layer.bias))
    kernel = kernel.transpose(AXES[family][kernel.ndim == 2])
    if layer.path[-1] == "fc6" and family == "torchvision":
        kernel = kernel.reshape(-1, SIDE, SIDE, kernel.shape[-1]).transpose(1, 2, 0, 3).reshape(kernel.shape)
    return {"kernel": np.ascontiguousarray(kernel), "bias": bias}


def to_vgg_tensors(variables: Any, family: Family, model: VGG) -> Tensors:
    """Name VGG's variables as a family does, in float32."""
    tensors: Tensors = {}
    params = flatten_dict(jax.device_get(variables["params"]))
    for layer in layers(family, model.depth, bool(model.classes), bool(model.units)):
        kernel = np.asarray(params[(*layer.path, "kernel")])
        if layer.path[-1] == "fc6" and family == "torchvision":
            kernel = kernel.reshape(SIDE, SIDE, -1, model.units).transpose(2, 0, 1, 3).reshape(kernel.shape)
        tensors[layer.kernel] = np.ascontiguousarray(kernel.transpose(np.argsort(AXES[family][kernel.ndim == 2])))
        tensors[layer.bias] = np.asarray(params[(*layer.path, "bias")])
    return tensors
