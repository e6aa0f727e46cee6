"""The layers of a network in the order in which they run, whatever tree holds a value for each of them."""

import re
from typing import Any

import jax
import jax.numpy as jnp

WEIGHTS, NORMS = r"(conv|fc)\d", r"bn\d"


def in_order(tree: dict[str, Any], pattern: str, leaf: str) -> jax.Array:
    """Line up the scalars `leaf` of the layers whose names match: `[layers]`.

    The stacked blocks of a stage hold `[blocks]` for each of their layers. Shortcuts are left out; the last layer
    comes last where the pattern is that of weights.
    """

    def layers(block: dict[str, Any]) -> list[jax.Array]:
        return [_first(block[name][leaf]) for name in sorted(block) if re.fullmatch(pattern, name)]

    values = layers(tree)
    for stage in sorted(name for name in tree if name.startswith("stage")):
        values += layers(tree[stage]["first"])
        if "rest" in tree[stage]:
            values.append(jnp.stack(layers(tree[stage]["rest"]), axis=1).reshape(-1))  # block by block
    if pattern == WEIGHTS:
        values.append(_first(tree["fc"][leaf]))
    return jnp.concatenate([jnp.atleast_1d(value) for value in values])


def _first(captured: Any) -> jax.Array:
    """Flax keeps what it captures in tuples of one."""
    return captured[0] if isinstance(captured, tuple) else captured
