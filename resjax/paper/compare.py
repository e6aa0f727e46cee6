"""Runs of one's own beside each other: mean and deviation over the seeds of each recipe, whatever the networks are."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from resjax.paper.figures import STYLES, finish, save_figure
from resjax.paper.results import spread
from resjax.paper.table import markdown
from resjax.system.errors import check
from resjax.system.files import write_json, write_text
from resjax.system.serialization import MAY_CHANGE, flatten
from resjax.training.kinds import Measure, Run, kind_of
from resjax.training.log import read_metrics
from resjax.training.records import find_runs
from resjax.training.run_directory import read_experiment, read_given, read_result

APART = {"seed", *MAY_CHANGE}  # by which seeds of one recipe may differ


class Group(NamedTuple):
    """The runs of one recipe: a folder, a run and its result, None where it is not finished, for each seed."""

    name: str
    runs: tuple[tuple[Path, Run, dict[str, Any] | None], ...]

    @property
    def first(self) -> Run:
        """The first run."""
        return self.runs[0][1]

    def values(self, measure: Measure) -> list[float]:
        """Return a measure of the finished runs."""
        found = (measure.of(result) for _, _, result in self.runs if result is not None)
        return [value for value in found if value is not None]


def compare(folder: Path, out: Path) -> list[Path]:
    """Write `compare.md`, `compare.json` and `compare.svg` about the runs in a folder into `out`; return the files.

    Raises BadInput where there is no finished run.
    """
    groups = group_runs([(run, read_experiment(run), read_result(run)) for run in find_runs(folder)])
    check(any(result for group in groups for _, _, result in group.runs), f"{folder}: none of its runs is finished")
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(group_rows(groups))
    text = f"{table}\n\nMean ± standard deviation over n seeds, after the last step.\n\n![curves](compare.svg)\n"
    files = [out / f"compare.{suffix}" for suffix in ("md", "json", "svg")]
    draw_groups(groups, files[2])
    write_json(files[1], {"rows": [as_values(group) for group in groups]})
    write_text(files[0], text)
    return files


def group_runs(runs: Sequence[tuple[Path, Run, dict[str, Any] | None]]) -> list[Group]:
    """Gather the runs that differ in their seeds alone, in the order in which they come.

    Recipes of the same name are told apart by the values by which they differ.
    """
    gathered: dict[str, list[tuple[Path, Run, dict[str, Any] | None]]] = {}
    recipes: dict[str, dict[str, Any]] = {}
    for run_directory, run, result in runs:
        values = {name: value for name, value in flatten(run).items() if name not in APART}
        values |= read_given(run_directory) or {}
        key = repr((run.kind, sorted((name, repr(value)) for name, value in values.items())))
        gathered.setdefault(key, []).append((run_directory, run, result))
        recipes[key] = values
    groups = []
    for key, some in gathered.items():
        name = some[0][1].name
        alike = [values for other, values in recipes.items() if values["name"] == name and other != key]
        own = [f"{field} {value}" for field, value in recipes[key].items()
               if any(values.get(field) != value for values in alike)]
        groups.append(Group(", ".join([name, *own]), tuple(sorted(some, key=lambda run: run[1].seed))))
    return groups


def measures_of(groups: Sequence[Group]) -> list[Measure]:
    """List the measures of the kinds of runs that are there."""
    return list(dict.fromkeys(measure for group in groups for measure in kind_of(group.first).MEASURES))


def group_rows(groups: Sequence[Group]) -> list[list[str]]:
    """Write a row for each recipe, under a head."""
    measures = measures_of(groups)
    rows = [["run", "network", "steps", *(measure.title for measure in measures), "n"]]
    for group in groups:
        finished = sum(result is not None for _, _, result in group.runs)
        rows.append([group.name, group.first.title, f"{group.first.steps:,}",
                     *(spread(measure, group.values(measure)) for measure in measures),
                     str(finished) if finished == len(group.runs) else f"{finished} of {len(group.runs)}"])
    return rows


def as_values(group: Group) -> dict[str, Any]:
    """Turn a recipe's outcome into what JSON holds."""
    found = {measure.key: group.values(measure) for measure in kind_of(group.first).MEASURES}
    return {"run": group.name, "network": group.first.title, "seeds": [run.seed for _, run, _ in group.runs],
            "measures": {key: {"values": values, "mean": statistics.fmean(values) if values else None,
                               "deviation": statistics.stdev(values) if len(values) > 1 else None}
                         for key, values in found.items()}}


def draw_groups(groups: Sequence[Group], file: Path) -> None:
    """Draw, for each recipe, the mean over the seeds of its test curve, or of its training curve, and the deviation."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for number, group in enumerate(groups):
        steps, curves, what = common_curve(group)
        if not len(steps):
            continue
        mean, style, colour = curves.mean(0), STYLES[number // 10 % len(STYLES)], f"C{number % 10}"
        axis.plot(steps, mean, linestyle=style, color=colour, label=f"{group.name}, {what} (n={len(curves)})")
        if len(curves) > 1:
            deviation = curves.std(0, ddof=1)
            axis.fill_between(steps, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
    axis.set(xlabel="iteration", ylabel="%", ylim=(0, None))
    finish(axis)
    save_figure(figure, file)
    plt.close(figure)


def common_curve(group: Group) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the steps that all runs of a group have logged, their values `[runs, steps]`, and what these are.

    The first curve that has been logged more than once: of the test images, of validation, of the training.
    """
    for name, (kind, key) in reversed(kind_of(group.first).CURVES.items()):
        logs = [{line["step"]: line[key] for line in read_metrics(run, kind)} for run, _, _ in group.runs]
        steps = sorted(set.intersection(*map(set, logs)))
        if len(steps) > 1:
            return np.array(steps), np.array([[log[step] for step in steps] for log in logs]), name
    return np.array([]), np.empty((0, 0)), ""
