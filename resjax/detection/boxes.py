"""Computes with boxes: areas, overlaps, anchors, regression targets, and non-maximum suppression.

A box is `[x1, y1, x2, y2]` in pixels from the image's upper left corner, where pixel k extends from k to k + 1. VOC
counts pixels from 1 and includes the last pixel, so a VOC box becomes `[xmin - 1, ymin - 1, xmax, ymax]`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LARGEST_GROWTH = math.log(1000 / 16)  # largest logarithmic growth of a side, so that exponentials stay finite


def areas(boxes: jax.Array) -> jax.Array:
    """Compute the areas `[...]` of boxes `[..., 4]`; 0 if the corners are swapped."""
    return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0), -1)


def shared_areas(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Compute the areas `[n, m]` of the intersections of boxes `[n, 4]` with others `[m, 4]`."""
    low = jnp.maximum(boxes[:, None, :2], others[None, :, :2])
    high = jnp.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = jnp.maximum(high - low, 0)  # not jnp.prod: on GPU, XLA would store the result, 600 MB for 12,000 boxes
    shared: jax.Array = sides[..., 0] * sides[..., 1]
    return shared


def intersection_over_union(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Compute the intersection over union `[n, m]` of boxes `[n, 4]` with others `[m, 4]`; 0 if both are empty.

    The result is exactly symmetric, because areas are reductions and no compiler fuses one of them with their sum.
    """
    shared = shared_areas(boxes, others)
    joint = areas(boxes)[:, None] + areas(others)[None] - shared
    return jnp.where(joint > 0, shared / jnp.where(joint > 0, joint, 1), 0)


def box_deltas(boxes: jax.Array, anchors: jax.Array) -> jax.Array:
    """Encode boxes `[..., 4]` relative to anchors `[..., 4]`, as (dx, dy) in anchor sides and (dw, dh) in logarithms.

    dx = (x - xa) / wa, dw = log(w / wa), where x is the centre (Ren et al. 2015, equation 2). Sides must be above 0.
    """
    centre, side = centres_and_sides(boxes)
    anchor_centre, anchor_side = centres_and_sides(anchors)
    return jnp.concatenate([(centre - anchor_centre) / anchor_side, jnp.log(side / anchor_side)], -1)


def apply_deltas(deltas: jax.Array, anchors: jax.Array) -> jax.Array:
    """Decode boxes, as the inverse of `box_deltas`. A side grows at most by a factor of 1000/16."""
    anchor_centre, anchor_side = centres_and_sides(anchors)
    centre = anchor_centre + deltas[..., :2] * anchor_side
    half = jnp.exp(jnp.minimum(deltas[..., 2:], LARGEST_GROWTH)) * anchor_side / 2
    return jnp.concatenate([centre - half, centre + half], -1)


def centres_and_sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (x, y) and (width, height) of boxes `[..., 4]`."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def clip(boxes: jax.Array, size: jax.Array) -> jax.Array:
    """Clip boxes `[..., 4]` to an image of `size` (height, width)."""
    limits = jnp.stack([size[1], size[0], size[1], size[0]]).astype(boxes.dtype)
    return jnp.clip(boxes, 0, limits)


def inside(boxes: jax.Array, size: jax.Array) -> jax.Array:
    """Return for boxes `[n, 4]` whether they are entirely inside an image of `size` (height, width)."""
    return (boxes[:, 0] >= 0) & (boxes[:, 1] >= 0) & (boxes[:, 2] <= size[1]) & (boxes[:, 3] <= size[0])


def anchor_shapes(sizes: tuple[float, ...], ratios: tuple[float, ...]) -> np.ndarray:
    """Return widths and heights `[len(sizes) * len(ratios), 2]` of anchors with area size^2 and height / width = ratio.

    All ratios of the first size come first.
    """
    return np.array([(size / ratio**0.5, size * ratio**0.5) for size in sizes for ratio in ratios], np.float32)


def anchor_grid(height: int, width: int, stride: int, shapes: np.ndarray) -> np.ndarray:
    """Centre every shape at every position of a map. Returns `[height * width * len(shapes), 4]`, in image pixels.

    Each position corresponds to a square with side `stride` in the image. Anchors are ordered by row, then column, then
    shape (Ren et al. 2015, section 3.1).
    """
    rows, columns = ((np.arange(count, dtype=np.float32) + 0.5) * stride for count in (height, width))
    x, y = np.meshgrid(columns, rows)
    centres = np.stack([x, y], -1)[:, :, None]
    return np.concatenate([centres - shapes / 2, centres + shapes / 2], -1).reshape(-1, 4)


def suppress(boxes: jax.Array, scores: jax.Array, threshold: float, count: int) -> tuple[jax.Array, jax.Array]:
    """Non-maximum suppression of boxes `[n, 4]`: drop a box if a better kept box overlaps it by more than `threshold`.

    Returns the indices `[count]` of the kept boxes, the best first, and whether each place is filled. Of boxes with
    equal scores, the earlier one counts as better. A box with a score of minus infinity is never kept and suppresses no
    other box.
    """
    order = jnp.argsort(-scores, stable=True)
    ordered, valid = boxes[order], scores[order] > -jnp.inf
    selected = greedy(intersection_over_union(ordered, ordered) > threshold, valid)
    places = jnp.nonzero(selected, size=count, fill_value=len(boxes))[0]
    filled = places < len(boxes)
    return order[jnp.where(filled, places, 0)], filled


def greedy(overlaps: jax.Array, valid: jax.Array) -> jax.Array:
    """Decide which boxes, sorted by score, are kept; `overlaps` `[n, n]` marks pairs that overlap too much.

    The rule "box i is kept unless an earlier kept box overlaps it too much" has one solution. Each round applies the
    rule to all boxes at once, which settles at least one more box and all boxes that depend on it. Usually, a few
    rounds suffice, whereas a sequential loop takes n. Every round reads the whole table of pairs, so the table is
    stored as bits, which takes 18 MB for 12,000 boxes.
    """
    place = jnp.arange(len(valid))
    earlier = as_bits(overlaps & (place[:, None] < place))  # [i, j]: box i comes before box j and overlaps it too much

    def settle(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        selected, _ = carry
        new = valid & ~jnp.any(earlier & as_bits(selected[:, None]) != 0, 0)
        return new, jnp.any(new != selected)

    selected, _ = lax.while_loop(lambda carry: carry[1], settle, (valid, jnp.bool(True)))
    return selected


def as_bits(mask: jax.Array) -> jax.Array:
    """Pack each 32 rows of a mask `[n, m]` into the bits of one row. Returns uint32 `[ceil(n / 32), m]`."""
    rows, columns = mask.shape
    words = jnp.pad(mask, ((0, -rows % 32), (0, 0))).reshape(-1, 32, columns)
    bits = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    return jnp.where(words, bits[:, None], jnp.uint32(0)).sum(1, dtype=jnp.uint32)
