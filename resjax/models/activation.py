"""The rectifier, and a way to keep XLA from computing an array more than once."""

import jax
import jax.numpy as jnp


def materialize(x: jax.Array) -> jax.Array:
    """Return x, computed once and stored.

    On CPU, XLA would rather compute an element-wise result again inside each of its consumers, a barrier
    notwithstanding; it never does so with a division, which costs nothing beside the memory traffic.
    """
    return x / (1 + 0 * x) if jax.default_backend() == "cpu" else x


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0); the gradient at 0 is 0, and is taken from the output, so that the input need not be kept."""
    return materialize(jnp.maximum(x, 0))


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _backward(y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    return (materialize(jnp.where(y > 0, dy, 0)),)


relu.defvjp(_forward, _backward)
