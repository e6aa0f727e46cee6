"""How strongly each layer responds: Figure 7 of the paper."""

from functools import partial
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import lax

from resjax.analysis.order import NORMS, in_order
from resjax.data import Images, subtract
from resjax.models import BatchNorm


def response_deviations(model: nn.Module, variables: Any, mean: jax.Array, images: Images,
                        batch_size: int = 100) -> np.ndarray:
    """Return the standard deviation of every 3x3 layer's response `[layers]`, in the order of the layers.

    A response is what batch norm makes of the layer's output, before the ReLU or the addition (section 4.2); the
    deviation is over all images, pixels and channels. Projections are not 3x3 layers and are left out. Raises
    ValueError where `batch_size` does not divide the images: every one counts once.
    """
    count = len(images.labels)
    if count % batch_size:
        raise ValueError(f"a batch size of {batch_size} does not divide {count} images")
    sums, squares = mean_moments(model, count // batch_size, variables, mean, images)
    return np.sqrt(np.asarray(squares, np.float64) - np.square(np.asarray(sums, np.float64)))


@partial(jax.jit, static_argnums=(0, 1))
def mean_moments(model: nn.Module, batches: int, variables: Any, mean: jax.Array, images: Images) -> Any:
    """Average the responses and their squares `[layers]`, over so many equal batches."""

    def moments(batch: Images) -> tuple[jax.Array, jax.Array]:
        _, seen = model.apply(variables, subtract(batch.pixels, mean), mutable=["intermediates"],
                              capture_intermediates=lambda module, _: isinstance(module, BatchNorm))
        first, second = (jax.tree.map(lambda y, power=power: (y**power).mean((-4, -3, -2, -1)), seen["intermediates"])
                         for power in (1, 2))
        return in_order(first, NORMS, "__call__"), in_order(second, NORMS, "__call__")

    split = jax.tree.map(lambda x: x.reshape(batches, -1, *x.shape[1:]), images)
    return jax.tree.map(lambda x: x.mean(0), lax.map(moments, split))

