"""Batch normalisation over groups of images, as if each group were on its own GPU, with an optional ReLU.

Statistics are always float32. How statistics are computed depends on the platform for which a program is lowered. A CPU
reads the input x twice, first for the mean and then for the variance, and computes each sum in two stages. Before that,
it converts a bfloat16 input to float32 rows of pixels (`on_rows`). Accelerators are limited by memory bandwidth, so
they read x only once:

    var = mean((x - c)^2) - mean(x - c)^2    for any c

This formula loses precision if c is many standard deviations away from the mean. Therefore, c is normally one pixel of
x, with its own value for each channel. On TPU, XLA can fuse the sums into the convolution that computes x, so that x is
not read again. This is possible only if c is known before the convolution. For a bfloat16 x, a TPU therefore uses the
running mean as c. The running mean is usually close to the batch mean. It starts at 0, but in the first steps of
training from scratch, batch means are only a few standard deviations from 0. The loss of precision is then negligible,
because bfloat16 itself has only 8 bits of precision.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from resjax.models.ops import materialize, on_rows, relu, repeat

MIN_VARIANCE_RATIO = 2.0**-22  # relative to the squared distance from c to the mean; anything smaller is rounding error


class BatchNorm(nn.Module):
    """Batch norm (Ioffe and Szegedy 2015): y = scale * (x - mean) / sqrt(var + epsilon) + bias.

    x is `[batch, height, width, channels]`. In training, the mean and the (biased) variance are computed over groups of
    `ghost_batch_size` consecutive images. The running statistics are then updated with the averages over the groups:
    new = momentum * old + (1 - momentum) * average. Without a `ghost_batch_size`, the whole batch is one group. With
    `rectify`, the result is max(y, 0). Statistics are float32 for any dtype of x. Raises ValueError if
    `ghost_batch_size` does not divide the batch.
    """

    train: bool
    ghost_batch_size: int | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    rectify: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), channels)
        bias = self.param("bias", nn.initializers.zeros_init(), channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        if not self.train:
            y = apply_statistics(x, running_mean.value, running_var.value, scale, bias, self.epsilon)
            self.sow("intermediates", "response", y)  # before the ReLU
            return relu(y) if self.rectify else y
        size = self.ghost_batch_size or len(x)
        if len(x) % size:
            raise ValueError(f"a batch of {len(x)} images cannot be divided into groups of {size}")
        groups = x.reshape(-1, size, *x.shape[1:])
        y, mean, var = batch_norm(groups, scale, bias, self.epsilon, running_mean.value, self.rectify)
        if not self.is_initializing():
            for running, batch in ((running_mean, mean), (running_var, var)):
                running.value = self.momentum * running.value + (1 - self.momentum) * batch.mean((0, 1, 2, 3))
        return y.reshape(x.shape)


def apply_statistics(x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array,
                     epsilon: float) -> jax.Array:
    """Apply given statistics in float32; the result has the dtype of x."""
    def normalise(x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array]:
        y = (x - mean) * (lax.rsqrt(var + epsilon) * scale) + bias
        return (y.astype(x.dtype),)

    return on_rows(normalise, (x,), (mean, var, scale, bias), store=False)[0]  # type: ignore[no-any-return]


@partial(jax.custom_vjp, nondiff_argnums=(3, 5))
def batch_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, near: jax.Array | None = None,
               rectify: bool = False) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise `[groups, images, height, width, channels]` by each group's statistics, with an optional ReLU.

    Returns the result, and the means and variances of the groups `[groups, 1, 1, 1, channels]`. The means and variances
    are for the running statistics and have no gradient. `near` `[channels]` is an optional estimate of the means.
    """
    channels = len(scale)

    def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array) -> Any:
        mean, var = statistics(x, near, channels)
        y = apply_statistics(x, mean, var, scale, bias, epsilon)
        return jnp.maximum(y, 0) if rectify else y, mean, var

    y, mean, var = on_rows(normalise, (x,), (scale, bias, jnp.zeros_like(scale) if near is None else near),
                           store=rectify)
    return y, mean, var


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, near: jax.Array | None,
             rectify: bool) -> tuple[Any, Any]:
    y, mean, var = batch_norm(x, scale, bias, epsilon, near, rectify)
    return (y, mean, var), (x, scale, bias, mean, var, near, y if rectify else None)


def _backward(epsilon: float, rectify: bool, residuals: Any, cotangents: Any) -> Any:
    """Compute dx = scale / s (dy - mean(dy) - h mean(dy h)), where h = (x - mean) / s is the normalised input."""
    (x, scale, bias, mean, var, near, y), dy, channels = residuals, cotangents[0], len(residuals[1])

    def gradients(x: jax.Array, y: jax.Array, dy: jax.Array, *vectors: jax.Array) -> Any:
        scale, bias, mean, var = vectors
        inverse = lax.rsqrt(var + epsilon)
        centred = x - mean
        summed, spread = masked_by_relu(y, dy, centred * (inverse * scale), bias) if rectify else (dy, dy)
        mean_dy = group_mean(summed, channels)
        mean_dy_h = group_mean(summed * centred, channels) * inverse
        dx = (spread - mean_dy - centred * (inverse * mean_dy_h)) * (inverse * scale)
        return dx.astype(x.dtype), mean_dy_h, mean_dy

    dx, mean_dy_h, mean_dy = on_rows(gradients, (x, y if rectify else dy, dy), (scale, bias, mean, var))
    dscale, dbias = (x[0, ..., 0].size * total.sum((0, 1, 2, 3)) for total in (mean_dy_h, mean_dy))
    return dx, dscale, dbias, jax.tree.map(jnp.zeros_like, near)


