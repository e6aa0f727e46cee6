"""Small images lie on every device, and batches are made within the compiled steps."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Sharding

from resjax.data import Batch, Dataset, Images, Order, batch_at, epochs_spanned, load, mean_image, shuffled
from resjax.evaluation import Errors, evaluate
from resjax.experiment import Data, Experiment
from resjax.processes import batch_sharding, everywhere
from resjax.training.state import TrainState

shuffle = jax.jit(shuffled, static_argnums=(2, 3))


class InMemoryInputs(NamedTuple):
    """What the steps of a call need beside the state: all training images, and the order of the epochs they touch."""

    images: Images
    order: Order


@dataclass(frozen=True)
class InMemoryBatch:
    """Makes the batch of the state's step, each device its own part of it (section 4.2)."""

    batch_size: int
    pad: int
    flip: bool
    sharding: Sharding

    def __call__(self, state: TrainState, inputs: InMemoryInputs) -> Batch:
        batch = batch_at(state.step, inputs.order, state.key, inputs.images, state.mean, size=self.batch_size,
                         pad=self.pad, flip=self.flip)
        return lax.with_sharding_constraint(batch, self.sharding)


@dataclass(frozen=True)
class InMemory:
    """A data set that fits into memory: many steps a call, with nothing for the host to do between them."""

    data: Dataset
    mean: np.ndarray
    batch: InMemoryBatch
    stride: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Name the classes."""
        return self.data.classes

    def inputs(self, key: jax.Array, steps: range) -> AbstractContextManager[Iterator[tuple[int, InMemoryInputs]]]:
        """Open the calls that make up `steps`: for each the steps it makes, and its inputs. Nothing is to be closed."""
        return nullcontext(self.calls(key, steps))

    def calls(self, key: jax.Array, steps: range) -> Iterator[tuple[int, InMemoryInputs]]:
        """Cut `steps` at the multiples of the stride; a new epoch begins with a new order."""
        images, size = len(self.data.train.labels), self.batch.batch_size
        epochs = epochs_spanned(self.stride, size, images)
        step, epoch, order = steps.start, -1, None
        while step < steps.stop:
            if step * size // images != epoch:
                epoch = step * size // images
                order = shuffle(key, epoch, epochs, images)
            count = min(self.stride - step % self.stride, steps.stop - step)
            assert order is not None
            yield count, InMemoryInputs(self.data.train, order)
            step += count

    def errors(self, model: Any, variables: Any, mean: jax.Array, split: str) -> Errors | None:
        """Measure the errors on the original single view; None where the split holds no images."""
        images: Images = getattr(self.data, split)
        if not len(images.labels):
            return None
        return evaluate(model, variables, mean, images, self.batch.batch_size, self.batch.sharding)


def open_in_memory(experiment: Experiment, data: Data, devices: Sequence[jax.Device]) -> InMemory:
    """Load the images and put them onto every device. Raises BadInput where they are missing or wrong."""
    loaded, sharding = load(data), batch_sharding(devices)
    on_devices = Dataset(loaded.classes, *jax.device_put((loaded.train, loaded.validation, loaded.test),
                                                         everywhere(sharding)))
    batch = InMemoryBatch(experiment.batch_size, data.pad, data.flip, sharding)
    return InMemory(on_devices, mean_image(loaded.train), batch, steps_per_call(experiment))


def steps_per_call(experiment: Experiment, platform: str | None = None) -> int:
    """Count the steps to make in one call, so that calls end where something is logged, measured or saved.

    On an accelerator a launch costs as much as a small step; on CPU a call pays for fresh memory, and a few
    steps are enough. `platform` is this process's unless a program is compiled for another.
    """
    most = 5 if (platform or jax.default_backend()) == "cpu" else 100
    common = math.gcd(experiment.log_steps, experiment.evaluate_steps, experiment.checkpoint_steps)
    return max(count for count in range(1, most + 1) if common % count == 0)
