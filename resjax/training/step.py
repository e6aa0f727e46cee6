"""One update of the parameters, pure; and many in one call."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import lax

from resjax.data import Batch, Images, Order, batch_at, shuffled
from resjax.experiment import Experiment
from resjax.training.state import TrainState


class Metrics(NamedTuple):
    """Sums over a batch: of the losses, of the wrong predictions, of the images."""

    loss: jax.Array
    errors: jax.Array
    images: jax.Array


def train_step(model: nn.Module, optimizer: optax.GradientTransformationExtraArgs, state: TrainState,
               batch: Batch) -> tuple[TrainState, Metrics]:
    """Descend once along the gradient of the mean cross-entropy."""

    def mean_loss(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
        logits, updated = model.apply({"params": params, "batch_stats": state.batch_stats}, batch.images,
                                      train=True, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        wrong = logits.argmax(-1) != batch.labels
        metrics = Metrics(losses.sum(), wrong.sum(), jnp.int32(len(losses)))
        return losses.mean(), (metrics, updated.get("batch_stats", {}))

    gradients, (metrics, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params,
                                          error=100 * metrics.errors / metrics.images)
    state = state.replace(step=state.step + 1, params=optax.apply_updates(state.params, updates),
                          batch_stats=batch_stats, opt_state=opt_state)
    return state, metrics


def training_batch(experiment: Experiment, state: TrainState, data: Images, order: Order, sharding: Any) -> Batch:
    """Make the batch of the state's step, each device its own part of it."""
    batch = batch_at(state.step, order, state.key, data, state.mean, size=experiment.batch_size,
                     pad=experiment.data.pad, flip=experiment.data.flip)
    return lax.with_sharding_constraint(batch, sharding)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4), donate_argnums=5)
def train_steps(experiment: Experiment, model: nn.Module, optimizer: optax.GradientTransformationExtraArgs,
                sharding: Any, count: int, states: tuple[TrainState, ...], data: Images,
                orders: tuple[Order, ...]) -> tuple[tuple[TrainState, ...], tuple[Metrics, ...]]:
    """Make `count` steps of every state in one call; the metrics come with a leading axis `[count]`."""

    def several(state: TrainState, order: Order) -> tuple[TrainState, Metrics]:
        def step(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
            return train_step(model, optimizer, state, training_batch(experiment, state, data, order, sharding))

        if count == 1:  # no loop: XLA compiles the body of one less freely
            state, metrics = step(state, None)
            return state, jax.tree.map(lambda x: x[None], metrics)
        return lax.scan(step, state, length=count)

    if len(states) == 1:
        state, metrics = several(states[0], orders[0])
        return (state,), (metrics,)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *zip(states, orders, strict=True))
    state, metrics = jax.vmap(several)(*stacked)
    each = range(len(states))
    return tuple(tuple(jax.tree.map(lambda x, i=i: x[i], tree) for i in each) for tree in (state, metrics))


shuffle = jax.jit(shuffled, static_argnums=(2, 3))
