"""ReLU and max pooling with custom gradients.

Platform-specific implementations are chosen when a program is lowered, so that a network that is exported or compiled
for another platform uses that platform's implementation.

The gradient of JAX's own max pooling is a select-and-scatter. On GPU, a select-and-scatter adds in no fixed order, so
XLA refuses it if deterministic operations are required (google/flax#4233). The gradient in this module is
deterministic.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax


def materialize(x: jax.Array) -> jax.Array:
    """Return x. On CPU, force XLA to compute x only once and to store it.

    XLA's CPU compiler would recompute an element-wise result inside each of its consumers, even across an optimization
    barrier. It never recomputes a division, and the cost of a division is negligible compared to the memory traffic.
    """
    stored: jax.Array = lax.platform_dependent(x, cpu=lambda x: x / (1 + 0 * jnp.clip(x, -1, 1)), default=lambda x: x)
    return stored


def on_rows(function: Any, images: tuple[jax.Array, ...], vectors: tuple[jax.Array, ...] = (), *,
            store: bool = True) -> tuple[Any, ...]:
    """Apply `function` to images `[..., width, channels]` and vectors `[..., channels]`.

    `function` must be element-wise, except that it may compute means. It returns images, followed by any number of
    vectors. With `store`, CPUs store the images (`materialize`).

    XLA's CPU compiler vectorizes only along the last axis, and an axis of 16 channels is too short for 16-bit numbers.
    The compiler also rounds to bfloat16 slowly (docs/results/onednn.md). So on CPU, `function` gets bfloat16 images as
    float32 rows `[..., 1, width * channels]`, with each vector repeated for every pixel of a row.
    """
    def everywhere(*arrays: jax.Array) -> Any:
        y, *results = function(*arrays)
        return materialize(y) if store else y, *results

    def in_rows(*arrays: jax.Array) -> Any:
        rows = (from_bfloat16(image, (*outer, 1, width * channels)) for image in arrays[:len(images)])
        y, *results = function(*rows, *(repeat(vector, width) for vector in arrays[len(images):]))
        return to_bfloat16(y, shape, store), *(result[..., :channels] for result in results)

    shape = images[0].shape
    *outer, width, channels = shape if len(shape) > 1 else (1, *shape)
    if images[0].dtype != jnp.bfloat16:
        return everywhere(*images, *vectors)  # type: ignore[no-any-return]
    return lax.platform_dependent(*images, *vectors, cpu=in_rows, default=everywhere)  # type: ignore[no-any-return]


def repeat(vector: jax.Array, times: int) -> jax.Array:
    """Repeat `[..., channels]` along the last axis, and store the result."""
    return materialize(jnp.tile(vector, times)) if times > 1 else vector


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def from_bfloat16(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Convert bfloat16 to float32 by integer operations, and reshape."""
    bits = lax.bitcast_convert_type(x, jnp.uint16).reshape(shape)
    return lax.bitcast_convert_type(bits.astype(jnp.uint32) << 16, jnp.float32)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def to_bfloat16(x: jax.Array, shape: tuple[int, ...], store: bool) -> jax.Array:
    """Round float32 to the nearest bfloat16 (ties to even) by integer operations, and reshape."""
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    bits = jnp.where(x == x, bits + 0x7FFF + (bits >> 16 & 1), 0x7FC00000)  # so that no NaN becomes infinite
    bits = (bits >> 16).astype(jnp.uint16)
    if store:
        bits //= bits & ~bits | 1  # as in `materialize`; LLVM removes this division by 1
    return lax.bitcast_convert_type(bits.reshape(shape), jnp.bfloat16)


@from_bfloat16.defjvp
def _from_bfloat16_jvp(shape: Any, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return from_bfloat16(*primals, shape), tangents[0].astype(jnp.float32).reshape(shape)


@to_bfloat16.defjvp
def _to_bfloat16_jvp(shape: Any, store: bool, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return to_bfloat16(*primals, shape, store), tangents[0].astype(jnp.bfloat16).reshape(shape)


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """Compute max(x, 0), with gradient 0 at 0. The gradient needs only the output, so the input need not be stored."""
    y: jax.Array = on_rows(lambda x: (jnp.maximum(x, 0),), (x,))[0]
    return y


def _relu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _relu_backward(y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    return on_rows(lambda y, dy: (jnp.where(y > 0, dy, 0),), (y, dy))


relu.defvjp(_relu_forward, _relu_backward)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Take the maximum of maps `[batch, height, width, channels]` over 3x3 windows, with padding 1 and stride 2.

    The gradient goes to the first of equal maxima.
    """
    maximum: jax.Array = window_maximum(x)
    return maximum


def window_maximum(x: jax.Array) -> jax.Array:
    """Take the maximum with XLA's own operation and JAX's own gradient."""
    maximum: jax.Array = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    return maximum


def _pool_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool(x)
    return y, (x, y)


def _pool_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
    return (lax.platform_dependent(*residuals, dy, cpu=partial(pool_gradient, first_by_first), tpu=xla_pool_gradient,
                                   default=partial(pool_gradient, first_by_place)),)


def xla_pool_gradient(x: jax.Array, y: jax.Array, dy: jax.Array) -> jax.Array:
    """Compute JAX's own gradient, a select-and-scatter, which a TPU computes in a fixed order and in one pass."""
    dx: jax.Array = jax.vjp(window_maximum, x)[1](dy)[0]
    return dx


def pool_gradient(first: Any, x: jax.Array, y: jax.Array, dy: jax.Array) -> jax.Array:
    """Sum the gradients of the nine positions of the windows in a fixed order.

    For each of the nine positions in a window, `first(seen, y)` returns whether it has the window's first maximum.
    `seen` holds the values at the nine positions.
    """
    height, width, rows, columns = *x.shape[1:3], *y.shape[1:3]
    low = float(jnp.finfo(x.dtype).min)  # type: ignore[no-untyped-call]
    padded = jnp.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=low)
    places = [(i, j) for i in range(3) for j in range(3)]
    seen = [padded[:, i:i + 2 * rows:2, j:j + 2 * columns:2] for i, j in places]
    dx = jnp.zeros_like(padded)
    for (i, j), here in zip(places, first(seen, y), strict=True):
        after = (padded.shape[1] - i - 2 * rows + 1, padded.shape[2] - j - 2 * columns + 1)
        dx += lax.pad(jnp.where(here, dy, 0), jnp.zeros((), dy.dtype),
                      ((0, 0, 0), (i, after[0], 1), (j, after[1], 1), (0, 0, 0)))
    return dx[:, 1:1 + height, 1:1 + width]


def first_by_first(seen: list[jax.Array], y: jax.Array) -> Iterator[jax.Array]:
    """Compare position by position, and skip windows whose maximum was already found."""
    free = jnp.ones(y.shape, bool)
    for place in seen:
        first = free & (place == y)
        free = free & ~first
        yield first


def first_by_place(seen: list[jax.Array], y: jax.Array) -> Iterator[jax.Array]:
    """Compare with the index of the first maximum, so that a GPU stores one byte per window instead of nine."""
    place = jnp.zeros(y.shape, jnp.uint8)
    for number in reversed(range(len(seen))):
        place = jnp.where(seen[number] == y, jnp.uint8(number), place)
    return (place == number for number in range(len(seen)))


max_pool.defvjp(_pool_forward, _pool_backward)
