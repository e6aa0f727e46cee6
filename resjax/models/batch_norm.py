"""Batch normalisation over groups of the batch, as it is on several GPUs."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from resjax.models.ops import materialize


class BatchNorm(nn.Module):
    """y = scale (x - mean) / sqrt(var + epsilon) + bias, for `[batch, height, width, channels]`.

    In training, mean and (biased) variance are those of each `ghost_batch_size` consecutive images; their
    average over these groups moves the running statistics: new = momentum old + (1 - momentum) batch.
    Statistics are float32 and in two passes whatever the type of x. Raises ValueError where the ghost batch
    size does not divide the batch.
    """

    train: bool
    ghost_batch_size: int = 64
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones_init(), channels)
        bias = self.param("bias", nn.initializers.zeros_init(), channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        if not self.train:
            return normalize(x, running_mean.value, running_var.value, scale, bias, self.epsilon)
        if len(x) % self.ghost_batch_size:
            raise ValueError(f"a batch of {len(x)} images does not divide into groups of {self.ghost_batch_size}")
        groups = x.reshape(-1, self.ghost_batch_size, *x.shape[1:])
        y, mean, var = batch_norm(groups, scale, bias, self.epsilon)
        if not self.is_initializing():
            for running, batch in ((running_mean, mean), (running_var, var)):
                running.value = self.momentum * running.value + (1 - self.momentum) * batch.mean((0, 1, 2, 3))
        return y.reshape(x.shape)


def normalize(x, mean, var, scale, bias, epsilon):
    """Apply given statistics, in float32; the result has the type of x."""
    return ((x - mean) * (lax.rsqrt(var + epsilon) * scale) + bias).astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(x, scale, bias, epsilon):
    """Normalise `[groups, images, height, width, channels]` by the statistics of each group.

    Returns the result and the groups' means and variances `[groups, 1, 1, 1, channels]`, for the running
    statistics: those carry no gradient of their own.
    """
    mean = group_mean(x)
    var = group_mean(jnp.square(x - mean))
    return normalize(x, mean, var, scale, bias, epsilon), mean, var


def _forward(x, scale, bias, epsilon):
    y, mean, var = batch_norm(x, scale, bias, epsilon)
    return (y, mean, var), (x, scale, mean, var)


def _backward(epsilon, residuals, cotangents):
    """dx = scale / s (dy - mean(dy) - h mean(dy h)), with h = (x - mean) / s the normalised input and s its scale."""
    (x, scale, mean, var), dy = residuals, cotangents[0]
    inverse = lax.rsqrt(var + epsilon)
    centred = x - mean
    mean_dy = group_mean(dy)
    mean_dy_h = group_mean(dy * centred) * inverse
    dx = (dy - mean_dy - centred * (inverse * mean_dy_h)) * (inverse * scale)
    count = x[0, ..., 0].size
    dscale, dbias = (count * total.sum((0, 1, 2, 3)) for total in (mean_dy_h, mean_dy))
    return materialize(dx.astype(x.dtype)), dscale, dbias


batch_norm.defvjp(_forward, _backward)


def group_mean(x: jax.Array) -> jax.Array:
    """Average `[groups, images, height, width, channels]` to `[groups, 1, 1, 1, channels]`, in float32."""
    return lax.platform_dependent(x, cpu=mean_in_two_stages, default=mean_in_one_stage)


def mean_in_one_stage(x: jax.Array) -> jax.Array:
    """Average at once, in float32."""
    return x.mean((1, 2, 3), jnp.float32, keepdims=True)


def mean_in_two_stages(x: jax.Array) -> jax.Array:
    """Average first down the columns of every image, which XLA's CPU compiler spreads over the cores, then the rest.

    In one reduction onto a few channels it would use one core. Summing in two stages is also more exact.
    """
    groups, images, height, width, channels = x.shape
    columns = x.astype(jnp.float32).reshape(groups * images, height, width * channels).sum(1)
    columns = lax.optimization_barrier(columns).reshape(groups, images * width, channels)
    return columns.sum(1)[:, None, None, None] / (images * height * width)
