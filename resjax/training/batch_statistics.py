"""Batch statistics by true average, as the authors computed them once training was over (section 3.4)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from resjax.data import Images, Order
from resjax.experiment import Experiment
from resjax.training.state import TrainState
from resjax.training.step import training_batch


@partial(jax.jit, static_argnums=(0, 1, 2))
def average_statistics(experiment: Experiment, model: nn.Module, sharding: Any, state: TrainState, data: Images,
                       order: Order) -> Any:
    """Average mean and variance over the next `statistics_steps` batches, in place of the moving averages."""
    zeros = jax.tree.map(jnp.zeros_like, state.batch_stats)

    def add(sums: Any, step: jax.Array) -> tuple[Any, None]:
        batch = training_batch(experiment, state.replace(step=step), data, order, sharding)
        return add_statistics(model, state, sums, batch.images), None

    count = experiment.statistics_steps
    sums, _ = lax.scan(add, zeros, state.step + jnp.arange(count))
    return jax.tree.map(lambda total: total / count, sums)


def add_statistics(model: nn.Module, state: TrainState, sums: Any, images: jax.Array) -> Any:
    """Add a batch's own statistics to sums."""
    exact = model.clone(norm_momentum=0.0)  # the collection then holds the statistics of the last batch alone
    _, updated = exact.apply(state.variables, images, train=True, mutable=["batch_stats"])
    return jax.tree.map(jnp.add, sums, updated["batch_stats"])
