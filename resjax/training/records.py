"""Reads all runs in a folder and returns a record of each, for tables."""

import os
from pathlib import Path
from typing import Any

from resjax.system.errors import check
from resjax.system.files import expanded
from resjax.system.serialization import flatten
from resjax.training.kinds import Run, kind_of
from resjax.training.log import read_metrics
from resjax.training.run_directory import finished_result, read_descriptions, read_experiment

INSTEAD = {"model": "architecture.", "optimizer": "optimizer."}  # fields that a Python object replaces
OUTCOME = ("parameters", "train_seconds", "images_per_second")


def find_runs(folder: str | Path) -> list[Path]:
    """List the run directories in a folder, also behind symbolic links. Raises BadInput if there are none."""
    folder, seen, run_directories = expanded(folder), set[Path](), []
    for name, folders, files in os.walk(folder, followlinks=True) if folder.exists() else ():
        folders.sort()
        place, target = Path(name), Path(name).resolve()
        if target in seen:
            folders.clear()  # a link to a folder that was visited before, possibly its own parent
        elif "experiment.json" in (*folders, *files):  # a damaged run may have a folder of this name
            run_directories.append(place)
        seen.add(target)
    run_directories.sort()
    check(bool(run_directories), f"{folder}: no runs found (no folder in it contains an experiment.json)")
    return run_directories


def runs(folder: str | Path) -> list[dict[str, Any]]:
    """List the runs in a folder as flat records with the same keys, for `pandas.DataFrame(resjax.runs("runs"))`.

    A record has the run's path relative to the folder, and the fields in which the runs differ. A field that the run
    does not have is None. The record also has the current step, the last logged training loss and error (in percent),
    and the results, which are None unless the run is finished. Raises BadInput if there is no run or, naming the file,
    if a run is damaged.
    """
    folder = expanded(folder)
    places = find_runs(folder)
    experiments = [read_experiment(run) for run in places]
    results = [finished_result(*run) or {} for run in zip(places, experiments, strict=True)]
    measured = dict.fromkeys(measure.key for each in experiments for place, measure in enumerate(kind_of(each).MEASURES)
                             if not place or any(measure.of(result) is not None for result in results))
    values = [values_of(run, each) for run, each in zip(places, experiments, strict=True)]
    names = dict.fromkeys(name for some in values for name in some)
    differing = [name for name in names if len({some.get(name) for some in values}) > 1]
    return [{"run": str(run.relative_to(folder)), **{name: some.get(name) for name in differing},
             **run_status(run, result, (*measured, *OUTCOME))}
            for run, some, result in zip(places, values, results, strict=True)]


def values_of(run_directory: Path, experiment: Run) -> dict[str, Any]:
    """List a run's fields by name, with its network's name, and Python objects instead of the fields they replace."""
    descriptions = read_descriptions(run_directory) or {}
    values = {"network": descriptions.get("model", experiment.title), **descriptions, **flatten(experiment)}
    without = ("model", "data.directory", *(values for part, values in INSTEAD.items() if part in descriptions))
    return {name: value for name, value in values.items() if not name.startswith(without)}


def run_status(run_directory: Path, result: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the progress of a run, and its results."""
    lines = read_metrics(run_directory, "train")
    last = lines[-1] if lines else {}
    return {"step": last.get("step", 0), "loss": last.get("loss"), "error": last.get("error"),
            **{name: result.get(name) for name in names}}
