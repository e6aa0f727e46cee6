"""The file that says what a detector's folder holds: `detection.json`, beside checkpoints, metrics and result."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resjax.detection.config import Detection
from resjax.errors import BadInput, check
from resjax.files import write_json
from resjax.serialization import from_json, to_json
from resjax.training.run_directory import environment

FILE = "detection.json"


def read_detection(folder: Path) -> tuple[Detection, tuple[str, ...]]:
    """Read a run and its classes. Raises BadInput where there is none."""
    file = folder / FILE
    try:
        content = json.loads(file.read_text())
        return from_json(content["detection"], Detection), tuple(content["classes"])
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{folder}: no detector lies there (it has no {FILE})") from None
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, BadInput) as error:
        raise BadInput(f"{file}: not a detector of this version of resjax ({error})") from None


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
