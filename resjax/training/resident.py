"""Small images lie on every device, and batches are made within the compiled steps."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from resjax.data import Dataset, Order, epochs_spanned
from resjax.evaluation import Errors, evaluate
from resjax.experiment import Experiment
from resjax.training.batch_statistics import average_statistics
from resjax.training.log import Log
from resjax.training.setting import Call, Setting
from resjax.training.state import TrainState
from resjax.training.step import shuffle, train_steps


@dataclass(frozen=True)
class Resident:
    """The feed of a data set that fits into memory, many steps a call."""

    setting: Setting
    data: Dataset
    mean: np.ndarray

    @property
    def classes(self) -> tuple[str, ...]:
        """Name the classes."""
        return self.data.classes

    def steps(self, states: Sequence[TrainState], log: Log) -> Iterator[Call]:
        """Make the steps that are left, several in a call."""
        experiment, model, optimizer, sharding = self.setting
        stride, images, size = steps_per_call(experiment), len(self.data.train.labels), experiment.batch_size
        epochs = epochs_spanned(stride, size, images)
        compiled: dict[int, Any] = {}
        orders: tuple[Order, ...] = ()
        states = tuple(states)
        step, epoch = int(states[0].step), -1
        while step < experiment.steps:
            count = min(stride - step % stride, experiment.steps - step)
            if step * size // images != epoch:
                epoch = step * size // images
                orders = tuple(shuffle(state.key, epoch, epochs, images) for state in states)
            if count not in compiled:
                start = time.perf_counter()
                static = experiment, model, optimizer, sharding, count
                compiled[count] = train_steps.lower(*static, states, self.data.train, orders).compile()
                log.record({"step": step, "kind": "compile", "seconds": time.perf_counter() - start})
            start = time.perf_counter()
            states, metrics = compiled[count](states, self.data.train, orders)
            metrics = jax.device_get(metrics)
            step += count
            yield Call(states, metrics, time.perf_counter() - start, 0.0)

    def true_average(self, state: TrainState) -> Any:
        """Average the batch statistics over the next `statistics_steps` batches."""
        experiment, model, _, sharding = self.setting
        size, images = experiment.batch_size, len(self.data.train.labels)
        order = shuffle(state.key, experiment.steps * size // images,
                        epochs_spanned(experiment.statistics_steps, size, images), images)
        return average_statistics(experiment, model, sharding, state, self.data.train, order)

    def errors(self, state: TrainState, split: str) -> Errors | None:
        """Measure the errors on the original single view."""
        experiment, model, _, sharding = self.setting
        images = getattr(self.data, split)
        if not len(images.labels):
            return None
        return evaluate(model, state.variables, state.mean, images, experiment.batch_size, sharding)


def steps_per_call(experiment: Experiment) -> int:
    """Count the steps to make in one call, so that calls end where something is logged, measured or saved.

    On an accelerator a launch costs as much as a small step; on CPU a call pays for fresh memory, and a few
    steps are enough.
    """
    most = 5 if jax.default_backend() == "cpu" else 100
    common = math.gcd(experiment.log_steps, experiment.evaluate_steps, experiment.checkpoint_steps)
    return max(count for count in range(1, most + 1) if common % count == 0)
