"""What the runs of one experiment share, and what gives them their images."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import optax
from flax import linen as nn
from jax.sharding import NamedSharding

from resjax.evaluation import Errors
from resjax.experiment import Experiment
from resjax.training.log import Log
from resjax.training.state import TrainState
from resjax.training.step import Metrics


class Setting(NamedTuple):
    """What does not change, and is the same for all seeds. `sharding` splits a batch over the devices."""

    experiment: Experiment
    model: nn.Module
    optimizer: optax.GradientTransformationExtraArgs
    sharding: NamedSharding


class Call(NamedTuple):
    """What a call of the compiled steps has brought: for every run its state and its metrics `[count]`; the seconds it
    took, and of them those that the devices waited for data.
    """

    states: Sequence[TrainState]
    metrics: Sequence[Metrics]
    seconds: float
    waited: float


class Feed(Protocol):
    """Gives the compiled steps their images: `Resident` or `Streamed`.

    `mean`, the mean training image, lies on the host: every state has its own, which is donated with it.
    """

    setting: Setting
    classes: tuple[str, ...]
    mean: np.ndarray

    def steps(self, states: Sequence[TrainState], log: Log) -> Iterator[Call]:
        """Make the steps that are left; compiling is timed apart.

        The states that were yielded are gone after the next call: their memory is used again.
        """
        ...

    def true_average(self, state: TrainState) -> Any:
        """Return the batch statistics to evaluate with (section 3.4)."""
        ...

    def errors(self, state: TrainState, split: str) -> Errors | None:
        """Measure the errors on a split; None where it holds no images."""
        ...