batch_norm.defvjp(_forward, _backward)


def masked_by_relu(y: jax.Array, dy: jax.Array, scaled: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mask dy by the ReLU. Returns two separately written copies, one for the sums and one for dx.

    The mask is y = scaled + bias > 0. On GPU, each copy recomputes the mask from x, which the consumer of that copy
    reads anyway. Separate copies keep XLA from merging them, storing the result and reading it back.
    """
    pair: tuple[jax.Array, jax.Array] = lax.platform_dependent(
        y, dy, scaled, bias, cpu=by_output, tpu=by_output, default=by_input)
    return pair


def by_output(y: jax.Array, dy: jax.Array, *_: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute the mask from the sign of the output."""
    passed = materialize(jnp.where(y > 0, dy, 0))
    return passed, passed


def by_input(_: jax.Array, dy: jax.Array, scaled: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute the mask from the input, which is possible because the sign of a float32 sum is exact."""
    return jnp.where(bias > -scaled, dy, 0), jnp.where(scaled > -bias, dy, 0)


def statistics(x: jax.Array, near: jax.Array, channels: int) -> tuple[jax.Array, jax.Array]:
    """Compute mean and variance of each group, `[groups, 1, 1, 1, channels]`, in float32, by the platform's method."""
    def around_pixel(x: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        return in_one_pass(x, one_pixel(x))

    pair: tuple[jax.Array, jax.Array] = lax.platform_dependent(
        x, near, cpu=lambda x, _: in_two_passes(x, channels),
        tpu=in_one_pass if x.dtype == jnp.bfloat16 else around_pixel, default=around_pixel)
    return pair


def in_two_passes(x: jax.Array, channels: int) -> tuple[jax.Array, jax.Array]:
    """Compute the mean, then the mean square of the deviations."""
    mean = group_mean(x, channels)
    return mean, group_mean(jnp.square(x - mean), channels)


def in_one_pass(x: jax.Array, near: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute mean and variance from the means of x - `near` and its square; clip the variance at the rounding
    error.
    """
    offset = x.astype(jnp.float32) - near
    mean, square = means_together(offset, jnp.square(offset))
    return near + mean, jnp.maximum(square - jnp.square(mean), MIN_VARIANCE_RATIO * jnp.square(mean))


def one_pixel(x: jax.Array) -> jax.Array:
    """Return the central pixel of each group's first image: `[groups, 1, 1, 1, channels]`, in float32."""
    row, column = x.shape[2] // 2, x.shape[3] // 2
    return x[:, :1, row:row + 1, column:column + 1].astype(jnp.float32)


def means_together(one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Average two arrays like `group_mean`; on GPU in a single reduction, which halves the number of kernels."""
    def apart(one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        return group_mean(one, one.shape[-1]), group_mean(other, one.shape[-1])

    def together(one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        zero, count = jnp.float32(0), one[0, ..., 0].size
        sums: Any = lax.reduce((one, other), (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]), (1, 2, 3))
        return sums[0][:, None, None, None] / count, sums[1][:, None, None, None] / count

    pair: tuple[jax.Array, jax.Array] = lax.platform_dependent(one, other, cpu=apart, tpu=apart, default=together)
    return pair


def group_mean(x: jax.Array, channels: int) -> jax.Array:
    """Average `[groups, images, height, width, channels]` to `[groups, 1, 1, 1, channels]`, in float32.

    Rows as in `on_rows`, `[groups, images, height, 1, width * channels]`, give `[groups, 1, 1, 1, width * channels]`.
    """
    mean: jax.Array = lax.platform_dependent(
        x, cpu=partial(mean_in_two_stages, channels=channels),
        default=lambda x: x.mean((1, 2, 3), jnp.float32, keepdims=True))
    return mean


def mean_in_two_stages(x: jax.Array, channels: int) -> jax.Array:
    """Average over groups of at most 16 rows of pixels, then over their columns; repeat the mean if x has rows.

    In rows as in `on_rows`, the mean of a channel is repeated for each pixel. XLA's CPU compiler spreads the first
    stage over the cores and vectorizes it, because it unrolls sums of up to 16 terms. A single reduction onto a few
    channels would use only one core. Summing in two stages is also more exact.
    """
    groups, _, height, width, lanes = x.shape
    rows = next((rows for rows in range(16, 3, -1) if height % rows == 0), height)
    columns = x.astype(jnp.float32).reshape(-1, rows, width * lanes).sum(1)
    columns = lax.optimization_barrier(columns).reshape(groups, -1, channels)
    mean = columns.sum(1)[:, None, None, None] / (x.size // groups // channels)
    return repeat(mean, lanes // channels)
