"""What the runs of a table came to: rows with mean and deviation, beside the paper's numbers and claims."""

import statistics
from collections.abc import Sequence
from operator import gt, lt
from pathlib import Path
from typing import Any, NamedTuple

from resjax.evaluation import Protocol, measure
from resjax.paper.figures import draw
from resjax.paper.reproduce import Run, finished_result, scaled_name
from resjax.paper.tables import LEAST_STEPS, Row, Table, markdown
from resjax.system.distributed import is_first
from resjax.system.files import read_json, write_json, write_text
from resjax.training import read_metrics, read_result, restore

BATCH = 256  # crops at once
VERDICTS = {True: "holds", False: "FAILS", None: "too short to judge"}


class Line(NamedTuple):
    """A row with what its finished runs came to: errors in percent, of the last iteration.

    `errors` are those of the table, `top5` the top-5 errors beside them; an ensemble has one of each.
    """

    row: Row
    steps: int
    errors: tuple[float, ...]
    training_errors: tuple[float, ...]
    parameters: int
    seconds: tuple[float, ...]
    top5: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """The mean test error over the seeds."""
        return statistics.fmean(self.errors)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over the seeds; None for one."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 else None


def collect(table: Table, runs: Sequence[Run]) -> list[Line]:
    """Gather the finished runs of each row; a row without any, or an ensemble without all, is left out."""
    lines = []
    for row in dict.fromkeys(run.row for run in runs):
        of_row = [run for run in runs if run.row == row]
        finished = {run.run_directory: result for run in of_row if (result := finished_result(run.run_directory))}
        if not finished or (row.members and len(finished) < len(of_row)):
            continue
        groups = [list(finished)] if row.members else [[run_directory] for run_directory in finished]
        errors = [measured(group, table.views) for group in groups]
        lines.append(Line(
            row, of_row[0].experiment.steps, tuple(each[f"{table.error}_error"] for each in errors),
            tuple(read_metrics(run_directory, "train")[-1]["error"] for run_directory in finished),
            sum(result["parameters"] for result in finished.values()) // len(groups),
            tuple(result["train_seconds"] for result in finished.values()),
            tuple(each["top5_error"] for each in errors)))
    return lines


def judge(line: Line, lines: Sequence[Line]) -> tuple[bool | None, str]:
    """Say whether the paper's claims of a row hold for the means; None where no row that they name is there, or the
    schedule was too short to judge.
    """
    others = {other.row.experiment: other for other in lines}
    claims = {f"{relation} {others[name].row.title}": (lt if relation == "<" else gt)(line.mean, others[name].mean)
              for relation, name in line.row.claims if name in others}
    failed = [claim for claim, holds in claims.items() if not holds]
    if not claims:
        return None, "nothing to compare with"
    if line.steps < LEAST_STEPS:
        return None, "too short to judge"
    return not failed, f"fails: {', '.join(failed)}" if failed else f"holds: {', '.join(claims)}"


def as_markdown(table: Table, lines: Sequence[Line], scale: float) -> str:
    """Write the table; where the schedule was shortened, every number of ours says so."""
    both = any(row.top5 is not None for row in table.rows)
    columns = ["network", "layers", "parameters", "paper", "ours", "best", "n", "ours - paper",
               *["paper, top-5", "ours, top-5"] * both, "training error", "claim"]
    rows = [[other.title, "", "", percent(other.error), "", "", "", "", *[percent(other.top5), ""] * both, "", ""]
            for other in table.others]
    for line in lines:
        label = "" if scale == 1 else f" [{line.steps:,} steps]"
        comparable = scale == 1 and line.row.sign != ">" and not line.row.members
        rows.append([
            line.row.title, str(line.row.layers), f"{line.parameters:,}", published(line.row),
            f"{spread(line.errors)}{label}", f"{min(line.errors):.2f}{label}", str(len(line.errors)),
            f"{line.mean - line.row.error:+.2f}" if comparable else "-",
            *([percent(line.row.top5), f"{spread(line.top5)}{label}"] if both else []),
            f"{statistics.fmean(line.training_errors):.2f}{label}", judge(line, lines)[1]])
    notes = [f"{table.title}; {table.protocol}. Ours: mean ± standard deviation over n seeds."]
    if scale != 1:
        notes.append(f"**Shortened to {scale:g} of the paper's schedule: not the reproduction.**")
    if any(line.row.sign == "~" for line in lines):
        notes.append("Errors marked ~ were read off the paper's Figure 6.")
    return "\n\n".join([*notes, markdown([columns, *rows])])


