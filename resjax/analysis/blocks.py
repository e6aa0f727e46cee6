"""Functions that measure, remove, swap and append residual blocks.

Blocks are removed and swapped as in Veit, Wilber and Belongie (2016, arXiv 1605.06431).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from resjax.models import BasicBlock, Bottleneck, DenseBlock
from resjax.models.stacking import is_stage, stack, unstack
from resjax.system.errors import check

BLOCKS = (BasicBlock, Bottleneck, DenseBlock)


@partial(jax.jit, static_argnums=0)
def residual_ratios(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Return ||F(x)|| / ||x|| of every block, `[blocks]`, with norms over all images. Identity blocks have 0.

    F is the residual function, before the addition; `images` are `[batch, height, width, channels]`.
    """

    def measure(function: Any, arguments: Any, settings: Any, context: nn.module.InterceptorContext) -> Any:
        result, module = function(*arguments, **settings), context.module
        if context.method_name == "__call__":
            if isinstance(module, BLOCKS):
                module.sow("intermediates", "input", jnp.linalg.norm(arguments[0]))
            elif isinstance(module.parent, BLOCKS) and module.name == last_layer(module.parent):
                module.parent.sow("intermediates", "residual", jnp.linalg.norm(result))
        return result

    with nn.intercept_methods(measure):
        _, seen = model.apply(variables, images, mutable=["intermediates"])
    stages = unstack(seen["intermediates"])
    blocks = [block for name in sorted(stages) if is_stage(name) for block in stages[name]]
    return jnp.stack([block["residual"][0] / block["input"][0] for block in blocks])


def last_layer(block: nn.Module) -> str:
    """Return the name of the last layer of F, which is batch norm if the block has any."""
    if isinstance(block, Bottleneck):
        return "bn3"
    return "fc2" if isinstance(block, DenseBlock) and "bn2" not in block.variables["params"] else "bn2"


def gives_back(block: nn.Module, shape: tuple[int, ...], last: str, key: jax.Array) -> tuple[bool, bool]:
    """Check whether a block whose last layer is set to zero returns its input and passes its gradient on, bit for bit.

    An input of this `shape` is drawn at random and passed through a ReLU. The gradient must pass wherever the input is
    positive.
    """
    keys = jax.random.split(key, 3)
    x, dy = jax.nn.relu(jax.random.normal(keys[0], shape)), jax.random.normal(keys[2], shape)
    drawn = jax.jit(block.init)(keys[1], x)
    zeroed = {**drawn, "params": {**drawn["params"], last: jax.tree.map(jnp.zeros_like, drawn["params"][last])}}

    @jax.jit
    def forward_and_back(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, pull = jax.vjp(lambda x: block.apply(zeroed, x, mutable=["batch_stats"])[0], x)
        return y, pull(dy)[0]

    y, dx = forward_and_back(x)
    return bool((y == x).all()), bool((dx == jnp.where(x > 0, dy, 0)).all())


def without_block(model: Any, variables: Any, stage: int, index: int) -> tuple[Any, Any]:
    """Remove a block from a network. `index` counts from the second block, because the first may change the dimensions.

    Returns the smaller network and its variables. Raises ValueError if there is no such block.
    """
    check_block_index(model, stage, index)
    return with_blocks(model, stage, -1), edited(
        variables, stage, lambda blocks: [*blocks[:index + 1], *blocks[index + 2:]])


def with_swapped_blocks(model: Any, variables: Any, stage: int, i: int, j: int) -> Any:
    """Exchange two blocks of a stage, counted as in `without_block`. Raises ValueError if there is no such block."""
    check_block_index(model, stage, i)
    check_block_index(model, stage, j)
    order = list(range(model.blocks[stage]))
    order[i + 1], order[j + 1] = j + 1, i + 1
    return edited(variables, stage, lambda blocks: [blocks[place] for place in order])


def with_identity_blocks(model: Any, variables: Any, stage: int, count: int, key: jax.Array) -> tuple[Any, Any]:
    """Append blocks whose residual function F is zero: the last layer is zero, and the others use He initialisation.

    If F ends with batch norm, the scale of this batch norm is zero; otherwise, the last weights and biases are zero.
    Returns the larger network and its variables. Raises ValueError if a block with F = 0 is not the identity (plain
    networks, option C), or if the stage has no second block to copy the shapes from.
    """
    check(model.shortcut in ("A", "B") and model.blocks[stage] > 1,
          f"stage {stage} of a network with shortcut {model.shortcut} and {model.blocks} blocks has no identical "
          "blocks with identity shortcuts")
    keys = iter(jax.random.split(key, count * len(jax.tree.leaves(variables))))

    def append(blocks: list[Any]) -> list[Any]:
        return [*blocks, *(zero_block(blocks[-1], keys) for _ in range(count))]

    return with_blocks(model, stage, count), edited(variables, stage, append)


def zero_block(like: Any, keys: Iterator[jax.Array]) -> Any:
    """Return variables for a block whose last layer is zero, with the shapes of another block."""
    layers = sorted(name for name in like if name.startswith("bn" if "bn2" in like else "fc"))

    def fill(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        layer, leaf = path[-2].key, path[-1].key
        if leaf == "kernel" and layer != layers[-1]:
            return jax.random.normal(next(keys), x.shape) * jnp.sqrt(2 / x[..., 0].size)
        ones = leaf == "var" or (leaf == "scale" and layer != layers[-1])
        return jnp.ones(x.shape) if ones else jnp.zeros(x.shape)

    return jax.tree_util.tree_map_with_path(fill, like)


def edited(variables: Any, stage: int, edit: Callable[[list[Any]], list[Any]]) -> Any:
    """Apply `edit` to the blocks of a stage, in every collection."""
    name, apart = f"stage{stage + 1}", {kind: unstack(tree) for kind, tree in variables.items()}
    return {kind: stack({**tree, name: edit(tree[name])}) for kind, tree in apart.items() if name in tree}


def with_blocks(model: Any, stage: int, more: int) -> Any:
    """Return the network with this number of additional blocks in a stage."""
    return model.clone(blocks=tuple(blocks + more * (i == stage) for i, blocks in enumerate(model.blocks)))


def check_block_index(model: Any, stage: int, index: int) -> None:
    """Raise BadInput, a ValueError, unless the stage has this block after its first."""
    stages = len(model.blocks)
    check(0 <= stage < stages, f"stage is {stage}; it must be in 0 ... {stages - 1}")
    check(0 <= index < model.blocks[stage] - 1,
          f"block {index} does not exist; stage {stage} has {model.blocks[stage] - 1} identical blocks")
