"""The file that says what a detector's folder holds: `detection.json`, beside checkpoints, metrics and result."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resjax.detection.config import Detection
from resjax.errors import BadInput, check
from resjax.files import read_json, write_json
from resjax.serialization import check_value, convert, from_json, to_json
from resjax.training.run_directory import environment

FILE = "detection.json"


def read_detection(folder: Path) -> tuple[Detection, tuple[str, ...]]:
    """Read a run and its classes. Raises BadInput where there is none."""
    file = folder / FILE
    check(file.is_file(), f"{folder}: no detector lies there (it has no {FILE})")
    content = read_json(file, "detection", "classes")
    try:
        classes = convert(content["classes"], tuple[str, ...])
        check_value("classes", classes, tuple[str, ...])
        return from_json(content["detection"], Detection), classes
    except BadInput as error:
        raise BadInput(f"{file}: not a detector of this version of resjax ({error})") from None


def read_finished(folder: Path) -> dict[str, Any] | None:
    """Read a finished run's result; None where it is not finished. Raises BadInput where it is damaged."""
    file = folder / "result.json"
    return read_json(file, "name", "steps", "mean_average_precision", "state_digest") if file.exists() else None


def check_same_run(folder: Path, detection: Detection) -> None:
    """Raise BadInput where a folder holds another run."""
    check(not (folder / "experiment.json").exists(),
          f"{folder} holds the run of a classifier; choose another --workdir")
    if (folder / FILE).exists():
        differences = read_detection(folder)[0].differences(detection)
        check(not differences, f"{folder} belongs to another run: there {'; '.join(differences)}. "
                               "Choose another --workdir, or remove that one")


def write_detection(folder: Path, detection: Detection, classes: Sequence[str], devices: Any) -> None:
    """Write the run, its classes, and what it runs on."""
    write_json(folder / FILE, {"detection": to_json(detection), "classes": classes, **environment(devices)})
