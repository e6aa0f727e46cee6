"""Collects the results of a table's runs, and compares them with the paper's numbers and claims."""

import math
import statistics
from collections.abc import Sequence
from operator import gt, lt
from pathlib import Path
from typing import Any, NamedTuple

from resjax.data.prepared import data_directory
from resjax.paper.figures import draw_figures
from resjax.paper.reproduce import Planned, planned_result, scaled_name, training_errors
from resjax.paper.table import LEAST_STEPS, Row, Table, markdown
from resjax.system.distributed import is_first
from resjax.system.files import read_json, write_json, write_text
from resjax.training.images import check_held_out
from resjax.training.kinds import Measure, kind_of
from resjax.training.run_directory import read_result

BATCH = 256  # images or crops per batch
VERDICTS = {True: "holds", False: "FAILS", None: "too short to judge"}
MANY = 3  # with this many measures, a table has one line per measure and one column per network


class RowResult(NamedTuple):
    """A row with the final results of its finished runs. An ensemble has one value per measure.

    `values[i]` are the values of the table's i-th measure, one per seed.
    """

    row: Row
    steps: int
    values: tuple[tuple[float, ...], ...]
    training_errors: tuple[float, ...]
    parameters: int
    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds of the row's main measure."""
        return statistics.fmean(self.values[0]) if self.values[0] else math.nan


def collect_results(table: Table, planned: Sequence[Planned]) -> list[RowResult]:
    """Collect the finished runs of each row. Rows without finished runs and incomplete ensembles are left out."""
    lines, images = list[RowResult](), dict[Any, str]()
    for row in dict.fromkeys(run.row for run in planned):
        of_row = [run for run in planned if run.row == row]
        finished = [(run, result) for run in of_row if (result := planned_result(run))]
        if not finished or (row.members and len(finished) < len(of_row)):
            continue
        groups = [[run for run, _ in finished]] if row.members else [[run] for run, _ in finished]
        measured = [measure_group(group, table.measures, images) for group in groups]
        values = [[measure.of(each) for each in measured] for measure in table.measures]
        lines.append(RowResult(
            row, of_row[0].experiment.steps,
            tuple(tuple(value for value in some if value is not None) for some in values),
            tuple(training_errors(run.run_directory)[-1] for run, _ in finished),
            sum(result["parameters"] for _, result in finished) // len(groups),
            tuple(result["train_seconds"] for _, result in finished)))
    return lines


def measure_group(group: Sequence[Planned], measures: Sequence[Measure], images: dict[Any, str]) -> dict[str, Any]:
    """Return the results of a run, or of an ensemble, under the row's testing protocol.

    Results under the training's own protocol are read from the run's result. All other results are measured here and
    stored in the first run's folder. They are measured again if the networks or the images have changed, but not if the
    images were moved. `images` caches the fingerprints of test images, because computing a fingerprint takes seconds
    and many rows share the same images.
    """
    first = group[0]
    kind, data = kind_of(first.experiment), first.experiment.data
    how = kind.protocol_of(first.experiment) if first.row.how is None else first.row.how
    results = [read_result(run.run_directory) or {} for run in group]
    if len(group) == 1 and how == kind.protocol_of(first.experiment):
        outcome = kind.outcome(results[0])
        if all(measure.key.partition(".")[0] in outcome for measure in measures):
            return outcome
    digests = [result["state_digest"] for result in results]
    if data not in images:
        images[data] = kind.fingerprint(first.experiment)
    file = first.run_directory / f"{'ensemble' if len(group) > 1 else 'measured'}-{kind.name_of(how)}.json"
    if file.exists():
        stored = read_json(file)
        if (stored.get("state_digests"), stored.get("images_digest")) == (digests, images[data]):
            return stored
    for run in group:
        check_held_out(run.run_directory, "test", data.source)
    opened = [kind.open(str(run.run_directory)) for run in group]
    directory = data_directory(data.directory) if hasattr(data, "directory") else None
    measured = {**kind.measure(opened, "test", how, BATCH, data.source, directory),
             "runs": [str(run.run_directory) for run in group], "state_digests": digests,
             "images_digest": images[data]}
    if is_first():
        write_json(file, measured)
    return measured


def judge(line: RowResult, lines: Sequence[RowResult]) -> tuple[bool | None, str]:
    """Return whether the means satisfy the paper's claims (None if that cannot be judged), and the reason."""
    others = {other.row.experiment: other for other in lines}
    claims = {f"{relation} {others[name].row.title}": (lt if relation == "<" else gt)(line.mean, others[name].mean)
              for relation, name in line.row.claims if name in others}
    if not claims:
        return None, "nothing to compare with"
    if line.steps < LEAST_STEPS:
        return None, "too short to judge"
    failed = [claim for claim, holds in claims.items() if not holds]
    return not failed, f"fails: {', '.join(failed)}" if failed else f"holds: {', '.join(claims)}"


def as_markdown(table: Table, lines: Sequence[RowResult], scale: float) -> str:
    """Write the table. If the schedule was shortened, every number of ours is marked."""
    notes = [f"{table.title}; {table.protocol}. Ours: mean ± standard deviation over n seeds."]
    if scale != 1:
        notes.append(f"**Shortened to {scale:g} of the paper's schedule: not a reproduction.**")
    if any(line.row.sign == "~" for line in lines):
        notes.append("Errors marked ~ were read from Figure 6 of the paper.")
    rows = (rows_by_measure if len(table.measures) >= MANY else rows_by_network)(table, lines, scale)
    return "\n\n".join([*notes, markdown(rows)])


