"""Photographs come in batches from processes that decode them, and are on the devices before they are needed."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from resjax.data import Batch, add_colour_noise, subtract
from resjax.errors import BadInput
from resjax.evaluation import Errors, class_probabilities, errors_of, views_of
from resjax.experiment import Photographs
from resjax.photographs import HostBatch, Photos, PhotoSet, Statistics, check_broken, training_batches
from resjax.training.batch_statistics import add_statistics
from resjax.training.log import Log
from resjax.training.setting import Call, Setting
from resjax.training.state import TrainState
from resjax.training.step import Metrics, train_step

AHEAD = 2  # batches on the devices before they are needed


@dataclass(frozen=True)
class Streamed:
    """The feed of a set of photographs, one step a call; every host reads its own share of a batch."""

    setting: Setting
    data: Photographs
    photos: PhotoSet
    statistics: Statistics

    @property
    def classes(self) -> tuple[str, ...]:
        """Name the classes."""
        return self.photos.classes

    @property
    def mean(self) -> np.ndarray:
        """Return the mean image."""
        return self.statistics.mean

    def steps(self, states: Sequence[TrainState], log: Log) -> Iterator[Call]:
        """Make the steps that are left, one a call. Raises BadInput for more than one run."""
        if len(states) > 1:
            raise BadInput(f"{len(states)} runs cannot train together on photographs; train them one by one")
        experiment, model, optimizer, _ = self.setting
        (state,), first, compiled = states, int(states[0].step), None
        broken = BrokenImages(self.photos.train, self.data.broken_images, log)
        with self.batches(state, range(first, experiment.steps)) as batches:
            for _ in range(first, experiment.steps):
                start = time.perf_counter()
                host, batch = next(batches)
                waited = time.perf_counter() - start
                broken.check(host)
                if compiled is None:
                    before = time.perf_counter()
                    compiled = streamed_step.lower(model, optimizer, self.data.colour_noise, state, batch,
                                                   self.statistics.colours).compile()
                    log.record({"step": first, "kind": "compile", "seconds": time.perf_counter() - before})
                    start += time.perf_counter() - before
                state, metrics = compiled(state, batch, self.statistics.colours)
                metrics = jax.device_get(metrics)
                yield Call((state,), (metrics,), time.perf_counter() - start, waited)

    def true_average(self, state: TrainState) -> Any:
        """Average the batch statistics over the next `statistics_steps` batches."""
        experiment, model, _, _ = self.setting
        count = experiment.statistics_steps
        sums = jax.tree.map(jnp.zeros_like, state.batch_stats)
        steps = range(experiment.steps, experiment.steps + count)
        with self.batches(state, steps) as batches:
            for step in steps:
                _, batch = next(batches)
                sums = add_streamed(model, self.data.colour_noise, state.replace(step=jnp.int32(step)), sums, batch,
                                    self.statistics.colours)
        return jax.tree.map(lambda total: total / count, sums)

    def errors(self, state: TrainState, split: str) -> Errors | None:
        """Measure the errors on the centre crop of the test images; nothing is held out for validation."""
        if split != "test":
            return None
        experiment, model, _, sharding = self.setting
        views = views_of("single", self.data)
        probabilities = class_probabilities(model, state.variables, state.mean, self.photos.test, views,
                                            experiment.batch_size, sharding, self.data.workers)
        return errors_of(probabilities, self.photos.test.labels)

    @contextmanager
    def batches(self, state: TrainState, steps: range) -> Iterator[Iterator[tuple[HostBatch, Batch]]]:
        """Open the batches of some steps, on the host and on the devices."""
        def place(host: HostBatch) -> tuple[HostBatch, Batch]:
            pixels, labels = (jax.make_array_from_process_local_data(self.setting.sharding, part)
                              for part in (host.pixels, host.labels))
            return host, Batch(pixels, labels)

        seeds = jax.random.bits(jax.random.fold_in(state.key, 0), (2,), jnp.uint32).tolist()
        with (training_batches(self.photos.train, self.data, seeds, self.setting.experiment.batch_size, steps,
                               jax.process_index(), jax.process_count()) as hosts,
              ahead(map(place, hosts)) as placed):
            yield placed


@contextmanager
def ahead(items: Iterator[Any]) -> Iterator[Iterator[Any]]:
    """Fetch items in a thread, before they are asked for; what goes wrong there is raised here."""
    fetched: queue.Queue[Any] = queue.Queue(AHEAD)
    over = threading.Event()

    def put(item: Any) -> None:
        while not over.is_set():
            try:
                return fetched.put(item, timeout=0.1)
            except queue.Full:
                continue

    def fetch() -> None:
        try:
            for item in items:
                put((item, None))
                if over.is_set():
                    return
            put((None, None))
        except Exception as error:
            put((None, error))

    def given() -> Iterator[Any]:
        while True:
            item, error = fetched.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        yield given()
    finally:
        over.set()
        thread.join()


class BrokenImages:
    """Names every unreadable image once, and stops the run where there are too many."""

    def __init__(self, photos: Photos, limit: int, log: Log) -> None:
        self.photos, self.limit, self.log = photos, limit, log
        self.found: dict[int, str] = {}

    def check(self, batch: HostBatch) -> None:
        """Look at a batch. Raises BadInput."""
        for index in batch.broken[batch.broken >= 0].tolist():
            if index not in self.found:
                self.found[index] = self.photos.name(index)
                self.log.tell(f"{self.found[index]} is unreadable: the image after it takes its place "
                              f"({len(self.found)} so far; at most {self.limit}, data.broken-images)", everywhere=True)
        check_broken(list(self.found.values()), self.limit)


def prepared(noise: float, state: TrainState, batch: Batch, colours: jax.Array) -> Batch:
    """Subtract the mean image from a batch of pixels and add the colour noise of the state's step."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)
    return batch._replace(images=add_colour_noise(key, subtract(batch.images, state.mean), colours, noise))


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def streamed_step(model: nn.Module, optimizer: optax.GradientTransformationExtraArgs, noise: float, state: TrainState,
                  batch: Batch, colours: jax.Array) -> tuple[TrainState, Metrics]:
    """Make a step on a batch of pixels; the metrics come with a leading axis `[1]`."""
    state, metrics = train_step(model, optimizer, state, prepared(noise, state, batch, colours))
    return state, jax.tree.map(lambda x: x[None], metrics)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def add_streamed(model: nn.Module, noise: float, state: TrainState, sums: Any, batch: Batch, colours: jax.Array) -> Any:
    """Add the batch statistics of the state's step to sums."""
    return add_statistics(model, state, sums, prepared(noise, state, batch, colours).images)
