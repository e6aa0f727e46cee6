"""Kinds of runs. A run has a field that names its kind, and each kind is a module that implements `Kind`.

Commands, tables and reports use this interface. The modules are imported by name, because they may belong to higher
layers of the package. A new kind needs a line in `HOMES`.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from resjax.experiment import Optimizer
from resjax.system.errors import BadInput
from resjax.system.files import expanded, read_json

HOMES = {"classification": "resjax.training.classifiers", "detection": "resjax.detection.detectors"}


class Run(Protocol):
    """The interface of a training run. `Experiment` implements it, for example."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def data(self) -> Any: ...
    @property
    def optimizer(self) -> Optimizer: ...
    @property
    def initialize_from(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def log_steps(self) -> int: ...
    @property
    def evaluate_steps(self) -> int: ...
    @property
    def checkpoint_steps(self) -> int: ...
    def differences(self, other: Any, /) -> list[str]: ...
    def work(self) -> float: ...


class Measure(NamedTuple):
    """A number for comparing runs of a kind, with its title in tables and its key in measurements.

    A key with a dot, such as "eleven_points.cat", refers to a nested object.
    """

    title: str
    key: str
    digits: int = 2
    higher_is_better: bool = False

    def of(self, measured: dict[str, Any]) -> float | None:
        """Return the number; None if it was not measured."""
        value: Any = measured
        for part in self.key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value if value is None else float(value)

    def written(self, value: float | None) -> str:
        """Format a number for tables; empty for None."""
        return "" if value is None else f"{value:.{self.digits}f}"


class Asked(NamedTuple):
    """Options for predictions: the number of classes or, for detectors, the minimum score and the folder for drawings.

    If `out` is None, nothing is drawn.
    """

    top: int = 5
    score: float = 0.5
    out: Path | None = None


class Exam(NamedTuple):
    """Options for evaluation, which are the arguments of `Kind.measure`."""

    split: str = "test"
    how: Any = None
    batch_size: int = 128
    source: str | None = None
    directory: Path | None = None


class Seen(NamedTuple):
    """A prediction for an image, as text lines and as values (named by `Kind.COLUMNS`) for each class or object."""

    lines: list[str]
    predictions: list[tuple[Any, ...]]


class Kind(Protocol):
    """The interface of a kind of runs. `how` is a testing protocol; None means the protocol that training uses."""

    VALUE: type
    NOUN: str
    MEASURES: tuple[Measure, ...]  # as in result.json, the most important first
    COLUMNS: tuple[str, ...]  # names of the values per prediction
    CURVES: dict[str, tuple[str, str]]  # curves in percent, "train" first, by kind of log line and key

    def train(self, run: Any, run_directory: Path, devices: Sequence[Any] | None = None,
              tensorboard: Path | None = None) -> dict[str, Any]:
        """Train or resume; return the contents of `result.json`. `tensorboard` is a folder for event files."""
        ...

    def draw(self, run_directory: Path) -> list[Path]:
        """Draw the figures of a finished run; return the files."""
        ...

    def open(self, target: str, unsaid: Any = None, model: Any = None) -> Any:
        """Load a trained network; `model` is a run's custom network."""
        ...

    def title_of(self, opened: Any) -> str:
        """Return the name of a trained network."""
        ...

    def measure(self, opened: Sequence[Any], split: str, how: Any, batch_size: int, source: str | None,
                directory: Path | None) -> dict[str, Any]:
        """Measure networks together, on the images of their run or on others. The result has the keys of `MEASURES`."""
        ...

    def examine(self, opened: Sequence[Any], exam: Exam,
                out: Path) -> tuple[dict[str, Any], list[list[str]], list[Path]]:
        """Measure results by class and write them to the folder `out`. Return the numbers, a table and the files."""
        ...

    def protocol_of(self, run: Any) -> Any:
        """Return the protocol that the training uses."""
        ...

    def outcome(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return what `measure` would return, from a run's result."""
        ...

    def name_of(self, how: Any) -> str:
        """Return the name of a protocol, for file names."""
        ...

    def fingerprint(self, run: Any) -> str:
        """Identify the test images that a run's data currently refer to, by their contents, not their location."""
        ...

    def identity(self, run: Any) -> dict[str, Any]:
        """Describe the images that a run's data currently refer to, in the form of `experiment.json`."""
        ...

    def say_measured(self, measured: dict[str, Any]) -> str:
        """Describe measurements in words."""
        ...

    def knows(self, opened: Any) -> str:
        """Describe the classes of a network."""
        ...

    def look(self, opened: Any, file: Path, asked: Asked) -> Seen:
        """Predict the contents of an image file. Raises BadInput if the file cannot be read."""
        ...

    def explain(self, opened: Any, file: Path, of: str | None, out: Path) -> str:
        """Draw the saliency map of a class, by default the most likely one, to `out`. Return a line with its name.

        Raises BadInput if the image cannot be read or there is no such class.
        """
        ...

    def export(self, opened: Any, form: str, out: Path, target: Path) -> Path:
        """Export a network in another library's format. Raises BadInput if the format cannot represent the network."""
        ...

    def parts(self, run: Any) -> str:
        """List the layers or parts of a run's network with their costs."""
        ...


def kind_named(name: str) -> Kind:
    """Return the kind with this name."""
    return cast(Kind, import_module(HOMES[name]))


def kind_of(run: Run) -> Kind:
    """Return the kind of a run."""
    return kind_named(run.kind)


def folder_of(target: str | Path) -> Path:
    """Return the folder of a run or of weights, including those that come with resjax."""
    from resjax.weights.trained import find_trained  # imported here, so that the help is fast

    path = expanded(target)
    return path if path.exists() else find_trained(str(target)) or path


def kind_at(target: str | Path) -> Kind:
    """Return the kind of the run or of the detector's weights in a folder. All other weights belong to a classifier."""
    files = [folder_of(target) / name for name in ("experiment.json", "detector.json")]
    return kind_named(next((name_in(file) for file in files if file.is_file()), "classification"))


def name_in(file: Path) -> str:
    """Return the kind of run that an `experiment.json` describes. Raises BadInput for an unknown kind."""
    name = read_json(file, "kind", "experiment")["kind"]
    if not isinstance(name, str) or name not in HOMES:
        raise BadInput(f"{file}: not a run of this version of resjax (its kind is {name!r}; it must be one of "
                       f"{', '.join(HOMES)})")
    return name
