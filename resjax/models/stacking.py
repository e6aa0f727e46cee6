"""Lays out the parameters of a stage: the first block, which may change the dimensions, and a stack of all others.

Every leaf of the stack has a leading axis `[blocks - 1, ...]`, so that the blocks can run as a loop. `unstack`
separates the blocks, and `stack` joins them again.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

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
