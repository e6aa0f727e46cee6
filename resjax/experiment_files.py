"""Experiment files: Python files with a dictionary `EXPERIMENTS`, loaded by path."""

import difflib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from resjax.errors import BadInput
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


def load_experiments(file: Path) -> dict[str, Experiment]:
    """Return the `EXPERIMENTS` of a file. Raises BadInput where the file or the dictionary is missing."""
    experiments = getattr(load_file(file), "EXPERIMENTS", None)
    if not isinstance(experiments, dict) or not all(isinstance(e, Experiment) for e in experiments.values()):
        raise BadInput(f"{file}: it defines no EXPERIMENTS: dict[str, Experiment]")
    return experiments


def select(experiments: Mapping[str, Experiment], name: str) -> Experiment:
    """Return the experiment of that name. Raises BadInput that lists the names there are."""
    if name in experiments:
        return experiments[name]
    close = difflib.get_close_matches(name, experiments, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else "."
    raise BadInput(f"unknown experiment {name!r}{meant} There are: {', '.join(experiments)}")


def find(target: str) -> Experiment:
    """Return the experiment that `FILE:NAME` names, or that lies in the `experiment.json` of a run."""
    if target.endswith("experiment.json"):
        from resjax.training import read_experiment  # here, as `list` does without

        return read_experiment(Path(target).parent)
    file, colon, name = target.rpartition(":")
    if not colon:
        raise BadInput(f"{target}: write FILE:NAME, such as experiments/cifar10.py:resnet20")
    return select(load_experiments(Path(file)), name)
