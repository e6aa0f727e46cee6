"""Training in memory: a state in, a state and its losses out, and nothing on disk."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from resjax.data import Dataset, epochs_spanned, mean_image
from resjax.experiment import Experiment
from resjax.training.in_memory import InMemoryBatch, InMemoryInputs, shuffle
from resjax.training.optimizer import sgd
from resjax.training.state import TrainState, draw
from resjax.training.step import train_steps


def fit(experiment: Experiment, model: nn.Module, data: Dataset,
        start: TrainState | None = None) -> tuple[TrainState, np.ndarray]:
    """Train any network by an experiment's recipe, on one device; return its last state and the losses `[steps]`.

    The network is `model`, whatever `experiment.architecture` says. It begins at its first state or, with its own
    schedule anew, at `start`, of which only parameters and batch statistics count.
    """
    size, images = experiment.batch_size, len(data.train.labels)
    optimizer = sgd(experiment.optimizer)
    state = draw(model, optimizer, mean_image(data.train), experiment.seed)
    if start is not None:  # copies, as what is trained is donated
        state = state.replace(**jax.tree.map(jnp.copy, start.variables))
    order = shuffle(state.key, 0, epochs_spanned(experiment.steps, size, images), images)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    batch = InMemoryBatch(size, experiment.data.pad, experiment.data.flip, place)
    state, metrics = train_steps(model, optimizer, batch, experiment.steps, state, InMemoryInputs(data.train, order))
    return state, np.asarray(metrics.loss / metrics.images)
