"""Converts named tensors to our variables and back, by the tables of `tensor_names`. Unknown names are errors."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from resjax.models import BatchNorm, ResNet
from resjax.models.counts import variable_shapes
from resjax.models.stacking import unstack
from resjax.system.errors import BadInput, check
from resjax.weights.locate import Tensors
from resjax.weights.tensor_names import Names, module_name


class Slot(NamedTuple):
    """The place of one tensor: a leaf of our variables (`place` in messages), the axis order (None if unchanged), and
    the convolution bias to include, if the family has one.
    """

    leaf: np.ndarray
    place: str
    axes: tuple[int, ...] | None
    bias: str | None


def slots(names: Names, apart: Any) -> Iterator[tuple[str, Slot]]:
    """List every tensor of a network by its name in a family; `apart` holds its variables, block by block."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(apart):
        path: tuple[Any, ...] = tuple(getattr(key, "key", getattr(key, "idx", None)) for key in keys)
        _, *module, name = path
        kind = "dense" if module[-1] == "fc" else "norm" if module[-1].startswith("bn") else "conv"
        axes = {"conv": names.conv_axes, "dense": names.dense_axes}.get(kind) if name == "kernel" else None
        bias = None
        if name == "mean" and "bias" in names.conv:
            bias = module_name(names, (*module[:-1], module[-1].replace("bn", "conv"))) + names.conv["bias"]
        theirs = module_name(names, tuple(module)) + getattr(names, kind)[name]
        yield theirs, Slot(leaf, "/".join(map(str, path)), axes, bias)


def to_variables(tensors: Tensors, names: Names, model: ResNet, channels: int, source: str) -> Any:
    """Fill a network's variables in float32. Every leaf is set exactly once, and every tensor is used.

    The bias of a convolution is folded into the mean that the following batch norm subtracts. Raises BadInput, naming
    source, tensor and place in the network, if a tensor or a leaf is missing, shapes differ, or a value is not finite.
    """
    shapes = variable_shapes(model, (32, 32, channels))
    filled = jax.tree.map(lambda leaf: np.empty(leaf.shape, np.float32), shapes)
    apart = unstack_stages(filled)
    unused = {name for name in tensors if not names.counter or not name.endswith(names.counter)}
    for name, slot in slots(names, apart):
        leaf, where = slot.leaf, slot.place
        check(name in tensors, f"{source}: {name} is missing, which corresponds to {where} {leaf.shape} in resjax")
        tensor = tensors[name].astype(np.float32)
        if slot.axes and tensor.ndim == len(slot.axes):
            tensor = tensor.transpose(slot.axes)
        if tensor.shape != leaf.shape:
            raise BadInput(f"{source}: {name} has shape {tensors[name].shape}, but {where} in resjax has {leaf.shape}")
        check(bool(np.isfinite(tensor).all()), f"{source}: {name} contains a value that is not finite")
        unused.discard(name)
        if slot.place.endswith("/var"):
            tensor = shift_variance(tensor, names.epsilon - BatchNorm.epsilon)
        if slot.bias in tensors:
            tensor = tensor - tensors[slot.bias].astype(np.float32)
            unused.discard(slot.bias)
        leaf[...] = tensor
    check(not unused, f"{source}: the network has no parameter for {', '.join(sorted(unused)[:5])}"
                      f"{f' and {len(unused) - 5} more' if len(unused) > 5 else ''}")
    if names.around and model.shortcut == "A":
        reorder(apart, model, back=False)
    return filled


def to_tensors(variables: Any, names: Names, model: ResNet) -> Tensors:
    """Name a network's variables as a family does, in float32. Convolution biases and batch counts are set to 0."""
    apart = unstack_stages(jax.tree.map(np.array, jax.device_get(variables)))
    if names.around and model.shortcut == "A":
        reorder(apart, model, back=True)
    tensors: Tensors = {}
    for name, slot in slots(names, apart):
        value = slot.leaf
        if slot.place.endswith("/var"):
            value = shift_variance(value, BatchNorm.epsilon - names.epsilon)
        tensors[name] = np.ascontiguousarray(value.transpose(np.argsort(slot.axes)) if slot.axes else value)
        if slot.bias:
            tensors[slot.bias] = np.zeros_like(tensors[name])
        if names.counter and slot.place.endswith("/mean"):
            tensors[name.removesuffix(names.norm["mean"]) + names.counter] = np.zeros((), np.int64)
    return tensors


def unstack_stages(variables: Any) -> Any:
    """Split the stages of NumPy variables into blocks, which are views."""
    return {kind: unstack(collection) for kind, collection in variables.items()}


def shift_variance(variance: np.ndarray, epsilon: float) -> np.ndarray:
    """Add the difference between two epsilons to a variance. A round trip may change the variance's last bit."""
    return (variance.astype(np.float64) + epsilon).astype(np.float32)


def reorder(apart: Any, model: ResNet, *, back: bool) -> None:
    """Reorder channels between option A with zeros on both sides and option A with zeros at the end.

    The two variants differ only in the order of each stage's channels. The reordered network computes the same
    function, up to the order of sums.
    """
    before = np.arange(0)
    for stage in range(len(model.blocks)):
        order = np.arange(model.filters * 2**stage)
        if stage:  # the previous stage's channels are in the middle, and become the first ones
            kept = (len(order) - len(before)) // 2 + before
            order = np.concatenate([kept, np.setdiff1d(order, kept)])
        for collection in apart.values():
            for number, block in enumerate(collection[f"stage{stage + 1}"]):
                permute_channels(block, order if number else before, order, back)
        before = order
    if "fc" in apart["params"]:  # missing in a network without its last layer
        kernel = apart["params"]["fc"]["kernel"]
        kernel[...] = kernel[turned(before, back)]


def permute_channels(block: Any, incoming: np.ndarray, outgoing: np.ndarray, back: bool) -> None:
    """Reorder the input channels (if an order is given) and the output channels of a basic block, not the inner
    ones.
    """
    if "conv1" in block and len(incoming):
        kernel = block["conv1"]["kernel"]
        kernel[...] = np.take(kernel, turned(incoming, back), axis=-2)
    for module in ("conv2", "bn2"):
        for leaf in block.get(module, {}).values():
            leaf[...] = np.take(leaf, turned(outgoing, back), axis=-1)


def turned(order: np.ndarray, back: bool) -> np.ndarray:
    """Return an order, or its inverse."""
    return np.argsort(order) if back else order


def flip_colours(variables: Any) -> Any:
    """Convert a network between BGR and RGB images by flipping its first kernel `[height, width, colours, filters]`."""
    params = variables["params"]
    name, place = ("conv1", params) if "conv1" in params else ("conv1_1", params["convolutions"])
    place = {**place, name: {**place[name], "kernel": place[name]["kernel"][:, :, ::-1]}}
    return {**variables, "params": place if name == "conv1" else {**params, "convolutions": place}}
