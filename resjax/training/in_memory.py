"""Trains on small images. Every device stores all images, and the compiled steps assemble the batches."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.sharding import NamedSharding, Sharding

from resjax.data import (
    Batch,
    Batching,
    Dataset,
    Images,
    Permutation,
    Preprocessing,
    batch_at,
    epochs_spanned,
    mean_image,
    permute,
)
from resjax.evaluation import ErrorRates, error_rates, log_probabilities
from resjax.experiment import Data, Experiment
from resjax.network import Classifier
from resjax.system.distributed import batch_sharding, replicated
from resjax.training.optimizer import build_optimizer
from resjax.training.packing import layout_for, most_unstacked
from resjax.training.step import TrainState, draw_state, state_of

permutation_of = jax.jit(permute, static_argnums=(2, 3))


class InMemoryInputs(NamedTuple):
    """The inputs of a call besides the state: all training images, and the permutations of the call's epochs."""

    images: Images
    permutation: Permutation


@dataclass(frozen=True)
class InMemoryBatch:
    """Assembles the batch of the state's step (section 4.2). Each device assembles its own part."""

    batching: Batching
    std: tuple[float, ...]
    sharding: Sharding

    def __call__(self, state: TrainState, inputs: InMemoryInputs) -> Batch:
        batch: Batch = lax.with_sharding_constraint(
            batch_at(state.step, state.key, inputs.permutation, inputs.images, Preprocessing(state.mean, self.std),
                     self.batching), self.sharding)
        return batch


@dataclass(frozen=True)
class InMemory:
    """A data set in memory. Each call makes many steps, between which the host does nothing."""

    data: Dataset
    about: dict[str, Any]
    mean: np.ndarray
    batch: InMemoryBatch
    sharding: NamedSharding
    stride: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names."""
        return self.data.classes

    def identity(self) -> dict[str, Any]:
        """Describe the images independently of their location."""
        return self.about

    def inputs(self, key: jax.Array, steps: range) -> AbstractContextManager[Iterator[tuple[int, InMemoryInputs]]]:
        """Open the calls that make up `steps`, each with its number of steps and its inputs. No cleanup is needed."""
        return nullcontext(self.calls(key, steps))

    def calls(self, key: jax.Array, steps: range) -> Iterator[tuple[int, InMemoryInputs]]:
        """Split `steps` at multiples of the steps per call. Every epoch begins with a new permutation."""
        images, size = len(self.data.train.labels), self.batch.batching.size
        epochs = epochs_spanned(self.stride, size, images)
        step, epoch, permutation = steps.start, -1, None
        while step < steps.stop:
            if permutation is None or step * size // images != epoch:
                epoch = step * size // images
                permutation = permutation_of(key, epoch, epochs, images)
            count = min(self.stride - step % self.stride, steps.stop - step)
            yield count, InMemoryInputs(self.data.train, permutation)
            step += count

    @property
    def splits(self) -> Sequence[str]:
        """The splits with images that are not trained on."""
        return [split for split in ("validation", "test") if len(getattr(self.data, split).labels)]

    def errors(self, classifier: Classifier, split: str) -> ErrorRates:
        """Measure the errors with one view of each image."""
        images: Images = getattr(self.data, split)
        seen = log_probabilities(classifier, images, self.batch.batching.size, self.sharding)
        return error_rates(seen, np.asarray(images.labels))


def in_memory(experiment: Experiment, dataset: Dataset, devices: Sequence[jax.Device]) -> InMemory:
    """Copy images to every device, for the batches of an experiment."""
    data, sharding = experiment.data, batch_sharding(devices)
    assert isinstance(data, Data)
    train, validation, test = jax.device_put((dataset.train, dataset.validation, dataset.test), replicated(sharding))
    batch = InMemoryBatch(Batching(experiment.batch_size, data.pad, data.flip), data.std, sharding)
    on_devices, mean = Dataset(dataset.classes, train, validation, test), mean_image(dataset.train)
    return InMemory(on_devices, dataset.identity(), mean, batch, sharding, steps_per_call(experiment))


def steps_per_call(experiment: Experiment, platform: str | None = None) -> int:
    """Return the number of steps per call, so that calls end at each log line, evaluation and checkpoint.

    On an accelerator, a launch costs as much as a small step, so many steps per call are faster. On CPU, a call has to
    allocate memory, and a few steps per call are enough. `platform` is by default that of this process, but programs
    can be compiled for others.
    """
    most = 5 if (platform or jax.default_backend()) == "cpu" else 100
    common = math.gcd(experiment.log_steps, experiment.evaluate_steps, experiment.checkpoint_steps)
    return max(count for count in range(1, most + 1) if common % count == 0)


def train_in_memory(experiment: Experiment, model: nn.Module, dataset: Dataset,
                    begin: TrainState | None = None) -> tuple[TrainState, np.ndarray]:
    """Train any network for all steps of a run in one call, on one device. Return the last state and the losses.

    The function is meant for studies of many small networks. Nothing is written to disk, and batch statistics stay
    moving averages. Training starts from a new state, or from the parameters and statistics of `begin` with a new
    schedule.
    """
    steps, optimizer = experiment.steps, build_optimizer(experiment.optimizer, experiment.steps)
    images = replace(in_memory(experiment, dataset, jax.devices()[:1]), stride=steps)
    if begin is None:
        state = draw_state(replicated(images.sharding), model, optimizer, images.mean, experiment.seed)
    else:  # copies, because the training state is donated
        variables, mean, key = jax.tree.map(jnp.copy, (begin.variables, begin.mean, begin.key))
        state = state_of(variables, optimizer, mean, key)
    ((_, inputs),) = images.calls(state.key, range(steps))
    form = layout_for(jax.default_backend())
    state = form.pack(state, most_unstacked(model))
    state, metrics = form.steps(model, optimizer, images.batch, steps, state, inputs)
    return form.unpack(state), np.asarray(metrics.loss / metrics.images)
