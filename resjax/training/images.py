"""The source of training images, which are in memory or streamed."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from resjax.data import Dataset, load_data
from resjax.data.index import is_divided
from resjax.evaluation import ErrorRates
from resjax.evaluation.error_rates import same_source
from resjax.experiment import Experiment, Photographs
from resjax.network import Classifier
from resjax.system.errors import check
from resjax.system.files import expanded
from resjax.training.in_memory import in_memory
from resjax.training.kinds import kind_of
from resjax.training.log import Log
from resjax.training.run_directory import check_images, read_experiment
from resjax.training.streaming import open_streaming


class TrainingImages(Protocol):
    """Images in memory or streamed. The mean training image, `mean`, is on the host."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def mean(self) -> np.ndarray: ...

    def identity(self) -> dict[str, Any]:
        """Describe the images independently of their location."""
        ...

    @property
    def batch(self) -> Any:
        """A pure function from (state, inputs) to the `Batch` of the state's step. Equal runs have equal functions."""
        ...

    def inputs(self, key: jax.Array, steps: range) -> AbstractContextManager[Iterator[tuple[int, Any]]]:
        """Open the calls that make up `steps`, each with its number of steps and its argument for `batch`."""
        ...

    @property
    def splits(self) -> Sequence[str]:
        """The splits with images that are not trained on."""
        ...

    def errors(self, classifier: Classifier, split: str) -> ErrorRates:
        """Measure the errors on one of the `splits`."""
        ...


def open_images(experiment: Experiment, devices: Sequence[jax.Device], log: Log,
                arrays: Dataset | None = None) -> TrainingImages:
    """Open the images of an experiment, or the given images. Raises BadInput, naming the invalid folder or file."""
    if isinstance(experiment.data, Photographs):
        return open_streaming(experiment, experiment.data, devices, log)
    dataset = arrays or load_data(experiment.data)
    std, channels = experiment.data.std, dataset.train.pixels.shape[-1]
    check(len(std) in (0, channels), f"data.std has {len(std)} values, but the images have {channels} channels")
    log.tell(dataset.remark)
    return in_memory(experiment, dataset, devices)


def check_held_out(target: str | Path, split: str, source: str | None = None) -> None:
    """Raise BadInput if a run's folder has changed, and with it the choice of images that are held out from training.

    Test images are chosen from all images of a folder without splits, and validation images from the training images.
    `source` are the images to evaluate, if they are not the run's. Weights without a run, and images other than the
    run's, are not checked.
    """
    if not (run_directory := expanded(target)).joinpath("experiment.json").is_file():
        return
    run = read_experiment(run_directory)
    chosen = is_divided(run.data.source) or (split == "validation" and run.data.source.startswith("folder:"))
    if chosen and (source is None or same_source(source, run.data.source)):
        check_images(run_directory, kind_of(run).identity(run))
