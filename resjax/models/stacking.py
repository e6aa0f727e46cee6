"""The layout of a stage's parameters: its first block, which may change the dimensions, and the others as one stack.

Every leaf of the stack has a leading axis `[blocks - 1, ...]`, so that the blocks can run as a loop. Whoever wants the
blocks one by one takes them apart here, and puts them together again.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

FIRST, REST = "first", "rest"


def unstack(collection: Mapping[str, Any]) -> dict[str, Any]:
    """Take the stages of a collection of variables apart: each becomes a list of its blocks, from the first on.

    Of NumPy arrays the blocks are views, so that what is written into them is written into the stack.
    """
    return {name: blocks_of(module) if is_stage(name) else module for name, module in collection.items()}


def stack(collection: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `unstack`, also where blocks were added, removed or exchanged meanwhile."""
    return {name: as_stage(module) if is_stage(name) else module for name, module in collection.items()}


def is_stage(name: str) -> bool:
    """Say whether a module of a network is a stage."""
    return name.startswith("stage")


def blocks_of(stage: Mapping[str, Any]) -> list[Any]:
    """List the blocks of a stage."""
    rest = stage.get(REST, {})
    count = len(jax.tree.leaves(rest)[0]) if rest else 0
    return [stage[FIRST], *(jax.tree.map(lambda x, i=i: x[i], rest) for i in range(count))]


def as_stage(blocks: list[Any]) -> dict[str, Any]:
    """Make a stage of its blocks."""
    first, *rest = blocks
    return {FIRST: first} | ({REST: jax.tree.map(lambda *leaves: jnp.stack(leaves), *rest)} if rest else {})
