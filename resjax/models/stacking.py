"""Lays out the parameters of a stage: the first block, which may change the dimensions, and a stack of all others.

Every leaf of the stack has a leading axis `[blocks - 1, ...]`, so that the blocks can run as a loop. `unstack`
separates the blocks, and `stack` joins them again. `separate_blocks` and `join_blocks` do the same for custom
optimizers, in networks of any form.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_flatten_with_path

FIRST, REST = "first", "rest"


def unstack(collection: Mapping[str, Any], most: int | None = None) -> dict[str, Any]:
    """Replace each stage in a collection of variables by a list of its blocks.

    With `most`, only stages with at most this many blocks after the first are replaced. Blocks of NumPy arrays are
    views, so writing to a block writes to the stack.
    """
    return {name: blocks_of(module) if is_stage(name) and (most is None or stacked(module) <= most) else module
            for name, module in collection.items()}


def stack(collection: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `unstack`, even if blocks were added, removed or exchanged in between."""
    return {name: as_stage(module) if isinstance(module, list) else module for name, module in collection.items()}


def is_stage(name: str) -> bool:
    """Return whether a module of a network is a stage."""
    return name.startswith("stage")


def blocks_of(stage: Mapping[str, Any]) -> list[Any]:
    """List the blocks of a stage."""
    return [stage[FIRST], *(jax.tree.map(lambda x, i=i: x[i], stage[REST]) for i in range(stacked(stage)))]


def stacked(stage: Mapping[str, Any]) -> int:
    """Count the blocks of a stage after its first."""
    return len(jax.tree.leaves(stage[REST])[0]) if stage.get(REST) else 0


def as_stage(blocks: list[Any]) -> dict[str, Any]:
    """Build a stage from its blocks."""
    first, *rest = blocks
    return {FIRST: first} | ({REST: jax.tree.map(lambda *leaves: jnp.stack(leaves), *rest)} if rest else {})


def separate_blocks(params: Any) -> Any:
    """Replace each stack of blocks, anywhere in a tree of parameters, by a dictionary of blocks: "2", "3" and so on."""
    if not isinstance(params, Mapping):
        return params
    if has_stack(params):
        blocks = {str(number): block for number, block in enumerate(blocks_of(params)[1:], 2)}
        params = {**params, REST: blocks}
    return {name: separate_blocks(part) for name, part in params.items()}


def join_blocks(separated: Any, params: Any) -> Any:
    """Undo `separate_blocks`. `params` have the result's structure."""
    if not isinstance(params, Mapping):
        return separated
    parts = {name: join_blocks(separated[name], params[name]) for name in params if name != REST}
    if not has_stack(params):
        return parts | ({REST: join_blocks(separated[REST], params[REST])} if REST in params else {})
    blocks = [join_blocks(separated[REST][name], params[REST]) for name in sorted(separated[REST], key=int)]
    return parts | {REST: jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)}


def has_stack(module: Mapping[str, Any]) -> bool:
    """Return whether a module's parameters are a first block and a stack, whose leaves have one more axis."""
    first, rest = ({keystr(path): jnp.ndim(leaf) for path, leaf in tree_flatten_with_path(module.get(name, {}))[0]}
                   for name in (FIRST, REST))
    return bool(rest) and all(first.get(name) == dimensions - 1 for name, dimensions in rest.items())
