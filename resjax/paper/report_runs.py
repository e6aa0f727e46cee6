"""The runs of a report: a row of the table for each, its details, and its curves as data for the chart."""

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from resjax.experiment import Experiment
from resjax.files import read_json
from resjax.serialization import flatten
from resjax.training import read_experiment, read_given, read_metrics, read_result

POINTS = 150  # of a curve: more than a line of this width can show
KINDS = {"train": "error", "validation": "top1_error", "test": "top1_error"}
COLUMNS = ("run", "network", "steps", "training error %", "test error %", "parameters", "images/s", "minutes", "state")


class Summary(NamedTuple):
    """A run as the report shows it: its place in the folder, what it came to, and its values by name."""

    place: str
    directory: Path
    experiment: Experiment
    result: dict[str, Any] | None
    curves: dict[str, list[tuple[int, float]]]
    values: dict[str, Any]


def summarize(run_directory: Path, folder: Path) -> Summary:
    """Read a run. Raises BadInput, or what a damaged file leads to."""
    experiment, result = read_experiment(run_directory), read_result(run_directory)
    record = read_json(run_directory / "experiment.json", "devices", "versions")
    lines = read_metrics(run_directory)
    curves = {kind: thinned([(line["step"], line[key]) for line in lines if line["kind"] == kind])
              for kind, key in KINDS.items()}
    place = run_directory.relative_to(folder) if run_directory != folder else Path(run_directory.resolve().name)
    values = {**(read_given(run_directory) or {}), **flatten(experiment), **record["devices"], **record["versions"]}
    return Summary(str(place), run_directory, experiment, result, {kind: some for kind, some in curves.items() if some},
                   {key: value for key, value in values.items() if key != "data.directory"})


def thinned(points: Sequence[tuple[int, float]], most: int = POINTS) -> list[tuple[int, float]]:
    """Keep every n-th of many points, about `most` of them, and the last always."""
    every = max(1, -(-len(points) // most))
    return [*points[:-1:every], *points[-1:]]


def network_name(experiment: Experiment) -> str:
    """Name a network as the paper does."""
    shortcut, depth = experiment.architecture.shortcut, experiment.architecture.depth
    if experiment.architecture.family == "vgg":
        return f"VGG-{depth}"
    return f"plain-{depth}" if shortcut == "plain" else f"ResNet-{depth} {shortcut}"


def row(run: Summary, number: int) -> str:
    """Write a run's row: a box that shows its curves, and cells with what they are sorted by."""
    result = run.result or {}
    training = run.curves.get("train", [(0, None)])[-1][1]
    architecture = run.experiment.architecture
    cells: list[tuple[str, Any]] = [
        (run.values.get("model") or network_name(run.experiment), f"{architecture.depth:05d} {architecture.shortcut}"),
        (f"{run.experiment.steps:,}", run.experiment.steps), number_cell(training, ".2f"),
        number_cell(result.get("test_top1_error"), ".2f"), number_cell(result.get("parameters"), ",d"),
        number_cell(result.get("images_per_second"), ",.0f"),
        number_cell(result["train_seconds"] / 60 if result else None, ",.1f"),
        ("finished" if result else "not finished", "")]
    words = escape(" ".join([run.place, *(f"{key}={value}" for key, value in run.values.items())]).lower())
    name = (f'<td data-value="{escape(run.place)}"><label><input type="checkbox" value="{number}">'
            f'<i class="line"></i><span>{escape(run.place)}</span></label></td>')
    rest = "".join(f'<td data-value="{escape(str(value))}">{escape(text)}</td>' for text, value in cells)
    return f'<tr data-run="{number}" data-words="{words}">{name}{rest}</tr>'


def number_cell(value: float | None, form: str) -> tuple[str, Any]:
    """Write a number of the table; a dash where there is none."""
    return ("-", "") if value is None else (f"{value:{form}}", value)


def details(run: Summary, number: int) -> str:
    """Write a run's command and its values, which unfold."""
    values = "".join(f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>"
                     for key, value in run.values.items())
    absolute = run.directory.resolve()
    command = shlex.join(["resjax", "train", str(absolute / "experiment.json"), "--workdir", f"{absolute}-again"])
    given = {"model", "optimizer"} & run.values.keys() or run.experiment.data.source == "arrays"
    again = "<p>Parts of this run were given in Python, which trains it.</p>" if given else copied(command)
    return (f'<section class="run" data-run="{number}"><details><summary>{escape(run.place)}</summary>{again}'
            f'<table class="values">{values}</table></details></section>')


def copied(command: str) -> str:
    """Show a command with a button that copies it."""
    return (f'<div class="command"><code>{escape(command)}</code>'
            f'<button type="button" class="copy">copy</button></div>')


def chart_data(runs: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return names and curves as the script draws them; errors to four digits."""
    return [{"name": run.place, "curves": {
        kind: [[step, float(f"{error:.4g}")] for step, error in points] for kind, points in run.curves.items()}}
        for run in runs]
