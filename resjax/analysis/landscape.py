"""The loss landscape around a network, as in sections 3 and 4 of Li, Xu, Taylor, Studer and Goldstein (2018),
"Visualizing the Loss Landscape of Neural Nets" (arXiv 1712.09913).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from resjax.models.stacking import REST
from resjax.system.errors import check


def landscape(model: nn.Module, variables: Any, pixels: Any, labels: Any, key: jax.Array, span: float = 1.0,
              points: int = 25) -> np.ndarray:
    """Return the loss L(w + a d + b e), `[points, points]`, for a and b (rows and columns) from -`span` to `span`.

    The random directions d and e are normalised per filter (`filter_normalized`). With an odd number of points, the
    network itself is the centre of the grid. L is the mean cross-entropy of normalised `pixels` `[batch, height, width,
    channels]` with `labels` `[batch]`; batch norm uses its running statistics. Raises BadInput if `span` is not above 0
    or there are fewer than two points.
    """
    check(span > 0, f"span is {span}; it must be above 0")
    check(points >= 2, f"points is {points}; it must be at least 2")
    directions = [filter_normalized(variables["params"], key) for key in jax.random.split(key)]
    steps = jnp.linspace(-span, span, points)
    return np.asarray(losses_on_grid(model, variables, directions, jnp.asarray(pixels), jnp.asarray(labels), steps))


@partial(jax.jit, static_argnums=0)
def losses_on_grid(model: nn.Module, variables: Any, directions: Any, pixels: jax.Array, labels: jax.Array,
                   steps: jax.Array) -> jax.Array:
    """Compute the loss at every pair of `steps` `[points]` along two directions, sequentially.

    The directions are drawn beforehand, because drawing them inside the program would double the compile time.
    """
    params, (one, other) = variables["params"], directions

    def loss(point: tuple[jax.Array, jax.Array]) -> jax.Array:
        a, b = point
        moved = jax.tree.map(lambda w, d, e: w + a * d + b * e, params, one, other)
        logits: Any = model.apply({**variables, "params": moved}, pixels)
        losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
        return losses.mean()

    rows, columns = jnp.meshgrid(steps, steps, indexing="ij")
    losses: jax.Array = lax.map(loss, (rows.ravel(), columns.ravel()))
    return losses.reshape(rows.shape)


def filter_normalized(params: Any, key: jax.Array) -> Any:
    """Draw a random direction whose filters have the same norms as the network's: d := d / ||d|| ||w||, from normal d.

    A filter is the set of all weights of one output of a convolution or of a fully connected layer. The direction is 0
    for biases and batch norm's parameters. It is computed by NumPy in float32.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    keys = jax.random.split(key, len(leaves))

    def draw(path: tuple[Any, ...], w: Any, key: jax.Array) -> np.ndarray:
        stacked = any(part == jax.tree_util.DictKey(REST) for part in path)  # this leaf has a leading axis of blocks
        inputs, w = tuple(range(stacked, w.ndim - 1)), np.asarray(w)
        if not inputs:
            return np.zeros_like(w)
        d = np.asarray(jax.random.normal(key, w.shape, w.dtype))
        length, drawn = (np.sqrt(np.square(x).sum(inputs, keepdims=True)) for x in (w, d))
        return np.asarray(d * (length / drawn))

    return jax.tree.unflatten(structure, [draw(path, w, key) for (path, w), key in zip(leaves, keys, strict=True)])


def bends_down(grid: np.ndarray) -> np.ndarray:
    """Mark the inner points of a grid `[rows, columns]` at which the surface bends downwards in some direction.

    These are the points where the smaller eigenvalue of the Hessian (by second differences) is negative. Returns
    `[rows-2, columns-2]`.
    """
    middle = grid[1:-1, 1:-1]
    along = grid[2:, 1:-1] - 2 * middle + grid[:-2, 1:-1]
    across = grid[1:-1, 2:] - 2 * middle + grid[1:-1, :-2]
    mixed = (grid[2:, 2:] - grid[2:, :-2] - grid[:-2, 2:] + grid[:-2, :-2]) / 4
    bent: np.ndarray = (along + across) / 2 - np.hypot((along - across) / 2, mixed) < 0
    return bent
