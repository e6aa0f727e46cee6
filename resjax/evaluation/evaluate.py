"""Exact errors: every image counts once, whatever the batch size and the number of devices."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from resjax.data import Images, subtract


class Errors(NamedTuple):
    """Top-1 and top-5 errors in percent, the mean cross-entropy, and the images that were counted."""

    top1_error: float
    top5_error: float
    loss: float
    images: int


def evaluate(model: nn.Module, variables: Any, mean: jax.Array, images: Images, batch_size: int,
             sharding: Any = None) -> Errors:
    """Measure the errors on the original single view; `batch_size` changes the speed and nothing else."""
    sums = jax.device_get(count_errors(model, batch_size, sharding, variables, mean, images))
    count = int(sums["images"])
    return Errors(100 * int(sums["top1"]) / count, 100 * int(sums["top5"]) / count, float(sums["loss"]) / count, count)


@partial(jax.jit, static_argnums=(0, 1, 2))
def count_errors(model: nn.Module, batch_size: int, sharding: Any, variables: Any, mean: jax.Array,
                 images: Images) -> dict[str, jax.Array]:
    """Sum over the whole set, the last batch padded and masked: `top1`, `top5`, `loss`, `images`.

    An image is right within the first k where its class is among the k largest logits, of equal ones the
    earlier; with fewer than five classes "top 5" is all of them.
    """
    count = len(images.labels)

    def add(sums: dict[str, jax.Array], batch: jax.Array) -> tuple[dict[str, jax.Array], None]:
        index = batch * batch_size + jnp.arange(batch_size)
        real = index < count
        index = jnp.minimum(index, count - 1)
        if sharding is not None:
            index = lax.with_sharding_constraint(index, sharding)
        labels = images.labels[index]
        logits = model.apply(variables, subtract(images.pixels[index], mean))
        _, best = lax.top_k(logits, min(5, logits.shape[-1]))
        right = (best == labels[:, None]) & jnp.isfinite(logits).all(-1, keepdims=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        new = {"top1": real & ~right[:, 0], "top5": real & ~right.any(-1), "images": real,
               "loss": jnp.where(real, losses, 0)}
        return {key: sums[key] + value.sum(dtype=sums[key].dtype) for key, value in new.items()}, None

    zeros = {"top1": jnp.int32(0), "top5": jnp.int32(0), "images": jnp.int32(0), "loss": jnp.float32(0)}
    return lax.scan(add, zeros, jnp.arange(-(-count // batch_size)))[0]
