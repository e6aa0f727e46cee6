"""Experiment files: Python files with a dictionary `EXPERIMENTS`, loaded by path."""

import difflib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from resjax.errors import BadInput, check
from resjax.experiment import Experiment


def load_file(file: Path) -> ModuleType:
    """Run an experiment file and return what it defines. Raises BadInput where it is missing."""
    if file.suffix != ".py" or not file.is_file():
        raise BadInput(f"{file}: no such experiment file; it is a Python file such as experiments/cifar10.py")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_runs(file: Path) -> dict[str, Any]:
    """Return the `EXPERIMENTS` of a file, of classifiers or detectors. Raises BadInput where there are none."""
    runs = getattr(load_file(file), "EXPERIMENTS", None)
    if not isinstance(runs, dict) or not all(hasattr(run, "differences") for run in runs.values()):
        raise BadInput(f"{file}: it defines no EXPERIMENTS: dict[str, Experiment]")
    return runs


def load_experiments(file: Path) -> dict[str, Experiment]:
    """Return the `EXPERIMENTS` of a file of classifiers. Raises BadInput where there are none."""
    experiments = load_runs(file)
    check(all(isinstance(run, Experiment) for run in experiments.values()),
          f"{file}: it defines no EXPERIMENTS: dict[str, Experiment]")
    return experiments


def select(experiments: Mapping[str, Any], name: str) -> Any:
    """Return the experiment of that name. Raises BadInput that lists the names there are."""
    if name in experiments:
        return experiments[name]
    close = difflib.get_close_matches(name, experiments, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    raise BadInput(f"unknown experiment {name!r}{meant} There are: {', '.join(experiments)}")


def find(target: str) -> Any:
    """Return the run that `FILE:NAME` names, of a classifier or a detector, or that a run directory describes."""
    if target.endswith("experiment.json"):
        from resjax.training import read_experiment  # here, as `list` does without

        return read_experiment(Path(target).parent)
    file, colon, name = target.rpartition(":")
    if not colon:
        raise BadInput(f"{target}: write FILE:NAME, such as experiments/cifar10.py:resnet20")
    return select(load_runs(Path(file)), name)
