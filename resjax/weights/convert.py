"""Tensors under another's names to our variables and back, by the same table of names: strict both ways."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resjax.errors import BadInput
from resjax.models import BatchNorm, ResNet
from resjax.weights.files import Tensors
from resjax.weights.names import Names, module_name

Path = tuple[str, ...]


class Slot(NamedTuple):
    """Where one tensor belongs: a leaf of our variables, the block in its stack (None: not stacked), the axes of the
    tensor in our order (None: as they are), and the convolution bias that goes into it, where the family has one.
    """

    leaf: Path
    block: int | None
    axes: tuple[int, ...] | None
    bias: str | None


def slots(names: Names, variables: Any) -> Iterator[tuple[str, Slot]]:
    """List every tensor of a network by its name in a family; `variables` are arrays or their shapes."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(variables):
        path = tuple(key.key for key in keys)
        _, *module, name = path
        stack = leaf.shape[0] if "rest" in module else 0
        for index in range(max(stack, 1)):
            block = index + 1 if stack else 0
            kind = "dense" if module[-1] == "fc" else "norm" if module[-1].startswith("bn") else "conv"
            leaves = getattr(names, kind)
            axes = {"conv": names.conv_axes, "dense": names.dense_axes}.get(kind) if name == "kernel" else None
            bias = None
            if name == "mean" and "bias" in names.conv:
                conv = (*module[:-1], module[-1].replace("bn", "conv"))
                bias = module_name(names, conv, block) + names.conv["bias"]
            yield module_name(names, tuple(module), block) + leaves[name], Slot(path, index if stack else None, axes,
                                                                                  bias)


def to_variables(tensors: Tensors, names: Names, model: ResNet, channels: int, source: str) -> Any:
    """Fill a network's variables, float32: every leaf once, with every tensor used. The bias of a convolution goes
    into the mean that its batch norm subtracts.

    Raises BadInput, naming the source, the tensor and the place in the network, where one of the two lacks the other,
    shapes differ, or a value is not finite.
    """
    shapes = variable_shapes(model, channels)
    filled = jax.tree.map(lambda leaf: np.empty(leaf.shape, np.float32), shapes)
    unused = {name for name in tensors if not names.counter or not name.endswith(names.counter)}
    for name, slot in slots(names, shapes):
        leaf: np.ndarray = at(filled, slot.leaf)
        place = leaf if slot.block is None else leaf[slot.block]
        where = "/".join(slot.leaf) + ("" if slot.block is None else f"[{slot.block}]")
        if name not in tensors:
            raise BadInput(f"{source}: {name} is missing, which {names.title} has for our {where} {place.shape}")
        tensor = tensors[name].astype(np.float32)
        if slot.axes and tensor.ndim == len(slot.axes):
            tensor = tensor.transpose(slot.axes)
        if tensor.shape != place.shape:
            raise BadInput(f"{source}: {name} has shape {tensors[name].shape}, and our {where} is {place.shape}")
        if not np.isfinite(tensor).all():
            raise BadInput(f"{source}: {name} holds a value that is not finite")
        unused.discard(name)
        if slot.leaf[-1] == "var":
            tensor = shifted(tensor, names.epsilon - BatchNorm.epsilon)
        if slot.bias in tensors:
            tensor = tensor - tensors[slot.bias].astype(np.float32)
            unused.discard(slot.bias)
        place[...] = tensor
    if unused:
        raise BadInput(f"{source}: our network has no place for {', '.join(sorted(unused)[:5])}"
                       f"{f' and {len(unused) - 5} more' if len(unused) > 5 else ''}")
    return reorder(filled, model, back=False) if names.around and model.shortcut == "A" else filled


def to_tensors(variables: Any, names: Names, model: ResNet) -> Tensors:
    """Name a network's variables as a family does; float32. Biases of convolutions and counts of batches are 0."""
    variables = jax.tree.map(np.asarray, jax.device_get(variables))
    if names.around and model.shortcut == "A":
        variables = reorder(variables, model, back=True)
    tensors: Tensors = {}
    for name, slot in slots(names, variables):
        leaf = at(variables, slot.leaf)
        value = leaf if slot.block is None else leaf[slot.block]
        if slot.leaf[-1] == "var":
            value = shifted(value, BatchNorm.epsilon - names.epsilon)
        tensors[name] = np.ascontiguousarray(value.transpose(np.argsort(slot.axes)) if slot.axes else value)
        if slot.bias:
            tensors[slot.bias] = np.zeros_like(tensors[name])
        if names.counter and slot.leaf[-1] == "mean":
            tensors[name.removesuffix(names.norm["mean"]) + names.counter] = np.zeros((), np.int64)
    return tensors


def shifted(variance: np.ndarray, epsilon: float) -> np.ndarray:
    """Add to a variance what another's batch norm adds and ours does not; there and back, its last bit may change."""
    return (variance.astype(np.float64) + epsilon).astype(np.float32)


def variable_shapes(model: ResNet, channels: int) -> Any:
    """Return the shapes of a network's parameters and batch statistics, for images of so many channels."""
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, channels)))


def at(tree: Any, path: Path) -> Any:
    """Follow a path into nested dictionaries."""
    for key in path:
        tree = tree[key]
    return tree


def reorder(variables: Any, model: ResNet, *, back: bool) -> Any:
    """Reorder channels so that a net whose option A has its zero channels on both sides has them at the end (or back).

    Which channels a stage's output keeps from the stage before is a matter of their order alone: the network stays the
    same function, bit for bit but for the order of sums.
    """
    before, widths = None, [model.filters * 2**stage for stage in range(len(model.blocks))]
    variables = jax.tree.map(np.copy, variables)
    for stage, width in enumerate(widths, 1):
        order = np.arange(width)
        if before is not None:  # what comes from the stage before lies in the middle there, and first here
            side = (width - len(before)) // 2
            kept = side + before
            order = np.concatenate([kept, np.setdiff1d(order, kept)])
        for collection in variables.values():
            for block in collection[f"stage{stage}"].values():
                permute(block, before if block is collection[f"stage{stage}"]["first"] else order, order, back)
        before = order
    if (fc := variables["params"].get("fc")) is not None:  # a network without its last layer has none
        fc["kernel"] = fc["kernel"][turned(before, back)]
    return variables


def permute(block: Any, incoming: np.ndarray | None, outgoing: np.ndarray, back: bool) -> None:
    """Reorder the channels that enter and leave a basic block, or a stack of them; those inside stay."""
    if "conv1" in block and incoming is not None:
        block["conv1"]["kernel"] = np.take(block["conv1"]["kernel"], turned(incoming, back), axis=-2)
    for module in ("conv2", "bn2"):
        for name, leaf in block.get(module, {}).items():
            block[module][name] = np.take(leaf, turned(outgoing, back), axis=-1)


def turned(order: np.ndarray, back: bool) -> np.ndarray:
    """Return an order, or the one that undoes it."""
    return np.argsort(order) if back else order


def flip_colours(variables: Any) -> Any:
    """Turn a network for BGR images into one for RGB, or back: the first kernel `[height, width, colours, filters]`."""
    params = variables["params"]
    stem = {"kernel": params["conv1"]["kernel"][:, :, ::-1]}
    return {**variables, "params": {**params, "conv1": stem}}
