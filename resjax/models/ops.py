"""The operations of the networks with gradients of their own: rectifier, convolution, max pool.

What only one platform needs is chosen where a program is lowered for it, so that a network that is exported or compiled
on another machine is the right one.

XLA's CPU compiler brings the two gradient convolutions into the order that its fast kernels read only outside
of loops (jax-ml/jax#12868); inside `scan` they take a path that is thirty times slower. Written out in that
order, with explicit transposes, they are fast everywhere. A 1x1 convolution is a matrix product: as one, a step of
ResNet-50 takes 4 % less. Where the map is smaller than the kernel, in the last stage of small images, XLA is ten times
slower than on the same map with its padding written out. On GPU and TPU XLA's own are best.

The gradient of JAX's own max pool is a select-and-scatter, which adds up in any order on GPU and is refused where
deterministic operations are demanded (google/flax#4233); ours is the same every time.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def materialize(x: jax.Array) -> jax.Array:
    """Return x, on CPU computed once and stored.

    There, XLA would rather compute an element-wise result again inside each of its consumers, a barrier
    notwithstanding; it never does so with a division, which costs nothing beside the memory traffic.
    """
    stored: jax.Array = lax.platform_dependent(x, cpu=lambda x: x / (1 + 0 * jnp.clip(x, -1, 1)), default=lambda x: x)
    return stored


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0); the gradient at 0 is 0, and is taken from the output, so that the input need not be kept."""
    return materialize(jnp.maximum(x, 0))


def _relu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _relu_backward(y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    return (materialize(jnp.where(y > 0, dy, 0)),)


relu.defvjp(_relu_forward, _relu_backward)


def convolve(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, *, precision: Any = None,
             **_: Any) -> jax.Array:
    """Convolve `[batch, height, width, in]` with `[size, size, in, out]`; plugs into `nn.Conv`.

    `padding` gives pixels before and after, for height and width.
    """
    convolved: jax.Array = _convolve(x, kernel, tuple(strides), tuple(map(tuple, padding)), precision)
    return convolved


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, precision: Any) -> Any:
    convolution, product, padded = (partial(way, strides=strides, padding=padding, precision=precision)
                                    for way in (xla_convolution, pointwise, padded_convolution))
    if is_pointwise(kernel, padding):
        return lax.platform_dependent(x, kernel, cpu=product, default=convolution)
    if is_small(x, kernel):
        return lax.platform_dependent(x, kernel, cpu=padded, default=convolution)
    return convolution(x, kernel)


def _convolve_forward(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, precision: Any) -> Any:
    return _convolve(x, kernel, strides, padding, precision), (x, kernel)


def _convolve_backward(strides: Any, padding: Any, precision: Any, residuals: Any, dy: jax.Array) -> Any:
    def gradients(way: Any) -> Any:
        return lambda x, kernel, dy: jax.vjp(partial(way, strides=strides, padding=padding, precision=precision),
                                             x, kernel)[1](dy)

    on_cpu = gradients(pointwise) if is_pointwise(residuals[1], padding) else partial(
        canonical_gradients, strides=strides, padding=padding, precision=precision)
    return lax.platform_dependent(*residuals, dy, cpu=on_cpu, default=gradients(xla_convolution))


_convolve.defvjp(_convolve_forward, _convolve_backward)


def is_pointwise(kernel: jax.Array, padding: Any) -> bool:
    """Say whether a convolution is a matrix product at every pixel that it looks at."""
    return kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0))


def is_small(x: jax.Array, kernel: jax.Array) -> bool:
    """Say whether a map is smaller than the kernel, so that every window reaches into the padding."""
    return any(pixels < size for pixels, size in zip(x.shape[1:3], kernel.shape[:2], strict=True))


def xla_convolution(x: jax.Array, kernel: jax.Array, *, strides: Any, padding: Any, precision: Any,
                    lhs_dilation: Any = (1, 1)) -> jax.Array:
    """Convolve by XLA's own operation, with XLA's own gradients."""
    return lax.conv_general_dilated(x, kernel, strides, padding, lhs_dilation, dimension_numbers=LAYOUT,
                                    precision=precision)


