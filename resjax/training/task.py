"""What a run learns, and from which images: all that the loop does not know of it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from resjax.training.log import Line, RunningMetrics
from resjax.training.step import TrainState


class Task(Protocol):
    """A classifier, or a detector, that learns."""

    @property
    def metrics(self) -> type[RunningMetrics]:
        """Return what sums up the metrics of the steps between two lines of the log."""
        ...

    def first(self) -> TrainState:
        """Draw the first state onto the devices."""
        ...

    def start(self, first: TrainState) -> TrainState:
        """Put the weights that the run starts from, if any, into its first state."""
        ...

    def describe(self) -> None:
        """Write into the run directory what the run is."""
        ...

    def inputs(self, state: TrainState, steps: range) -> AbstractContextManager[Iterator[tuple[int, Any]]]:
        """Open the calls that make up `steps`: for each the number of steps that it makes, and its inputs."""
        ...

    def pack(self, state: TrainState) -> TrainState:
        """Lay a state out as the steps take and return it."""
        ...

    def unpack(self, packed: TrainState) -> TrainState:
        """Undo `pack`; what it returns is gone with the next steps."""
        ...

    def lower(self, count: int, packed: TrainState, inputs: Any) -> Any:
        """Lower the program of `count` steps: (packed, inputs) to the packed state after them and their metrics."""
        ...

    def average(self, state: TrainState, heed: Callable[[], None]) -> TrainState:
        """Return what is kept of the last state. Calls `heed`, which may raise Interrupted, between its steps."""
        ...

    def prolong(self, state: TrainState) -> TrainState:
        """Return the state that training resumes from, where the last of a shorter run is to be made longer."""
        ...

    def measure(self, state: TrainState, last: bool) -> list[Line]:
        """Measure the state on images that it does not learn from: the lines of the log, without their step."""
        ...

    def result(self, lines: list[Line]) -> Line:
        """Return what `result.json` holds of the last measurement."""
        ...

    @property
    def watch(self) -> Callable[[Line, TrainState], Line | None] | None:
        """Return what is to see each training line of the log with its state, and may return a line; or None."""
        ...
