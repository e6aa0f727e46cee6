"""One page of HTML for a folder of runs: a table to sort and filter, curves to lay over each other, the paper's tables.

It needs no network and no other file; without JavaScript everything but the chart is there.
"""

import base64
import hashlib
import json
import shlex
from collections.abc import Callable
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from resjax.errors import BadInput, check
from resjax.files import read_json, write_text
from resjax.paper.report_runs import COLUMNS, Summary, chart_data, copied, details, row, summarize

ASSETS = Path(__file__).parent
DAMAGE = (BadInput, KeyError, TypeError, ValueError, AttributeError, OSError)


def write_report(folder: Path, file: Path) -> None:
    """Write the page of all runs in a folder, and of the tables that `reproduce` left there.

    Raises BadInput where the folder holds no run.
    """
    run_directories = find_runs(folder)
    finished = sum((run_directory / "result.json").exists() for run_directory in run_directories)
    runs, damaged = read_all(run_directories, folder)
    script, style = ((ASSETS / name).read_text("utf-8") for name in ("report.js", "report.css"))
    name = folder.resolve().name
    whole = Template((ASSETS / "report.html").read_text("utf-8")).substitute(
        title=escape(name), style=style, script=script, script_digest=digest(script),
        count=f"{len(run_directories)} runs, {finished} of them finished",
        tables="\n".join(shown_or_named(table_section, table, folder) for table in sorted(folder.glob("table*.json"))),
        head="".join(heading(column) for column in COLUMNS), damaged="\n".join(damaged),
        rows="\n".join(row(run, number) for number, run in enumerate(runs)),
        details="\n".join(details(run, number) for number, run in enumerate(runs)),
        data=json.dumps(chart_data(runs), separators=(",", ":")).replace("<", "\\u003c"))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, whole)


def digest(content: str) -> str:
    """Name a text as a content security policy does."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def heading(column: str) -> str:
    """Write a heading that sorts by its column."""
    return f'<th scope="col"><button type="button">{column}</button></th>'


def read_all(run_directories: list[Path], folder: Path) -> tuple[list[Summary], list[str]]:
    """Read the runs; for those whose files are damaged, say what is wrong: the others are shown."""
    runs, damaged = [], []
    for run_directory in run_directories:
        try:
            runs.append(summarize(run_directory, folder))
        except DAMAGE as error:
            damaged.append(named(run_directory, error))
    return runs, damaged


def shown_or_named(make: Callable[[Path, Path], str], path: Path, folder: Path) -> str:
    """Write a part of the page or, where its files are damaged, what is wrong with them: the other parts are shown."""
    try:
        return make(path, folder)
    except DAMAGE as error:
        return named(path, error)


def named(path: Path, error: Exception) -> str:
    """Say what is wrong with a file or a run."""
    reason = str(error) if isinstance(error, BadInput) else f"damaged ({type(error).__name__}: {error})"
    return f'<section><h3>{escape(str(path))}</h3><p class="warning">{escape(reason)}</p></section>'


def find_runs(folder: Path) -> list[Path]:
    """List the run directories in a folder. Raises BadInput where there is none."""
    run_directories = sorted(found.parent for found in folder.rglob("experiment.json"))
    check(bool(run_directories), f"{folder}: no run lies there (no folder in it has an experiment.json)")
    return run_directories


def table_section(file: Path, folder: Path) -> str:
    """Write a table and its figures as `reproduce` saved them in a folder."""
    values = read_json(file, "title", "protocol", "scale", "rows", "figures", "command")
    shortened = values["scale"] != 1
    head = "".join(f"<th>{name}</th>" for name in ("network", "parameters", "paper", "ours", "n", "training", "claim"))
    rows = "\n".join(table_row(row, shortened) for row in values["rows"])
    warning = (f'<p class="warning">Shortened to {values["scale"]:g} of the schedule: not the reproduction.</p>'
               if shortened else "")
    figures = "\n".join(figure(drawn, folder) for drawn in values["figures"])
    command = f"{values['command']} --runs {shlex.quote(str(folder.resolve()))}"
    return (f"<h2>{escape(values['title'])}</h2>{warning}"
            f"<p>{escape(values['protocol'])}; mean ± standard deviation over n seeds.</p>"
            f'<div class="scroll"><table class="paper"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
            f"</div>{copied(command)}{figures}")


def table_row(row: dict[str, Any], shortened: bool) -> str:
    """Write a row: the paper's error, ours, and whether the paper's claim holds."""
    spread = "" if row["deviation"] is None else f" ± {row['deviation']:.2f}"
    label = f" <small>{row['steps']:,} steps</small>" if shortened else ""
    training = sum(row["training_errors"]) / len(row["training_errors"])
    ours = f"<b>{row['mean']:.2f}{spread}</b>{label}"
    cells = (escape(row["title"]), f"{row['parameters']:,}", escape(row["paper"]), ours, str(len(row["errors"])),
             f"{training:.2f}{label}", mark(row["holds"], row["verdict"]))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def figure(drawn: dict[str, Any], folder: Path) -> str:
    """Write a figure, its drawing within the page, with its claims."""
    svg = (folder / Path(drawn["file"]).name).read_text()
    claims = "".join(f"<li>{mark(holds, claim)}</li>" for claim, holds in drawn["claims"])
    return (f'<figure><div class="scroll">{svg[svg.index("<svg"):]}</div>'
            f'<figcaption>{escape(drawn["title"])}</figcaption></figure><ul class="claims">{claims}</ul>')


def mark(holds: bool | None, text: str) -> str:
    """Mark a claim as holding or failing, in more than colour; None: it cannot be judged."""
    if holds is None:
        return escape(text)
    return f'<span class="{"holds" if holds else "fails"}">{"✓" if holds else "✗"} {escape(text)}</span>'
