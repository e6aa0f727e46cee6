"""Trains on photographs. Worker processes decode batches ahead of time. Each call of the program runs one step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from resjax.data import (
    Batch,
    HostBatch,
    ImageSet,
    Statistics,
    add_colour_noise,
    check_broken,
    find_images,
    measure_statistics,
    normalize,
    training_batches,
)
from resjax.evaluation import ErrorRates, error_rates, log_probabilities_of_views, views_of
from resjax.experiment import Experiment, Photographs
from resjax.network import Classifier
from resjax.system.distributed import batch_sharding, broadcast_from_first, is_first
from resjax.training.log import Log
from resjax.training.step import TrainState


class StreamedInputs(NamedTuple):
    """The inputs of a step besides the state: a batch of pixels, and the principal components of the colours."""

    pixels: Batch
    colours: np.ndarray


@dataclass(frozen=True)
class StreamedBatch:
    """Normalises a batch of pixels and adds the colour noise of the state's step (section 3.4)."""

    colour_noise: float
    std: tuple[float, ...]

    def __call__(self, state: TrainState, inputs: StreamedInputs) -> Batch:
        key = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.step)
        centred = normalize(inputs.pixels.images, state.mean)
        noisy = add_colour_noise(key, centred, jnp.asarray(inputs.colours), self.colour_noise)
        return Batch(normalize(noisy, 0, self.std), inputs.pixels.labels)


@dataclass(frozen=True)
class Streaming:
    """A set of photographs, with one step per call. Every host reads its own share of a batch."""

    data: Photographs
    images: ImageSet
    statistics: Statistics
    batch: StreamedBatch
    batch_size: int
    sharding: NamedSharding
    log: Log

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names."""
        return self.images.classes

    @property
    def mean(self) -> np.ndarray:
        """Return the mean image."""
        return self.statistics.mean

    def identity(self) -> dict[str, Any]:
        """Describe the images independently of their location."""
        return self.images.identity()

    @contextmanager
    def inputs(self, key: jax.Array, steps: range) -> Iterator[Iterator[tuple[int, StreamedInputs]]]:
        """Open the batches of some steps. Unreadable images are reported. Raises BadInput if there are too many.

        Each batch is copied to the devices while they compute the previous step.
        """
        seeds = jax.random.bits(jax.random.fold_in(key, 0), (2,), jnp.uint32).tolist()
        broken: dict[int, str] = {}

        def place(host: HostBatch) -> tuple[int, StreamedInputs]:
            self.report_broken(host, broken)
            pixels, labels = (jax.make_array_from_process_local_data(self.sharding, part)
                              for part in (host.pixels, host.labels))
            return 1, StreamedInputs(Batch(pixels, labels), self.statistics.colours)

        with training_batches(self.images.train, self.data, seeds, self.batch_size, steps,
                              (jax.process_index(), jax.process_count())) as hosts:
            yield map(place, hosts)

    def report_broken(self, host: HostBatch, broken: dict[int, str]) -> None:
        """Report every unreadable image once. Raises BadInput if there are too many."""
        for index in host.broken[host.broken >= 0].tolist():
            if index not in broken:
                broken[index] = self.images.train.name(index)
                self.log.tell(f"{broken[index]} is unreadable; using the next image instead ({len(broken)} so far; "
                              f"data.broken-images allows {self.data.broken_images})", any_process=True)
        check_broken(list(broken.values()), self.data.broken_images)

    splits = ("test",)

    def errors(self, classifier: Classifier, split: str) -> ErrorRates:
        """Measure the errors on the centre crops of the test images."""
        views = views_of("single", classifier.preprocessing)
        seen = log_probabilities_of_views(classifier, self.images.test, views, self.batch_size, self.sharding,
                                          self.data.workers)
        return error_rates(seen, self.images.test.labels)


def open_streaming(experiment: Experiment, data: Photographs, devices: Sequence[jax.Device], log: Log) -> Streaming:
    """Find the photographs. The first process measures their statistics and broadcasts them to the others."""
    images = find_images(data)
    log.tell(images.remark)
    if is_first():
        images.test.check_headers()  # check now rather than at the end of the run
    measured = (measure_statistics(images.train, data) if is_first() else
                Statistics(np.zeros((data.size, data.size, 3), np.float32), np.zeros((3, 3), np.float32)))
    return Streaming(data, images, Statistics(*map(broadcast_from_first, measured)),
                     StreamedBatch(data.colour_noise, data.std), experiment.batch_size, batch_sharding(devices), log)