def padded_convolution(x: jax.Array, kernel: jax.Array, *, strides: Any, padding: Any, precision: Any,
                       lhs_dilation: Any = (1, 1)) -> jax.Array:
    """Convolve what was padded and dilated before, behind a barrier, as XLA would make it one operation again."""
    borders = [(low, high, apart - 1) for (low, high), apart in zip(padding, lhs_dilation, strict=True)]
    x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *borders, (0, 0, 0))))
    return xla_convolution(x, kernel, strides=strides, padding=((0, 0), (0, 0)), precision=precision)


def pointwise(x: jax.Array, kernel: jax.Array, *, strides: Any, padding: Any, precision: Any) -> jax.Array:
    """Multiply every pixel's channels with a kernel `[1, 1, in, out]`."""
    x = x[:, ::strides[0], ::strides[1]]
    y = lax.dot_general(x, kernel, (((3,), (2,)), ((), ())), precision=precision)
    return y.reshape(*x.shape[:3], -1)


def canonical_gradients(x: jax.Array, kernel: jax.Array, dy: jax.Array, *, strides: Any, padding: Any,
                        precision: Any) -> tuple[jax.Array, jax.Array]:
    """Compute the gradients by image and kernel as convolutions in the order that XLA's CPU kernels read."""
    size = kernel.shape[:2]
    low = [low for low, _ in padding]

    # dx is dy, spread out by the stride, convolved with the kernel turned around
    full = [(k - 1 - lo, n + lo - s * (m - 1) - 1)
            for k, lo, n, m, s in zip(size, low, x.shape[1:3], dy.shape[1:3], strides, strict=True)]
    convolution = padded_convolution if is_small(dy, kernel) else xla_convolution
    dx = convolution(dy, kernel[::-1, ::-1].transpose(0, 1, 3, 2), strides=(1, 1), padding=full, lhs_dilation=strides,
                     precision=precision)

    # dW is x convolved with dy: channels of x are the batch, the batch is the channels
    high = [(lo, k + s * (m - 1) - n - lo)
            for k, lo, n, m, s in zip(size, low, x.shape[1:3], dy.shape[1:3], strides, strict=True)]
    dkernel = lax.conv_general_dilated(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), (1, 1), high,
                                       rhs_dilation=strides, dimension_numbers=LAYOUT, precision=precision)
    return dx, dkernel.transpose(1, 2, 0, 3)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Take the maximum over 3x3 windows, one pixel of padding, stride 2: `[batch, height, width, channels]`.

    The gradient goes to the first of equal maxima.
    """
    maximum: jax.Array = window_maximum(x)
    return maximum


def window_maximum(x: jax.Array) -> jax.Array:
    """Take the maximum by XLA's own operation, with JAX's own gradient."""
    maximum: jax.Array = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    return maximum


def _pool_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool(x)
    return y, (x, y)


def _pool_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array]:
    return (lax.platform_dependent(*residuals, dy, cpu=partial(pool_gradient, first_by_first), tpu=xla_pool_gradient,
                                   default=partial(pool_gradient, first_by_place)),)


def xla_pool_gradient(x: jax.Array, y: jax.Array, dy: jax.Array) -> jax.Array:
    """Compute the gradient as JAX derives it, by a select-and-scatter: a TPU does it in one order, and in one pass."""
    dx: jax.Array = jax.vjp(window_maximum, x)[1](dy)[0]
    return dx


def pool_gradient(first: Any, x: jax.Array, y: jax.Array, dy: jax.Array) -> jax.Array:
    """Add up what goes to each of the nine places of the windows, always in one order.

    `first(seen, y)` says for each place whether it holds its window's first maximum, where `seen` are the nine places.
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
    """Compare place by place, and leave out the windows that have had theirs."""
    free = jnp.ones(y.shape, bool)
    for place in seen:
        first = free & (place == y)
        free = free & ~first
        yield first


def first_by_place(seen: list[jax.Array], y: jax.Array) -> Iterator[jax.Array]:
    """Compare with the number of the first maximum's place: a GPU stores one byte for each window in place of nine."""
    place = jnp.zeros(y.shape, jnp.uint8)
    for number in reversed(range(len(seen))):
        place = jnp.where(seen[number] == y, jnp.uint8(number), place)
    return (place == number for number in range(len(seen)))


max_pool.defvjp(_pool_forward, _pool_backward)
