"""The 3x3 max pool of the ImageNet stem, with a gradient that is the same every time.

The gradient of JAX's own is a select-and-scatter, which adds up in any order on GPU and is refused where
deterministic operations are demanded (google/flax#4233).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Take the maximum over 3x3 windows, one pixel of padding, stride 2: `[batch, height, width, channels]`.

    The gradient goes to the first of equal maxima.
    """
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool(x)
    return y, (x, y)


def _backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
    x, y = residuals
    height, width, rows, columns = *x.shape[1:3], *y.shape[1:3]
    low = jnp.finfo(x.dtype).min
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=low)
    dx = jnp.zeros_like(padded)
    free = jnp.ones(y.shape, bool)
    for i in range(3):
        for j in range(3):
            seen = padded[:, i:i + 2 * rows:2, j:j + 2 * columns:2]
            first = free & (seen == y)
            free = free & ~first
            after = (padded.shape[1] - i - 2 * rows + 1, padded.shape[2] - j - 2 * columns + 1)
            dx += lax.pad(jnp.where(first, dy, 0), jnp.zeros((), dy.dtype),
                          ((0, 0, 0), (i, after[0], 1), (j, after[1], 1), (0, 0, 0)))
    return (dx[:, 1:1 + height, 1:1 + width],)


max_pool.defvjp(_forward, _backward)
