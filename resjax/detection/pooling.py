"""Pools regions of interest: every box on a feature map becomes a small map of fixed size.

Max pooling (Girshick 2015) rounds a box to whole cells of the map, and divides it into bins of different sizes. XLA,
however, needs static shapes. Here, each bin is therefore the union of up to four windows whose sides are powers of two.
The maxima of all such windows are computed beforehand. The windows may overlap without changing the maximum of a bin,
so the result is exact. A bin of any size costs four look-ups.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Maxima(NamedTuple):
    """Maxima, and the cells `row * width + column` that contain them (the first for ties); both have the same shape."""

    values: jax.Array
    cells: jax.Array


def larger(a: Maxima, b: Maxima) -> Maxima:
    """Take the larger values; for ties, the earlier cell."""
    second = (b.values > a.values) | ((b.values == a.values) & (b.cells < a.cells))
    return Maxima(jnp.maximum(a.values, b.values), jnp.where(second, b.cells, a.cells))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def roi_max_pool(features: jax.Array, boxes: jax.Array, size: int, scale: float) -> jax.Array:
    """Pool boxes `[n, 4]` (in image pixels) from a map `[height, width, channels]`, to `[n, size, size, channels]`.

    A box covers the cells round(x1 scale) to round(x2 scale), and at least one cell. If there are L cells, bin i covers
    the cells floor(i L / size) to ceil((i + 1) L / size) - 1, counted from the first cell of the box. Cells beyond the
    map are left out, and an empty bin is 0. The gradient goes to the first of equal maxima. Boxes must be on the map
    and have no gradient.
    """
    return pooled_maxima(features, boxes, size, scale).values


def _forward(features: jax.Array, boxes: jax.Array, size: int, scale: float) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    maxima = pooled_maxima(features, boxes, size, scale)
    return maxima.values, (features, boxes, maxima.cells)


def _backward(size: int, scale: float, residuals: tuple[jax.Array, ...],
              dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    features, boxes, cells = residuals
    height, width, channels = features.shape
    dy = at_least_float32(dy)
    flat = jnp.zeros((height * width, channels), dy.dtype)
    flat = flat.at[cells, jnp.arange(channels)].add(dy, mode="drop")  # the cell of an empty bin is beyond the last one
    return flat.reshape(features.shape).astype(features.dtype), jnp.zeros_like(boxes)


roi_max_pool.defvjp(_forward, _backward)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Convert to float32 before summing over regions, because a sum of ones in bfloat16 stops at 256."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def pooled_maxima(features: jax.Array, boxes: jax.Array, size: int, scale: float) -> Maxima:
    """Return the maximum of every bin, `[n, size, size, channels]`."""
    height, width, _ = features.shape
    (top, bottom), (left, right) = (bins(boxes[:, axis], boxes[:, axis + 2], size, scale, cells)
                                    for axis, cells in ((1, height), (0, width)))
    tables = window_maxima(features, levels(height, size), levels(width, size))
    high, wide = (31 - lax.clz(jnp.maximum(end - start, 1)) for start, end in ((top, bottom), (left, right)))
    rows, columns = (top, bottom - 2**high), (left, right - 2**wide)  # windows at both ends cover a bin
    maxima = None
    for row in rows:
        for column in columns:
            place = (high[:, :, None], wide[:, None, :], jnp.clip(row, 0, height - 1)[:, :, None],
                     jnp.clip(column, 0, width - 1)[:, None, :])
            window = jax.tree.map(lambda table, place=place: table[place], tables)
            maxima = window if maxima is None else larger(maxima, window)
    assert maxima is not None
    empty = ((bottom <= top)[:, :, None] | (right <= left)[:, None, :])[..., None]
    return Maxima(jnp.where(empty, 0, maxima.values), jnp.where(empty, height * width, maxima.cells))


def bins(low: jax.Array, high: jax.Array, size: int, scale: float, cells: int) -> tuple[jax.Array, jax.Array]:
    """Divide the sides `[n]` of boxes into bins. Return each bin's first cell and the cell after it, `[n, size]`."""
    start, last = (jnp.floor(side * scale + 0.5).astype(jnp.int32)[:, None] for side in (low, high))
    length = jnp.maximum(last - start + 1, 1)
    i = jnp.arange(size)
    first, after = start + i * length // size, start - (-(i + 1) * length // size)
    return jnp.clip(first, 0, cells), jnp.clip(after, 0, cells)


def levels(cells: int, size: int) -> int:
    """Return the number of window sides 1, 2, 4, ... up to that of the largest bin on a map of this size."""
    return int(math.log2(min(cells, -(-(cells + 1) // size) + 1))) + 1


def window_maxima(features: jax.Array, high: int, wide: int) -> Maxima:
    """Compute the maxima of all windows of 2^i x 2^j cells, by first cell, as `[high, wide, height, width, channels]`.

    Windows are clipped to the map.
    """
    height, width, _ = features.shape
    cells = jnp.asarray(np.arange(height * width, dtype=np.int32).reshape(height, width, 1))
    rows = [Maxima(features, jnp.broadcast_to(cells, features.shape))]
    for i in range(high - 1):
        rows.append(larger(rows[-1], shift_along(rows[-1], 2**i, 0)))
    table = []
    for row in rows:
        across = [row]
        for j in range(wide - 1):
            across.append(larger(across[-1], shift_along(across[-1], 2**j, 1)))
        table.append(jax.tree.map(lambda *levels: jnp.stack(levels), *across))
    stacked: Maxima = jax.tree.map(lambda *levels: jnp.stack(levels), *table)
    return stacked


def shift_along(maxima: Maxima, by: int, axis: int) -> Maxima:
    """Shift by `by` cells along an axis, repeating the border."""
    index = jnp.minimum(jnp.arange(maxima.values.shape[axis]) + by, maxima.values.shape[axis] - 1)
    return Maxima(*(jnp.take(part, index, axis) for part in maxima))


def roi_align(features: jax.Array, boxes: jax.Array, size: int, scale: float, samples: int = 2) -> jax.Array:
    """Average `samples`^2 bilinearly interpolated points per bin, without rounding the boxes.

    The shapes are those of `roi_max_pool` (He et al. 2017, section 3). The value of cell k is at k + 1/2.
    """
    height, width, _ = features.shape
    points = (jnp.arange(size * samples) + 0.5) / (size * samples)
    y, x = (boxes[:, axis, None] * scale + (boxes[:, axis + 2] - boxes[:, axis])[:, None] * scale * points - 0.5
            for axis in (1, 0))
    (row, below, down), (column, beside, across) = neighbours(y, height), neighbours(x, width)

    exact = at_least_float32(features)

    def at(rows: jax.Array, columns: jax.Array) -> jax.Array:
        return exact[rows[:, :, None], columns[:, None, :]]

    down, across = down[:, :, None, None], across[:, None, :, None]
    values = ((at(row, column) * (1 - across) + at(row, beside) * across) * (1 - down)
              + (at(below, column) * (1 - across) + at(below, beside) * across) * down)
    return values.reshape(len(boxes), size, samples, size, samples, -1).mean((2, 4)).astype(features.dtype)


def neighbours(position: jax.Array, cells: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the cells before and after a position, and the position's fraction (0 to 1) between them."""
    position = jnp.clip(position, 0, cells - 1)
    first = jnp.floor(position).astype(jnp.int32)
    return first, jnp.minimum(first + 1, cells - 1), position - first