def rows_by_network(table: Table, lines: Sequence[RowResult], scale: float) -> list[list[str]]:
    """Write one line per network."""
    first, *more = table.measures
    further = [f"{whose}, {measure.title}" for measure in more for whose in ("paper", "ours")]
    rows = [["network", "layers", "parameters", f"paper, {first.title}", "ours", "best", "n", "ours - paper", *further,
             "training error", "claim"]]
    theirs = [*table.others, *((row.title, row.published) for row in table.rows if not row.experiment)]
    for title, figures in theirs:
        paper = [measure.written(value) for measure, value in zip(table.measures, figures, strict=False)]
        rows.append([title, "", "", paper[0], "", "", "", "", *(cell for value in paper[1:] for cell in (value, "")),
                     "", ""])
    for line in lines:
        label = "" if scale == 1 else f" [{line.steps:,} steps]"
        row, values = line.row, line.values[0]
        comparable = scale == 1 and row.sign != ">" and not row.members
        best = (max if first.higher_is_better else min)(values, default=None)
        pairs = [(measure.written(value), f"{spread(measure, ours)}{label}") for measure, value, ours in zip(
            more, [*row.published[1:], *[None] * len(more)], line.values[1:], strict=False)]
        rows.append([
            row.title, str(row.layers or ""), f"{line.parameters:,}", published(row, first),
            f"{spread(first, values)}{label}", f"{first.written(best)}{label}", str(len(values)),
            f"{line.mean - row.error:+.{first.digits}f}" if comparable else "-",
            *(cell for pair in pairs for cell in pair),
            f"{statistics.fmean(line.training_errors):.2f}{label}", judge(line, lines)[1]])
    return rows


def rows_by_measure(table: Table, lines: Sequence[RowResult], scale: float) -> list[list[str]]:
    """Write one line per measure."""
    by_row = {line.row: line for line in lines}
    head = [f"{row.title}: {whose}" for row in table.rows for whose in ("paper", "ours")]
    rows = [["", *head]]
    for place, measure in enumerate(table.measures):
        cells = [measure.title]
        for row in table.rows:
            ours = spread(measure, by_row[row].values[place]) if row in by_row else "-"
            label = f" [{by_row[row].steps:,} steps]" if row in by_row and scale != 1 else ""
            cells += [measure.written(row.published[place]), f"{ours}{label}"]
        rows.append(cells)
    counts = (len(by_row[row].values[0]) if row in by_row else 0 for row in table.rows)
    return [*rows, ["n", *(cell for count in counts for cell in ("", str(count)))]]


def spread(measure: Measure, values: Sequence[float]) -> str:
    """Format the mean and, for several values, the sample standard deviation. Without values, return a dash."""
    if not values:
        return "-"
    deviation = f" ± {measure.written(statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{measure.written(statistics.fmean(values))}{deviation}"


def published(row: Row, measure: Measure) -> str:
    """Format the paper's number, with its standard deviation if the paper gives one."""
    deviation = "" if row.deviation is None else f" ± {measure.written(row.deviation)}"
    return f"{row.sign}{measure.written(row.published[0])}{deviation}"


def table_as_json(table: Table, lines: Sequence[RowResult], scale: float) -> dict[str, Any]:
    """Convert the table to JSON values."""
    return {"table": table.name, "title": table.title, "protocol": table.protocol, "scale": scale, "rows": [
        {"experiment": line.row.experiment, "title": line.row.title, "layers": line.row.layers, "steps": line.steps,
         "parameters": line.parameters, "training_errors": line.training_errors, "holds": holds, "verdict": verdict,
         "measures": [{
             "title": measure.title, "paper": measure.written(paper) if place else published(line.row, measure),
             "ours": spread(measure, values), "values": values, "mean": statistics.fmean(values) if values else None,
             "deviation": statistics.stdev(values) if len(values) > 1 else None}
             for place, (measure, paper, values) in enumerate(zip(
                 table.measures, [*line.row.published, *[None] * len(table.measures)], line.values, strict=False))]}
        for line in lines for holds, verdict in [judge(line, lines)]]}


def write_table(table: Table, planned: Sequence[Planned], scale: float, folder: Path, command: str) -> Path:
    """Write `table.md`, `table.json` and the figures from the finished runs; return the Markdown file.

    `command` is the command that reproduces the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = collect_results(table, planned)  # on all processes, because they may have to measure together
    figures = draw_figures(table, planned, scale, folder)  # likewise
    file = folder / f"{scaled_name(table.name, scale)}.md"
    if not is_first():
        return file
    parts = [f"`{command}`", as_markdown(table, lines, scale)]
    for figure in figures:
        claims = "\n".join(f"- {VERDICTS[holds]}: {claim}" for claim, holds in figure["claims"])
        parts.append(f"![{figure['title']}]({figure['file']})\n\n{claims}")
    write_text(file, "\n\n".join(parts) + "\n")
    write_json(file.with_suffix(".json"), {
        "command": command, **table_as_json(table, lines, scale), "figures": figures})
    return file
