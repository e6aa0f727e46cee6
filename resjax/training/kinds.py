"""The kinds of runs: a run is a value that names its kind, and a kind is a module that answers what is asked of runs.

Commands, tables and reports never tell kinds apart. The modules are found by name, since a kind may stand above this
room; a further one needs a line here.
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
    """A run as a value, such as `Experiment`: what every training has."""

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
    """A number by which runs of a kind are compared: its name in tables, and its key in what is measured.

    A key with a dot looks into an object: "eleven_points.cat".
    """

    title: str
    key: str
    digits: int = 2
    higher_is_better: bool = False

    def of(self, found: dict[str, Any]) -> float | None:
        """Read the number; None where it was not measured."""
        value: Any = found
        for part in self.key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value if value is None else float(value)

    def written(self, value: float | None) -> str:
        """Write a number as tables print it; nothing for none."""
        return "" if value is None else f"{value:.{self.digits}f}"


class Asked(NamedTuple):
    """What is asked of a picture: how many classes; of detectors the lowest score, and where boxes are drawn."""

    top: int = 5
    score: float = 0.5
    out: Path = Path("detections")


class Exam(NamedTuple):
    """On which images networks are measured, and how: see `Kind.measure`."""

    split: str = "test"
    how: Any = None
    batch_size: int = 128
    source: str | None = None
    directory: Path | None = None


class Seen(NamedTuple):
    """What a network makes of a picture: in words, and for each class or object the values of its kind's `FOUND`."""

    lines: list[str]
    found: list[tuple[Any, ...]]


class Kind(Protocol):
    """What is asked of the runs of a kind. `how` is a way of testing; None is that of the training."""

    VALUE: type
    NOUN: str
    MEASURES: tuple[Measure, ...]  # that result.json holds, the most important first
    FOUND: tuple[str, ...]  # the values of what is found in a picture
    CURVES: dict[str, tuple[str, str]]  # in percent, "train" first: which lines of the log, and which of their numbers

    def train(self, run: Any, run_directory: Path, devices: Sequence[Any] | None = None,
              tensorboard: Path | None = None) -> dict[str, Any]:
        """Train, or resume; return what `result.json` holds. The log goes to the folder `tensorboard` too."""
        ...

    def draw(self, run_directory: Path) -> list[Path]:
        """Draw what a finished run of this kind shows of itself; return the files."""
        ...

    def open(self, target: str, unsaid: Any = None, model: Any = None) -> Any:
        """Load a trained network; `model` is a run's own, given again."""
        ...

    def title_of(self, opened: Any) -> str:
        """Name a trained network."""
        ...

    def measure(self, opened: Sequence[Any], split: str, how: Any, batch_size: int, source: str | None,
                directory: Path | None) -> dict[str, Any]:
        """Measure networks together, on the images of their run or on others; the keys are those of `MEASURES`."""
        ...

    def examine(self, opened: Sequence[Any], exam: Exam, out: Path) -> tuple[dict[str, Any], list[list[str]]]:
        """Measure, and write what it comes to by class into the folder `out`; return the numbers, and a table."""
        ...

    def protocol_of(self, run: Any) -> Any:
        """Return the way of testing of the training."""
        ...

    def outcome(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return what `measure` would, from a run's result."""
        ...

    def name_of(self, how: Any) -> str:
        """Name a way of testing, for files."""
        ...

    def fingerprint(self, run: Any) -> str:
        """Tell the test images that a run's data name now from others, wherever they lie, and from changed ones."""
        ...

    def identity(self, run: Any) -> dict[str, Any]:
        """Tell what the images of a run are that its data name now, as `experiment.json` does."""
        ...

    def say_measured(self, found: dict[str, Any]) -> str:
        """Put into words what was measured."""
        ...

    def knows(self, opened: Any) -> str:
        """Say which classes a network tells apart."""
        ...

    def look(self, opened: Any, file: Path, asked: Asked) -> Seen:
        """Say what is in a picture. Raises BadInput where it cannot be read."""
        ...

    def explain(self, opened: Any, file: Path, of: str | None, out: Path) -> str:
        """Draw into the folder `out` what an answer rests on: the likeliest class's, or of one; say in a line of which.

        Raises BadInput where the picture cannot be read, or there is no such class.
        """
        ...

    def export(self, opened: Any, form: str, out: Path, target: Path) -> Path:
        """Write a network as others load it. Raises BadInput where nobody does."""
        ...

    def parts(self, run: Any) -> str:
        """Show the layers or parts of a run's network, with what each costs."""
        ...


def kind_named(name: str) -> Kind:
    """Return the kind of that name."""
    return cast(Kind, import_module(HOMES[name]))


def kind_of(run: Run) -> Kind:
    """Return the kind of a run."""
    return kind_named(run.kind)


def found_at(target: str | Path) -> Path:
    """Return the folder of a run or of weights, or of those that come with resjax under that name."""
    from resjax.weights.trained import find_trained  # here, so that the help is quick

    path = expanded(target)
    return path if path.exists() else find_trained(str(target)) or path


def kind_at(target: str | Path) -> Kind:
    """Return the kind of the run in a folder, or of a detector's weights; all other weights are a classifier's."""
    files = [found_at(target) / name for name in ("experiment.json", "detector.json")]
    return kind_named(next((name_in(file) for file in files if file.is_file()), "classification"))


def name_in(file: Path) -> str:
    """Read which kind of run an `experiment.json` describes. Raises BadInput where there is no such kind."""
    name = read_json(file, "kind", "experiment")["kind"]
    if not isinstance(name, str) or name not in HOMES:
        raise BadInput(f"{file}: not a run of this version of resjax (its kind is {name!r}; it is one of "
                       f"{', '.join(HOMES)})")
    return name
