"""The layout of a stage's parameters: its first block, which may change the dimensions, and the others as one stack.

Every leaf of the stack has a leading axis `[blocks - 1, ...]`, so that the blocks can run as a loop. Whoever wants the
blocks one by one takes them apart here, and puts them together again.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

FIRST, REST = "first", "rest"


def unstack(collection: Mapping[str, Any], most: int | None = None) -> dict[str, Any]:
    """Take the stages of a collection of variables apart: each becomes a list of its blocks, from the first on.

    With `most`, only those with at most so many blocks after the first. Of NumPy arrays the blocks are views, so that
    what is written into them is written into the stack.
    """
    return {name: blocks_of(module) if is_stage(name) and (most is None or stacked(module) <= most) else module
            for name, module in collection.items()}


def stack(collection: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `unstack`, also where blocks were added, removed or exchanged meanwhile."""
    return {name: as_stage(module) if isinstance(module, list) else module for name, module in collection.items()}


def is_stage(name: str) -> bool:
    """Say whether a module of a network is a stage."""
    return name.startswith("stage")


def blocks_of(stage: Mapping[str, Any]) -> list[Any]:
    """List the blocks of a stage."""
    return [stage[FIRST], *(jax.tree.map(lambda x, i=i: x[i], stage[REST]) for i in range(stacked(stage)))]


def stacked(stage: Mapping[str, Any]) -> int:
    """Count the blocks of a stage after its first."""
    return len(jax.tree.leaves(stage[REST])[0]) if stage.get(REST) else 0


def as_stage(blocks: list[Any]) -> dict[str, Any]:
    """Make a stage of its blocks."""
    first, *rest = blocks
    return {FIRST: first} | ({REST: jax.tree.map(lambda *leaves: jnp.stack(leaves), *rest)} if rest else {})
