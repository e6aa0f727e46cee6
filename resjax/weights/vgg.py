"""VGG-16 and VGG-19 under torchvision's and Keras's names: told by their tensors, read and written by one table.

The first fully connected layer sees the last maps as one vector: row by row with the channels innermost in Keras and
here, channel by channel in PyTorch.
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
from resjax.models.variants import VGG_STAGES
from resjax.models.vgg import SIDE
from resjax.system.errors import check
from resjax.weights.files import Tensors
from resjax.weights.infer_architecture import check_channels
from resjax.weights.tensor_names import VGG_STEMS

Family = Literal["torchvision", "keras"]
LAST: dict[Family, dict[int, str]] = {  # convolutions, the deeper network's first
    "torchvision": {19: "features.34.weight", 16: "features.28.weight"},
    "keras": {19: "block5_conv4/kernel", 16: "block5_conv3/kernel"}}
DENSE = {"torchvision": ("classifier.0", "classifier.3", "classifier.6"), "keras": ("fc1", "fc2", "predictions")}
AXES: dict[Family, tuple[tuple[int, ...], tuple[int, ...]]] = {  # of a convolution's kernel, and of a dense layer's
    "torchvision": ((2, 3, 1, 0), (1, 0)), "keras": ((0, 1, 2, 3), (0, 1))}


class Layer(NamedTuple):
    """A layer: its path in our parameters, and how a family names its kernel and its bias."""

    path: tuple[str, ...]
    kernel: str
    bias: str


def find_vgg(tensors: Mapping[str, np.ndarray]) -> tuple[Family, int] | None:
    """Tell whose VGG some tensors are, and its depth; None where they are none of ours. One with batch norm is not."""
    if any(name.startswith("features.") and name.endswith(".running_mean") for name in tensors):
        return None
    for family in LAST:
        if VGG_STEMS[family] in tensors:
            return next(((family, depth) for depth, last in LAST[family].items() if last in tensors), None)
    return None


def layers(family: Family, depth: int, last: bool) -> Iterator[Layer]:
    """List the layers in the order in which they run; `last` says whether there is a last one."""
    kernel, bias = ("/kernel", "/bias") if family == "keras" else (".weight", ".bias")
    stages = VGG_STAGES[depth]
    starts = accumulate((2 * count + 1 for count in stages), initial=0)  # of PyTorch's list: ReLUs and a pool count too
    for stage, (count, start) in enumerate(zip(stages, starts, strict=False), 1):
        for layer in range(1, count + 1):
            name = f"block{stage}_conv{layer}" if family == "keras" else f"features.{start + 2 * (layer - 1)}"
            yield Layer(("convolutions", f"conv{stage}_{layer}"), name + kernel, name + bias)
    for path, name in zip((("hidden", "fc6"), ("hidden", "fc7"), ("fc",)), DENSE[family], strict=True):
        if path != ("fc",) or last:
            yield Layer(path, name + kernel, name + bias)


def describe_vgg(tensors: Tensors, family: Family, depth: int, source: str) -> tuple[Architecture, VGG, int]:
    """Return the architecture, the network with the widths that the tensors have, and the channels of its images.

    Without the last layer it has 0 classes. Raises BadInput for a tensor that is missing or no kernel.
    """
    head = DENSE[family][2] + ("/kernel" if family == "keras" else ".weight")
    table = list(layers(family, depth, head in tensors))
    shapes = {}
    for layer in table:
        axes = AXES[family][layer.path[0] != "convolutions"]
        for name in (layer.kernel, layer.bias):
            check(name in tensors, f"{source}: {name} is missing, which VGG-{depth} has for our {'/'.join(layer.path)}")
        shape = tensors[layer.kernel].shape
        check(len(shape) == len(axes) and 0 not in shape,
              f"{source}: {layer.kernel} has shape {shape}; a convolution's has four axes and a dense layer's two")
        shapes[layer.path[-1]] = tuple(shape[axis] for axis in axes)
    channels, filters = shapes["conv1_1"][2], tuple(shapes[f"conv{stage}_1"][3] for stage in range(1, 6))
    check_channels(channels, source)
    classes = shapes["fc"][1] if "fc" in shapes else 0
    model = VGG(depth, classes, filters, shapes["fc6"][1])
    wanted = flatten_dict(variable_shapes(model, (32 * SIDE, 32 * SIDE, channels))["params"])
    for layer in table:
        for name, leaf in ((layer.kernel, "kernel"), (layer.bias, "bias")):
            found = shapes[layer.path[-1]] if leaf == "kernel" else tensors[name].shape
            shape = wanted[(*layer.path, leaf)].shape
            check(found == shape, f"{source}: {name} has shape {tensors[name].shape}, and our {'/'.join(layer.path)}/"
                                  f"{leaf} is {shape}")
    return Architecture(family="vgg", depth=depth, shortcut="plain"), model, channels


def to_vgg_variables(tensors: Tensors, family: Family, model: VGG, source: str) -> Any:
    """Fill VGG's variables, float32, with every tensor used. Raises BadInput for one too many or not finite."""
    params: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    unused = set(tensors)
    for layer in layers(family, model.depth, bool(model.classes)):
        for name in (layer.kernel, layer.bias):
            check(bool(np.isfinite(tensors[name]).all()), f"{source}: {name} holds a value that is not finite")
        params[layer.path] = read_layer(tensors, family, layer)
        unused -= {layer.kernel, layer.bias}
    check(not unused, f"{source}: our VGG-{model.depth} has no place for {', '.join(sorted(unused)[:5])}")
    return {"params": unflatten_dict(params)}


def read_layer(tensors: Tensors, family: Family, layer: Layer) -> dict[str, np.ndarray]:
    """Return a layer's kernel and bias, float32, with their axes in our order."""
    kernel, bias = (np.asarray(tensors[name], np.float32) for name in (layer.kernel, layer.bias))
    kernel = kernel.transpose(AXES[family][kernel.ndim == 2])
    if layer.path[-1] == "fc6" and family == "torchvision":
        kernel = kernel.reshape(-1, SIDE, SIDE, kernel.shape[-1]).transpose(1, 2, 0, 3).reshape(kernel.shape)
    return {"kernel": np.ascontiguousarray(kernel), "bias": bias}


def to_vgg_tensors(variables: Any, family: Family, model: VGG) -> Tensors:
    """Name VGG's variables as a family does; float32."""
    tensors: Tensors = {}
    params = flatten_dict(jax.device_get(variables["params"]))
    for layer in layers(family, model.depth, bool(model.classes)):
        kernel = np.asarray(params[(*layer.path, "kernel")])
        if layer.path[-1] == "fc6" and family == "torchvision":
            kernel = kernel.reshape(SIDE, SIDE, -1, model.units).transpose(2, 0, 1, 3).reshape(kernel.shape)
        tensors[layer.kernel] = np.ascontiguousarray(kernel.transpose(np.argsort(AXES[family][kernel.ndim == 2])))
        tensors[layer.bias] = np.asarray(params[(*layer.path, "bias")])
    return tensors
