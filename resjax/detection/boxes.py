"""Boxes: their areas and overlaps, and their form as a network predicts it.

A box is `[x1, y1, x2, y2]` in pixels from the image's upper left corner, where pixel k covers k to k + 1; so a box of
VOC's annotations, which counts pixels from 1 and includes the last, is `[xmin - 1, ymin - 1, xmax, ymax]`.
"""

import math

import jax
import jax.numpy as jnp

LARGEST_GROWTH = math.log(1000 / 16)  # of a side, so that an untrained network's exponentials stay finite


def areas(boxes: jax.Array) -> jax.Array:
    """Compute the areas `[...]` of boxes `[..., 4]`; one whose corners are turned around has none."""
    return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0), -1)


def intersection_over_union(boxes: jax.Array, others: jax.Array) -> jax.Array:
    """Compare boxes `[n, 4]` with others `[m, 4]`: the shared area over the joint area, `[n, m]`; 0 where both are 0.

    It is symmetric to the last bit: the areas are reductions, so no compiler fuses one of them with the sum of both.
    """
    low = jnp.maximum(boxes[:, None, :2], others[None, :, :2])
    high = jnp.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = jnp.maximum(high - low, 0)  # not jnp.prod: a GPU would store a reduction, of 12,000 boxes 600 MB
    shared = sides[..., 0] * sides[..., 1]
    joint = areas(boxes)[:, None] + areas(others)[None] - shared
    return jnp.where(joint > 0, shared / jnp.where(joint > 0, joint, 1), 0)


def encode(boxes: jax.Array, anchors: jax.Array) -> jax.Array:
    """Express boxes `[..., 4]` by anchors `[..., 4]`: (dx, dy) in sides of the anchor, (dw, dh) as logarithms.

    dx = (x - xa) / wa, dw = log(w / wa), with x the centre (Ren et al. 2015, equation 2). Sides must be above 0.
    """
    centre, side = centres_and_sides(boxes)
    anchor_centre, anchor_side = centres_and_sides(anchors)
    return jnp.concatenate([(centre - anchor_centre) / anchor_side, jnp.log(side / anchor_side)], -1)


def decode(deltas: jax.Array, anchors: jax.Array) -> jax.Array:
    """Undo `encode`; a side grows at most by 1000/16."""
    anchor_centre, anchor_side = centres_and_sides(anchors)
    centre = anchor_centre + deltas[..., :2] * anchor_side
    half = jnp.exp(jnp.minimum(deltas[..., 2:], LARGEST_GROWTH)) * anchor_side / 2
    return jnp.concatenate([centre - half, centre + half], -1)


def centres_and_sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (x, y) and (width, height) of boxes `[..., 4]`."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def clip(boxes: jax.Array, size: jax.Array) -> jax.Array:
    """Cut boxes `[..., 4]` off at the borders of an image of `size` (height, width)."""
    limits = jnp.stack([size[1], size[0], size[1], size[0]]).astype(boxes.dtype)
    return jnp.clip(boxes, 0, limits)


def inside(boxes: jax.Array, size: jax.Array) -> jax.Array:
    """Say of boxes `[n, 4]` whether they lie wholly within an image of `size` (height, width)."""
    return (boxes[:, 0] >= 0) & (boxes[:, 1] >= 0) & (boxes[:, 2] <= size[1]) & (boxes[:, 3] <= size[0])
