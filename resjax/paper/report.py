"""Writes an HTML report on a folder of runs, with a table of the runs, their curves, and the paper's tables.

The page needs neither a network connection nor other files. Without JavaScript, the interactive chart is missing, and
the table of runs cannot be sorted or filtered.
"""

import base64
import hashlib
import io
import json
import shlex
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from resjax.paper.comparison import Comparison, group_rows, group_runs
from resjax.paper.run_curves import Curves, curves_in, last_before, quantities
from resjax.system.errors import BadInput
from resjax.system.files import read_json, write_text
from resjax.system.terminal import quoted
from resjax.training.kinds import Measure, Run, kind_of
from resjax.training.log import read_metrics
from resjax.training.records import find_runs, values_of
from resjax.training.run_directory import finished_result, read_descriptions, read_experiment

ASSETS = Path(__file__).parent
DAMAGE = (BadInput, KeyError, TypeError, ValueError, OverflowError, AttributeError, OSError)


class Summary(NamedTuple):
    """A run in the report, with its path in the folder, its results, and its values by name.

    `step` and `training_error` are from the last training line of the log or, for a finished run, from its result.
    """

    place: str
    directory: Path
    experiment: Run
    result: dict[str, Any] | None
    curves: Curves
    values: dict[str, Any]
    step: int
    training_error: float | None


