"""Residual blocks as things to measure, remove, swap and append: a stage is a stack, so a block is an index.

The unravelled view is that of Veit, Wilber and Belongie (2016, arXiv 1605.06431).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from resjax.models import BasicBlock, Bottleneck, DenseBlock

BLOCKS = (BasicBlock, Bottleneck, DenseBlock)


@partial(jax.jit, static_argnums=0)
def residual_ratios(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Return ||F(x)|| / ||x|| of every block, `[blocks]`, the norms over all images. At 0 a block is the identity.

    F is the residual function, before the addition; `images` are `[batch, height, width, channels]`.
    """

    def measure(function: Any, arguments: Any, settings: Any, context: nn.module.InterceptorContext) -> Any:
        result, module = function(*arguments, **settings), context.module
        if context.method_name == "__call__":
            if isinstance(module, BLOCKS):
                module.sow("intermediates", "input", norm(arguments[0]))
            elif isinstance(module.parent, BLOCKS) and module.name == last_layer(module.parent):
                module.parent.sow("intermediates", "residual", norm(result))
        return result

    with nn.intercept_methods(measure):
        _, seen = model.apply(variables, images, mutable=["intermediates"])
    stages = [seen["intermediates"][name] for name in sorted(seen["intermediates"])]
    blocks = [stage[part] for stage in stages for part in ("first", "rest") if part in stage]
    return jnp.concatenate([jnp.atleast_1d(block["residual"][0] / block["input"][0]) for block in blocks])


def last_layer(block: nn.Module) -> str:
    """Name the last layer of F: batch norm where there is one."""
    if isinstance(block, Bottleneck):
        return "bn3"
    return "fc2" if isinstance(block, DenseBlock) and "bn2" not in block.variables["params"] else "bn2"


def norm(x: jax.Array) -> jax.Array:
    """Return the norm of an array."""
    return jnp.sqrt(jnp.square(x).sum())


def without_block(model: nn.Module, variables: Any, stage: int, index: int) -> tuple[nn.Module, Any]:
    """Take a block out of a network: 0 is the second of a stage, as the first may change dimensions.

    Returns the network with one block less and its variables. Raises ValueError where there is no such block.
    """
    index = checked(model, stage, index)
    smaller = resized(model, stage, -1)
    if smaller.blocks[stage] == 1:  # no stack is left
        name = f"stage{stage + 1}"
        return smaller, {kind: {**tree, name: {"first": tree[name]["first"]}} for kind, tree in variables.items()}
    return smaller, edited(variables, stage, lambda _, x: jnp.delete(x, index, 0))


def with_swapped_blocks(model: nn.Module, variables: Any, stage: int, i: int, j: int) -> Any:
    """Exchange two blocks of a stage, counted as in `without_block`. Raises ValueError where there is no such block."""
    i, j = checked(model, stage, i), checked(model, stage, j)
    order = list(range(model.blocks[stage] - 1))
    order[i], order[j] = j, i
    return edited(variables, stage, lambda _, x: x[jnp.array(order)])


def with_identity_blocks(model: nn.Module, variables: Any, stage: int, count: int,
                         key: jax.Array) -> tuple[nn.Module, Any]:
    """Append blocks whose residual function is zero: the last layer of F is zero, the others are drawn as He's.

    With batch norm that layer is its scale, without it weights and biases. Returns the larger network and its
    variables. Raises ValueError where a block without F is no identity (plain nets, option C), or the stage has no
    second block to take the shapes from.
    """
    rest = variables["params"][f"stage{stage + 1}"].get("rest")
    if rest is None or model.shortcut not in ("A", "B"):
        raise ValueError(f"stage {stage} of a net with shortcut {model.shortcut} and {model.blocks} blocks has no "
                         "identical blocks with identity shortcuts")
    last = sorted(name for name in rest if name.startswith("bn" if "bn2" in rest else "fc"))[-1]
    keys = iter(jax.random.split(key, len(jax.tree.leaves(variables))))

    def extend(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        layer, leaf = path[-2].key, path[-1].key
        shape = (count, *x.shape[1:])
        if leaf == "kernel" and layer != last:
            new = jax.random.normal(next(keys), shape) * jnp.sqrt(2 / x[0, ..., 0].size)
        else:
            new = jnp.ones(shape) if leaf == "var" or (leaf == "scale" and layer != last) else jnp.zeros(shape)
        return jnp.concatenate([x, new])

    return resized(model, stage, count), edited(variables, stage, extend)


def edited(variables: Any, stage: int, edit: Callable[[tuple[Any, ...], jax.Array], jax.Array]) -> Any:
    """Apply `edit(path, leaf)` to the stacked blocks of a stage, in every collection."""
    name = f"stage{stage + 1}"
    return {kind: {**tree, name: {**tree[name], "rest": jax.tree_util.tree_map_with_path(edit, tree[name]["rest"])}}
            for kind, tree in variables.items() if name in tree}


def resized(model: nn.Module, stage: int, more: int) -> nn.Module:
    """Return the network with so many blocks more in a stage."""
    return model.clone(blocks=tuple(blocks + more * (i == stage) for i, blocks in enumerate(model.blocks)))


def checked(model: nn.Module, stage: int, index: int) -> int:
    """Return the index of a stacked block. Raises ValueError where there is no such block."""
    stages = len(model.blocks)
    if not 0 <= stage < stages:
        raise ValueError(f"stage {stage} does not exist: there are {stages}, counted from 0")
    if not 0 <= index < model.blocks[stage] - 1:
        raise ValueError(f"block {index} does not exist: stage {stage} has {model.blocks[stage] - 1} identical blocks")
    return index
