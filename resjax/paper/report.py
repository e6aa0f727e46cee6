"""One page of HTML for a folder of runs, or for claims with verdicts and pictures; it needs no network, no other file.

And the curves of runs as TensorBoard logs, written without TensorFlow.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from resjax.errors import BadInput
from resjax.files import read_json, write_text
from resjax.paper.figures import Drawing, save_figure
from resjax.serialization import flatten
from resjax.training import read_experiment, read_metrics, read_result

PAGE = Path(__file__).with_name("report.html")
POINTS = 150  # of a curve: more than a line of this width can show
WIDTH, HEIGHT = 320, 110


def write_report(folder: Path, file: Path) -> None:
    """Write the page of all runs in a folder, and of the tables that `reproduce` left there.

    Raises BadInput where the folder holds no run.
    """
    run_directories = find_runs(folder)
    finished = sum((run_directory / "result.json").exists() for run_directory in run_directories)
    body = [
        f"<h1>resjax: {escape(folder.resolve().name)}</h1>",
        f"<p>{len(run_directories)} runs, {finished} of them finished. Errors are those of the last iteration.</p>",
        *(shown_or_named(table_section, table, folder) for table in sorted(folder.glob("table*.json"))),
        "<h2>Runs</h2>",
        "<p class=key>Error in percent over the iterations: <span class=train>training</span>, "
        "<span class=test>test</span>, <span class=validation>validation</span>.</p>",
        "<div class=runs>", *(shown_or_named(run_card, run, folder) for run in run_directories), "</div>"]
    whole = page(folder.resolve().name, "\n".join(body))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, whole)


def page(title: str, body: str) -> str:
    """Put a body of HTML into the page that all reports share."""
    parts = {"TITLE": escape(title), "BODY": body}
    return re.sub("TITLE|BODY", lambda found: parts[found[0]], PAGE.read_text())


def shown_or_named(make: Callable[[Path, Path], str], path: Path, folder: Path) -> str:
    """Write a part of the page or, where its files are damaged, what is wrong with them: the other parts are shown."""
    try:
        return make(path, folder)
    except (BadInput, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        reason = str(error) if isinstance(error, BadInput) else f"damaged ({type(error).__name__}: {error})"
        return f"<section><h3>{escape(str(path))}</h3><p class=warning>{escape(reason)}</p></section>"


def find_runs(folder: Path) -> list[Path]:
    """List the run directories in a folder. Raises BadInput where there is none."""
    run_directories = sorted(found.parent for found in folder.rglob("experiment.json"))
    if not run_directories:
        raise BadInput(f"{folder}: no run lies there (no folder in it has an experiment.json)")
    return run_directories


def table_section(file: Path, folder: Path) -> str:
    """Write a table and its figures as `reproduce` saved them in a folder."""
    values = read_json(file, "title", "protocol", "scale", "rows", "figures", "command")
    shortened = values["scale"] != 1
    head = "".join(f"<th>{name}</th>" for name in ("network", "parameters", "paper", "ours", "n", "training", "claim"))
    rows = "\n".join(table_row(row, shortened) for row in values["rows"])
    warning = (f"<p class=warning>Shortened to {values['scale']:g} of the paper's schedule: not the reproduction.</p>"
               if shortened else "")
    figures = "\n".join(figure(drawn, folder) for drawn in values["figures"])
    return (f"<h2>{escape(values['title'])}</h2>{warning}"
            f"<p>{escape(values['protocol'])}; mean ± standard deviation over n seeds.</p>"
            f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
            f"<p><code>{escape(values['command'])}</code></p>{figures}")


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
    return (f"<h3>{escape(drawn['title'])}</h3><figure>{svg[svg.index('<svg'):]}</figure>"
            f"<ul class=claims>{claims}</ul>")


def mark(holds: bool | None, text: str) -> str:
    """Mark a claim as holding or failing, in more than colour; None: it cannot be judged."""
    if holds is None:
        return escape(text)
    return f"<span class={'holds' if holds else 'fails'}>{'✓' if holds else '✗'} {escape(text)}</span>"


def run_card(run_directory: Path, folder: Path) -> str:
    """Write a run: its result, its curves, its values, and how to repeat it."""
    experiment, result = read_experiment(run_directory), read_result(run_directory)
    record = read_json(run_directory / "experiment.json", "devices", "versions")
    state = (f"test error <b>{result['test_top1_error']:.2f} %</b>, {result['images_per_second']:.0f} images/s, "
             f"{result['train_seconds'] / 60:.1f} min" if result else "not finished")
    machine = {**record["devices"], **record["versions"]}
    values = "".join(f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>"
                     for key, value in (flatten(experiment) | machine).items() if key != "data.directory")
    place = run_directory.relative_to(folder) if run_directory != folder else Path(run_directory.name)
    command = f"resjax train {place / 'experiment.json'} --workdir again"
    return (f"<section><h3>{escape(str(place))}</h3><p>{state}</p>{curves(run_directory, experiment.steps)}"
            f"<details><summary>values and versions</summary><table class=values>{values}</table></details>"
            f"<p><code>{escape(command)}</code></p></section>")


def curves(run_directory: Path, steps: int) -> str:
    """Draw a run's errors over its iterations; the axis of errors ends at the largest."""
    lines = read_metrics(run_directory)
    keys = {"train": "error", "validation": "top1_error", "test": "top1_error"}
    series = {kind: [(line["step"], line[key]) for line in lines if line["kind"] == kind] for kind, key in keys.items()}
    top = max((error for points in series.values() for _, error in points), default=100.0) or 1.0
    drawn = "".join(f'<polyline class={kind} points="{polyline(points, steps, top)}"/>'
                    for kind, points in series.items() if points)
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 14}" role=img aria-label="errors over the iterations">'
            f'<path class=axis d="M0 0V{HEIGHT}H{WIDTH}"/>{drawn}<text x=4 y=10>{top:.0f} %</text>'
            f'<text x={WIDTH} y={HEIGHT + 12} text-anchor=end>{steps:,} steps</text></svg>')


