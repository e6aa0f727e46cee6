"""Non-maximum suppression: exact, with shapes that do not depend on the boxes, on the device."""

import jax
import jax.numpy as jnp
from jax import lax

from resjax.detection.boxes import intersection_over_union


def suppress(boxes: jax.Array, scores: jax.Array, threshold: float, count: int) -> tuple[jax.Array, jax.Array]:
    """Go through boxes `[n, 4]` from the best score down and keep each that overlaps no kept one above `threshold`.

    Returns the indices `[count]` of the kept ones, best first (of equal scores, the earlier box), and whether each
    place is filled. A box with score minus infinity is never kept, and suppresses none.
    """
    order = jnp.argsort(-scores, stable=True)
    ordered, valid = boxes[order], scores[order] > -jnp.inf
    kept = greedy(intersection_over_union(ordered, ordered) > threshold, valid)
    places = jnp.nonzero(kept, size=count, fill_value=len(boxes))[0]
    filled = places < len(boxes)
    return order[jnp.where(filled, places, 0)], filled


def greedy(overlaps: jax.Array, valid: jax.Array) -> jax.Array:
    """Decide for ordered boxes, of which `overlaps` `[n, n]` says who is too close to whom, which are kept.

    "i is kept unless an earlier kept one is too close" has one solution. Applying the rule to all boxes at once settles
    at least one more each time, and all that wait for it: a few rounds, where one by one takes n. Every round reads who
    is too close to whom, so that is stored as bits: of 12,000 boxes 18 MB.
    """
    place = jnp.arange(len(valid))
    earlier = as_bits(overlaps & (place[:, None] < place))  # of [i, j]: i comes before j and is too close

    def settle(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = carry
        new = valid & ~jnp.any(earlier & as_bits(kept[:, None]) != 0, 0)
        return new, jnp.any(new != kept)

    kept, _ = lax.while_loop(lambda carry: carry[1], settle, (valid, jnp.bool(True)))
    return kept


def as_bits(mask: jax.Array) -> jax.Array:
    """Put 32 rows of a mask `[n, m]` into the bits of one: uint32 `[n / 32, m]`, rounded up."""
    rows, columns = mask.shape
    words = jnp.pad(mask, ((0, -rows % 32), (0, 0))).reshape(-1, 32, columns)
    bits = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    return jnp.where(words, bits[:, None], jnp.uint32(0)).sum(1, dtype=jnp.uint32)
