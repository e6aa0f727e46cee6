"""What gives the training its images: the only place that asks whether they lie in memory or are streamed."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import jax
import numpy as np

from resjax.data import Dataset, load_data
from resjax.evaluation import ErrorRates
from resjax.experiment import Experiment, Photographs
from resjax.network import Classifier
from resjax.training.in_memory import in_memory
from resjax.training.log import Log
from resjax.training.streaming import open_streaming


class TrainingImages(Protocol):
    """Images in memory or streamed. `mean`, the mean training image, lies on the host."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def mean(self) -> np.ndarray: ...

    def identity(self) -> dict[str, Any]:
        """Tell what the images are, wherever they lie."""
        ...

    @property
    def batch(self) -> Any:
        """Makes the `Batch` of the state's step of (state, inputs): pure, and the same value for the same run."""
        ...

    def inputs(self, key: jax.Array, steps: range) -> AbstractContextManager[Iterator[tuple[int, Any]]]:
        """Open the calls that make up `steps`: for each the number of steps that it makes, and what `batch` takes."""
        ...

    def errors(self, classifier: Classifier, split: str) -> ErrorRates | None:
        """Measure the errors on a split; None where it holds no images."""
        ...


def open_images(experiment: Experiment, devices: Sequence[jax.Device], log: Log,
                given: Dataset | None = None) -> TrainingImages:
    """Open the images of an experiment, or those given. Raises BadInput, naming the folder or file that is wrong."""
    if isinstance(experiment.data, Photographs):
        return open_streaming(experiment, experiment.data, devices, log)
    dataset = given or load_data(experiment.data)
    log.tell(dataset.remark)
    return in_memory(experiment, dataset, devices)