def polyline(points: Sequence[tuple[int, float]], steps: int, top: float) -> str:
    """Turn points into coordinates, every n-th of many and always the last."""
    every = -(-len(points) // POINTS)
    kept = [*points[:-1:every], points[-1]]
    return " ".join(f"{WIDTH * step / steps:.1f},{HEIGHT * (1 - error / top):.1f}" for step, error in kept)


def write_findings(title: str, drawings: Iterable[Drawing], folder: Path, name: str) -> str:
    """Save each picture, `NAME.md` and `NAME.html`; return the Markdown: a table of verdicts."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, sections = [], []
    for number, drawing in enumerate(drawings, 1):
        file = folder / f"{name}{number}.svg"
        save_figure(drawing.figure, file)
        plt.close(drawing.figure)
        rows += [f"| {drawing.title} | {claim} | {'holds' if holds else 'FAILS'} |" for claim, holds in drawing.claims]
        sections.append(figure({"title": drawing.title, "file": file.name, "claims": drawing.claims}, folder))
    text = "\n".join(["| experiment | claim and measurement | verdict |", "|---|---|---|", *rows]) + "\n"
    whole = page(title, "\n".join([f"<h1>{escape(title)}</h1>", *sections]))
    write_text(folder / f"{name}.md", text)
    write_text(folder / f"{name}.html", whole)
    return f"{text}\n{folder / name}.md, .html"


def write_tensorboard(folder: Path, out: Path) -> None:
    """Write every number of every run's `metrics.jsonl` to `out`, under `train/loss`, `test/top1_error` and so on.

    Raises BadInput where tensorboardX is missing, there is no run, or `out` holds logs already.
    """
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        raise BadInput("TensorBoard logs need tensorboardX: pip install 'resjax[tensorboard]'") from None
    for run_directory in find_runs(folder):
        logs = out / run_directory.relative_to(folder)
        if any(logs.glob("events.*")):
            raise BadInput(f"{logs} holds logs already; choose another folder, or remove them")
        with SummaryWriter(str(logs)) as writer:
            for line in read_metrics(run_directory):
                for key in line.keys() - {"step", "kind"}:
                    writer.add_scalar(f"{line['kind']}/{key}", line[key], line["step"])