def write_report(folder: Path, file: Path) -> None:
    """Write a report of all runs in a folder, and of the tables that `reproduce` wrote there.

    Raises BadInput if the folder holds no run.
    """
    run_directories = find_runs(folder)
    runs, damaged = read_runs(run_directories, folder)
    finished = sum(run.result is not None for run in runs)
    script, style = ((ASSETS / name).read_text("utf-8") for name in ("report.js", "report.css"))
    name = folder.resolve().name
    measures = list(dict.fromkeys(kind_of(run.experiment).MEASURES[0] for run in runs))
    numbers = ("steps", "training error %", *(measure.title for measure in measures), "parameters", "images/s",
               "minutes")
    head = [sortable_heading("run"), sortable_heading("network"),
            *(sortable_heading(each, ' class="number"') for each in numbers), sortable_heading("state")]
    whole = Template((ASSETS / "report.html").read_text("utf-8")).substitute(
        title=escape(name), style=style, script=script, script_digest=csp_hash(script),
        count=f"{len(run_directories)} runs, {finished} of them finished",
        tables="\n".join(shown_or_named(table_section, table, folder) for table in sorted(folder.glob("table*.json"))),
        seeds=comparison_section(runs), head="".join(head), damaged="\n".join(damaged),
        rows="\n".join(html_row(run, number, measures) for number, run in enumerate(runs)),
        details="\n".join(details(run, number) for number, run in enumerate(runs)),
        data=json.dumps({"quantities": quantities([run.curves for run in runs]), "runs": chart_data(runs)},
                        separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, whole)


def csp_hash(content: str) -> str:
    """Return the hash of a string for the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def sortable_heading(column: str, kind: str = "") -> str:
    """Write a column heading that sorts the table when clicked."""
    return f'<th scope="col"{kind}><button type="button">{column}</button></th>'


def read_runs(run_directories: list[Path], folder: Path) -> tuple[list[Summary], list[str]]:
    """Read the runs. Return an error message for each damaged run, so that the other runs can be shown."""
    runs, damaged = [], []
    for run_directory in run_directories:
        try:
            runs.append(summarize_run(run_directory, folder))
        except DAMAGE as error:
            damaged.append(error_section(run_directory, error))
    return runs, damaged


def shown_or_named(make: Callable[[Path, Path], str], path: Path, folder: Path) -> str:
    """Write a section or, if its files are damaged, an error message, so that the other sections are shown."""
    try:
        return make(path, folder)
    except DAMAGE as error:
        return error_section(path, error)


def error_section(path: Path, error: Exception) -> str:
    """Describe what is wrong with a file or a run."""
    reason = str(error) if isinstance(error, BadInput) else f"damaged ({type(error).__name__}: {error})"
    return f'<section><h3>{escape(str(path))}</h3><p class="warning">{escape(reason)}</p></section>'


def table_section(file: Path, folder: Path) -> str:
    """Write a table and its figures from what `reproduce` saved in a folder."""
    values = read_json(file, "title", "protocol", "scale", "rows", "figures", "command")
    shortened = values["scale"] != 1
    head = "".join(f"<th>{name}</th>" for name in ("network", "parameters", "paper", "ours", "n", "training", "claim"))
    rows = "\n".join(table_row(row, shortened) for row in values["rows"])
    warning = (f'<p class="warning">Shortened to {values["scale"]:g} of the schedule: not a reproduction.</p>'
               if shortened else "")
    figures = "\n".join(figure(drawn, folder) for drawn in values["figures"])
    titles = [measure["title"] for row in values["rows"][:1] for measure in row["measures"]]
    several = f", of {' / '.join(titles)}" if len(titles) > 1 else ""
    command = f"{values['command']} --runs {quoted(folder.resolve())}"
    return (f"<h2>{escape(values['title'])}</h2>{warning}"
            f"<p>{escape(values['protocol'])}; mean ± standard deviation over n seeds{escape(several)}.</p>"
            f'<div class="scroll"><table class="paper"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
            f"</div>{copied(command)}{figures}")


def table_row(row: dict[str, Any], shortened: bool) -> str:
    """Write a row with the paper's numbers, our numbers, and whether the paper's claim holds."""
    label = f" <small>{row['steps']:,} steps</small>" if shortened else ""
    training = sum(row["training_errors"]) / len(row["training_errors"])
    measures = row["measures"]
    paper, ours = (" / ".join(measure[whose] or "-" for measure in measures) for whose in ("paper", "ours"))
    cells = (escape(row["title"]), f"{row['parameters']:,}", escape(paper), f"<b>{escape(ours)}</b>{label}",
             str(len(measures[0]["values"])), f"{training:.2f}{label}", mark(row["holds"], row["verdict"]))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def comparison_section(runs: Sequence[Summary]) -> str:
    """Write the comparison of recipes over their seeds, with mean curves, if there are several runs."""
    groups = group_runs([(run.directory, run.experiment, run.result) for run in runs])
    if len(runs) < 2 or not any(group.finished for group in groups):
        return ""
    head, *rows = group_rows(groups)
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    comparison, drawing = Comparison(tuple(groups)), io.BytesIO()
    comparison.draw(drawing)
    svg = drawing.getvalue().decode()
    return (f'<h2>Comparison</h2><p>{escape(comparison.note())}</p><div class="scroll"><table '
            f'class="paper wide"><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'
            f'<figure><div class="scroll">{svg[svg.index("<svg"):]}</div></figure>')


def figure(drawn: dict[str, Any], folder: Path) -> str:
    """Write a figure, with its drawing inline, and its claims."""
    svg = (folder / Path(drawn["file"]).name).read_text("utf-8")
    claims = "".join(f"<li>{mark(holds, claim)}</li>" for claim, holds in drawn["claims"])
    return (f'<figure><div class="scroll">{svg[svg.index("<svg"):]}</div>'
            f'<figcaption>{escape(drawn["title"])}</figcaption></figure><ul class="claims">{claims}</ul>')


def mark(holds: bool | None, text: str) -> str:
    """Mark a claim as holding, failing or (None) too early to judge, by a sign as well as by colour."""
    if holds is None:
        return escape(text)
    return f'<span class="{"holds" if holds else "fails"}">{"✓" if holds else "✗"} {escape(text)}</span>'


def summarize_run(run_directory: Path, folder: Path) -> Summary:
    """Read a run. Raises BadInput, or other errors for damaged files."""
    experiment = read_experiment(run_directory)
    result = finished_result(run_directory, experiment)
    record = read_json(run_directory / "experiment.json", "devices", "versions")
    lines = read_metrics(run_directory)
    place = run_directory.relative_to(folder) if run_directory != folder else Path(run_directory.resolve().name)
    last = last_before(lines, None if result is None else result["steps"])
    values = {**values_of(run_directory, experiment), **record["devices"], **record["versions"]}
    return Summary(str(place), run_directory, experiment, result, curves_in(lines), values, last.get("step", 0),
                   last.get("error"))


def html_row(run: Summary, number: int, measures: Sequence[Measure]) -> str:
    """Write a run's row, with a checkbox for its curves, and cells with their sort keys."""
    result, name = run.result or {}, str(run.values["network"])
    pace = result.get("images_per_second")
    cells: list[tuple[str, Any]] = [
        (name, name), (f"{run.experiment.steps:,}", run.experiment.steps), number_cell(run.training_error, ".2f"),
        *(number_cell(measure.of(result), f".{measure.digits}f") for measure in measures),
        number_cell(result.get("parameters"), ",d"), number_cell(pace, ",.0f" if (pace or 10) >= 10 else ".2f"),
        number_cell(result["train_seconds"] / 60 if result else None, ",.1f"),
        ("finished", "") if result else (f"not finished: step {run.step:,}", run.step)]
    words = escape(" ".join([run.place, *(f"{key}={value}" for key, value in run.values.items())]).lower())
    box = (f'<td data-value="{escape(run.place)}"><label><input type="checkbox" value="{number}">'
           f'<i class="line"></i><span>{escape(run.place)}</span></label></td>')
    classes = ["", *[' class="number"'] * (len(cells) - 2), ""]
    rest = "".join(f'<td{kind} data-value="{escape(str(value))}">{escape(text)}</td>'
                   for kind, (text, value) in zip(classes, cells, strict=True))
    return f'<tr data-run="{number}" data-words="{words}">{box}{rest}</tr>'


def number_cell(value: float | None, form: str) -> tuple[str, Any]:
    """Write a number in the table, or a dash if there is none."""
    return ("-", "") if value is None else (f"{value:{form}}", value)


def details(run: Summary, number: int) -> str:
    """Write a run's command and values as an expandable section."""
    values = "".join(f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>"
                     for key, value in run.values.items())
    absolute = run.directory.resolve()
    command = shlex.join(["resjax", "train", str(absolute / "experiment.json"), "--workdir", f"{absolute}-again"])
    in_python = read_descriptions(run.directory) or run.experiment.data.source == "arrays"
    again = ("<p>Parts of this run were passed in Python, so no command can repeat it.</p>" if in_python else
             copied(command))
    return (f'<section class="run" data-run="{number}"><details><summary>{escape(run.place)}</summary>{again}'
            f'<table class="values">{values}</table></details></section>')


def copied(command: str) -> str:
    """Show a command with a copy button."""
    return (f'<div class="command"><code>{escape(command)}</code>'
            f'<button type="button" class="copy">copy</button></div>')


def chart_data(runs: Sequence[Summary]) -> list[dict[str, Any]]:
    """Return names and curves for the page's script. Numbers have four digits."""
    return [{"name": run.place, "curves": {
        name: {series: [[step, float(f"{value:.4g}")] for step, value in points] for series, points in some.items()}
        for name, some in run.curves.items()}} for run in runs]
