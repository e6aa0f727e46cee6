"""What the runs of a table came to: rows with mean and deviation, beside the paper's numbers and claims."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from resjax.paper.reproduce import Run
from resjax.paper.tables import Row, Table
from resjax.training import read_metrics, read_result


class Line(NamedTuple):
    """A row with what its finished runs came to: errors in percent, of the last iteration."""

    row: Row
    steps: int
    errors: tuple[float, ...]
    training_errors: tuple[float, ...]
    parameters: int
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean test error over the seeds."""
        return statistics.fmean(self.errors)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over the seeds; None for one."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 else None


def collect(runs: Sequence[Run]) -> list[Line]:
    """Gather the finished runs of each row; a row without any is left out."""
    lines = []
    for row in dict.fromkeys(run.row for run in runs):
        of_row = [run for run in runs if run.row == row]
        finished = [(run, result) for run in of_row if (result := read_result(run.workdir))]
        if finished:
            lines.append(Line(
                row, of_row[0].experiment.steps, tuple(result["test_top1_error"] for _, result in finished),
                tuple(read_metrics(run.workdir, "train")[-1]["error"] for run, _ in finished),
                finished[0][1]["parameters"], tuple(result["train_seconds"] for _, result in finished)))
    return lines


def judge(line: Line, lines: Sequence[Line]) -> tuple[bool | None, str]:
    """Say whether the paper's claims of a row hold for the means; None where no row that they name is there."""
    means = {other.row.experiment: other for other in lines}
    claims = [claim for claim in line.row.claims if claim.other in means]
    failed = [f"{claim.relation} {means[claim.other].row.title}" for claim in claims
              if not (line.mean < means[claim.other].mean if claim.relation == "<" else
                      line.mean > means[claim.other].mean)]
    if not claims:
        return None, "nothing to compare with"
    if failed:
        return False, f"fails: {', '.join(failed)}"
    return True, "holds: " + ", ".join(f"{claim.relation} {means[claim.other].row.title}" for claim in claims)


def as_markdown(table: Table, lines: Sequence[Line], scale: float) -> str:
    """Write the table; where the schedule was shortened, every number of ours says so."""
    heading = ("| network | layers | parameters | paper | ours | best | n | ours - paper | training error | claim |\n"
               "|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for line in lines:
        label = "" if scale == 1 else f" [{line.steps:,} steps]"
        spread = "" if line.deviation is None else f" ± {line.deviation:.2f}"
        difference = f"{line.mean - line.row.error:+.2f}" if scale == 1 and line.row.sign != ">" else "-"
        rows.append(f"| {line.row.title} | {line.row.layers} | {line.parameters:,} | {published(line.row)} "
                    f"| {line.mean:.2f}{spread}{label} | {min(line.errors):.2f}{label} | {len(line.errors)} "
                    f"| {difference} | {statistics.fmean(line.training_errors):.2f}{label} | {judge(line, lines)[1]} |")
    notes = [f"{table.title}; {table.protocol}. Ours: mean ± standard deviation over n seeds."]
    if scale != 1:
        notes.append(f"**Shortened to {scale:g} of the paper's schedule: not the reproduction.**")
    if any(line.row.sign == "~" for line in lines):
        notes.append("Errors marked ~ were read off the paper's Figure 6.")
    return "\n\n".join([*notes, "\n".join([heading, *rows])])


def published(row: Row) -> str:
    """Write the paper's error, with its deviation where it gives one."""
    deviation = "" if row.deviation is None else f" ± {row.deviation:.2f}"
    return f"{row.sign}{row.error:.2f}{deviation}"


def as_values(table: Table, lines: Sequence[Line], scale: float) -> dict[str, Any]:
    """Turn the table into what JSON holds."""
    return {"table": table.name, "title": table.title, "protocol": table.protocol, "scale": scale, "rows": [
        {"experiment": line.row.experiment, "title": line.row.title, "layers": line.row.layers, "steps": line.steps,
         "parameters": line.parameters, "paper": published(line.row), "errors": line.errors, "mean": line.mean,
         "deviation": line.deviation, "training_errors": line.training_errors, "holds": holds, "verdict": verdict}
        for line in lines for holds, verdict in [judge(line, lines)]]}
