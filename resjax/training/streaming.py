"""Photographs come in batches from processes that decode them, and are on the devices before they are needed."""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from resjax.data import Batch, add_colour_noise, subtract
from resjax.evaluation import Errors, class_probabilities, errors_of, views_of
from resjax.experiment import Experiment, Photographs
from resjax.photographs import (
    HostBatch,
    PhotoSet,
    Statistics,
    check_broken,
    find_photographs,
    measure_statistics,
    training_batches,
)
from resjax.processes import batch_sharding, is_first, told_by_first
from resjax.training.log import Log
from resjax.training.state import TrainState

AHEAD = 2  # batches on the devices before they are needed


class StreamedInputs(NamedTuple):
    """What a step needs beside the state: a batch of pixels, and the principal components of the colours."""

    pixels: Batch
    colours: jax.Array


@dataclass(frozen=True)
class StreamedBatch:
    """Subtracts the mean image from a batch of pixels and adds the colour noise of the state's step (section 3.4)."""

    colour_noise: float

    def __call__(self, state: TrainState, inputs: StreamedInputs) -> Batch:
        key = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)
        images = subtract(inputs.pixels.images, state.mean)
        return inputs.pixels._replace(images=add_colour_noise(key, images, inputs.colours, self.colour_noise))


@dataclass(frozen=True)
class Streaming:
    """A set of photographs, one step a call; every host reads its own share of a batch."""

    data: Photographs
    photos: PhotoSet
    statistics: Statistics
    batch: StreamedBatch
    batch_size: int
    sharding: NamedSharding
    log: Log

    @property
    def classes(self) -> tuple[str, ...]:
        """Name the classes."""
        return self.photos.classes

    @property
    def mean(self) -> np.ndarray:
        """Return the mean image."""
        return self.statistics.mean

    @contextmanager
    def inputs(self, key: jax.Array, steps: range) -> Iterator[Iterator[tuple[int, StreamedInputs]]]:
        """Open the batches of some steps, on the devices; an unreadable image is named, and too many are BadInput."""
        def place(host: HostBatch) -> tuple[HostBatch, Batch]:
            pixels, labels = (jax.make_array_from_process_local_data(self.sharding, part)
                              for part in (host.pixels, host.labels))
            return host, Batch(pixels, labels)

        seeds = jax.random.bits(jax.random.fold_in(key, 0), (2,), jnp.uint32).tolist()
        broken: dict[int, str] = {}

        def checked(host: HostBatch, batch: Batch) -> tuple[int, StreamedInputs]:
            self.tell_broken(host, broken)
            return 1, StreamedInputs(batch, self.statistics.colours)

        with (training_batches(self.photos.train, self.data, seeds, self.batch_size, steps, jax.process_index(),
                               jax.process_count()) as hosts, ahead(map(place, hosts)) as placed):
            yield (checked(*pair) for pair in placed)

    def tell_broken(self, host: HostBatch, broken: dict[int, str]) -> None:
        """Name every unreadable image once. Raises BadInput where there are too many."""
        for index in host.broken[host.broken >= 0].tolist():
            if index not in broken:
                broken[index] = self.photos.train.name(index)
                self.log.tell(f"{broken[index]} is unreadable: the image after it takes its place ({len(broken)} so "
                              f"far; at most {self.data.broken_images}, data.broken-images)", everywhere=True)
        check_broken(list(broken.values()), self.data.broken_images)

    def errors(self, model: Any, variables: Any, mean: jax.Array, split: str) -> Errors | None:
        """Measure the errors on the centre crop of the test images; nothing is held out for validation."""
        if split != "test":
            return None
        probabilities = class_probabilities(model, variables, mean, self.photos.test, views_of("single", self.data),
                                            self.batch_size, self.sharding, self.data.workers)
        return errors_of(probabilities, self.photos.test.labels)


def open_streaming(experiment: Experiment, data: Photographs, devices: Sequence[jax.Device], log: Log) -> Streaming:
    """Find the photographs; the first process measures their statistics, and the others hear of them."""
    photos = find_photographs(data)
    measured = (measure_statistics(photos, data) if is_first() else
                Statistics(np.zeros((data.size, data.size, 3), np.float32), np.zeros((3, 3), np.float32)))
    return Streaming(data, photos, Statistics(*map(told_by_first, measured)), StreamedBatch(data.colour_noise),
                     experiment.batch_size, batch_sharding(devices), log)


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