def percent(error: float | None) -> str:
    """Write an error as the paper prints it; nothing where there is none."""
    return "" if error is None else f"{error:.2f}"


def spread(errors: Sequence[float]) -> str:
    """Write the mean, and for more than one the sample standard deviation."""
    deviation = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    return f"{statistics.fmean(errors):.2f}{deviation}"


def published(row: Row) -> str:
    """Write the paper's error, with its deviation where it gives one."""
    deviation = "" if row.deviation is None else f" ± {row.deviation:.2f}"
    return f"{row.sign}{row.error:.2f}{deviation}"


def as_values(table: Table, lines: Sequence[Line], scale: float) -> dict[str, Any]:
    """Turn the table into what JSON holds."""
    return {"table": table.name, "title": table.title, "protocol": table.protocol, "scale": scale, "rows": [
        {"experiment": line.row.experiment, "title": line.row.title, "layers": line.row.layers, "steps": line.steps,
         "parameters": line.parameters, "paper": published(line.row), "errors": line.errors, "mean": line.mean,
         "deviation": line.deviation, "top5_errors": line.top5,
         "training_errors": line.training_errors, "holds": holds, "verdict": verdict}
        for line in lines for holds, verdict in [judge(line, lines)]]}


def measured(run_directories: Sequence[Path], views: Protocol) -> dict[str, Any]:
    """Return `top1_error` and `top5_error` in percent, of a run or of an ensemble of runs.

    The single view was measured at the end of the training; others are measured here, on all devices.
    """
    results = [read_result(run_directory) or {} for run_directory in run_directories]
    if views == "single" and len(results) == 1:
        return {key: results[0][f"test_{key}"] for key in ("top1_error", "top5_error")}
    digests = [result["state_digest"] for result in results]
    name = "errors" if len(run_directories) == 1 else "ensemble"
    file = run_directories[0] / f"{name}-{views}.json"
    if file.exists():
        kept = read_json(file, "state_digests", "top1_error", "top5_error")
        if kept["state_digests"] == digests:
            return dict(kept)
    errors = measure([restore(run).network for run in run_directories], "test", views, BATCH)
    found = {**errors._asdict(), "runs": [str(run) for run in run_directories], "state_digests": digests}
    if is_first():
        write_json(file, found)
    return found


def write_table(table: Table, runs: Sequence[Run], scale: float, folder: Path, command: str) -> Path:
    """Write `table.md`, `table.json` and the figures from the runs that are finished; return the Markdown file.

    `command` is what a reader has to type to repeat it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = collect(table, runs)  # on all processes, as it may have to measure
    file = folder / f"{scaled_name(table.name, scale)}.md"
    if not is_first():
        return file
    figures = draw(table, runs, scale, folder)
    parts = [f"`{command}`", as_markdown(table, lines, scale)]
    for figure in figures:
        claims = "\n".join(f"- {VERDICTS[holds]}: {claim}" for claim, holds in figure["claims"])
        parts.append(f"![{figure['title']}]({figure['file']})\n\n{claims}")
    text = "\n\n".join(parts) + "\n"
    write_text(file, text)
    values = {"command": command, **as_values(table, lines, scale), "figures": figures}
    write_json(file.with_suffix(".json"), values)
    return file
