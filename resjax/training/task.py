"""The interface between the training loop and a task, that is, a network and its images."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from resjax.training.log import Line, RunningMetrics
from resjax.training.step import TrainState


class Task(Protocol):
    """A classifier or a detector in training."""

    @property
    def metrics(self) -> type[RunningMetrics]:
        """Return the class that sums the metrics between two lines of the log."""
        ...

    def first(self) -> TrainState:
        """Initialise the state on the devices."""
        ...

    def start(self, first: TrainState) -> TrainState:
        """Copy the run's pretrained weights, if any, into its initial state."""
        ...

    def describe(self) -> None:
        """Write the description of the run to its directory."""
        ...

    def inputs(self, state: TrainState, steps: range) -> AbstractContextManager[Iterator[tuple[int, Any]]]:
        """Open the calls that make up `steps`, each with its number of steps and its inputs."""
        ...

    def pack(self, state: TrainState) -> TrainState:
        """Pack a state for the steps."""
        ...

    def unpack(self, packed: TrainState) -> TrainState:
        """Undo `pack`. The next steps invalidate the result."""
        ...

    def lower(self, count: int, packed: TrainState, inputs: Any) -> Any:
        """Lower the program of `count` steps, which maps (packed, inputs) to the new packed state and metrics."""
        ...

    def average(self, state: TrainState, heed: Callable[[], None]) -> TrainState:
        """Return the state to keep after the last step. `heed` is called between steps and may raise Interrupted."""
        ...

    def prolong(self, state: TrainState) -> TrainState:
        """Return the state from which a longer run resumes, given the last state of a shorter one."""
        ...

    def measure(self, state: TrainState, last: bool) -> list[Line]:
        """Evaluate the state on held-out images. Return the lines of the log, without their step."""
        ...

    def result(self, lines: list[Line]) -> Line:
        """Return the content of `result.json` for the last evaluation."""
        ...

    @property
    def watch(self) -> Callable[[Line, TrainState], Line | None] | None:
        """Return None, or a function that is called with each training line and its state and may return a line."""
        ...
