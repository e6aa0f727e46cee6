"""A table is one command: train what is missing, and set ours beside the paper's."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from resjax.experiment import Experiment, image_shape
from resjax.experiment_files import load_experiments, select
from resjax.models.formulas import count
from resjax.paper.tables import TABLES, Row, Table
from resjax.system.errors import BadInput, check
from resjax.system.progress import one_by_one
from resjax.system.terminal import tell
from resjax.training import read_metrics, read_result, train

NEEDED = {"parameters", "train_seconds", "test_top1_error", "test_top5_error", "state_digest"}  # of a result, in tables
MOST_SEEDS = 1_000  # of a row


class Run(NamedTuple):
    """One training run of a row, and the folder that holds it."""

    row: Row
    experiment: Experiment
    run_directory: Path


def find_table(name: str) -> Table:
    """Return the table of that name. Raises BadInput that lists those there are."""
    check(name in TABLES, f"unknown table {name!r}; there are: table1, {', '.join(TABLES)}, table7, table8, table9")
    return TABLES[name]


def plan(table: Table, experiments: Path, runs: Path, seeds: int, only: Sequence[str] = (),
         scale: float = 1.0) -> list[Run]:
    """List the runs of a table: every row, every seed; the runs of one seed come before those of the next.

    The members of an ensemble come once, with seeds of their own. `scale` shortens the schedule in proportion; such
    runs lie in folders of their own. Every run also measures the test errors along the way that Figure 6 shows. Raises
    BadInput for a row or a file that does not exist, or a wrong number.
    """
    check(1 <= seeds <= MOST_SEEDS, f"seeds is {seeds}; it lies in 1 ... {MOST_SEEDS}")
    check(0 < scale <= 1, f"scale is {scale}; it lies in (0, 1], and 1 is the paper's schedule")
    rows = [row.experiment for row in table.rows]
    for name in only:
        check(name in rows, f"{table.name} has no row {name!r}; there are: {', '.join(rows)}")
    known = load_experiments(experiments / table.file)
    planned = []
    for seed, row in product(range(seeds), (row for row in table.rows if not only or row.experiment in only)):
        if row.members and seed > 0:
            continue  # an ensemble's members come once
        for name, number in row.members or [(row.experiment, seed)]:
            experiment = shortened(replace(select(known, name), seed=number, evaluate_test=True), scale)
            planned.append(Run(row, experiment, runs / scaled_name(name, scale) / f"seed{number}"))
    return planned


def read_from(runs: Sequence[Run], source: str | None, directory: Path | None) -> list[Run]:
    """Let runs read a source, or prepared sets in a directory, if not what their experiments say."""
    return [run._replace(experiment=replace(run.experiment, data=replace(
        run.experiment.data, source=source or run.experiment.data.source,
        directory=directory or run.experiment.data.directory))) for run in runs]


def part(runs: Sequence[Run], shard: str) -> Sequence[Run]:
    """Return every k-th run for "i/k", from the i-th on. Raises BadInput for anything else."""
    number, slash, parts = shard.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise BadInput(f"shard is {shard!r}; write which part of how many, such as 2/8")
    return runs[int(number) - 1::int(parts)]


def finished_result(run_directory: Path) -> dict[str, Any] | None:
    """Read a run's result; None where it is not finished, or is damaged, which is said: the others are shown."""
    try:
        result = read_result(run_directory)
        if result is not None:
            missing = sorted(NEEDED - result.keys())
            check(not missing, f"{run_directory / 'result.json'}: it says nothing of {', '.join(missing)}")
            check(bool(read_metrics(run_directory, "train")),
                  f"{run_directory / 'metrics.jsonl'}: no line of the training can be read")
        return result
    except (BadInput, OSError) as error:
        tell(str(error))
        return None


def scaled_name(name: str, scale: float) -> str:
    """Name the folder of an experiment's runs, or the file of a table, by the scale of the schedule."""
    return name if scale == 1 else f"{name}-x{scale:g}"


def shortened(experiment: Experiment, scale: float) -> Experiment:
    """Shorten the schedule, and what is counted along it, in proportion.

    But for `log_steps`: the training error that tables and figures compare is the mean over so many steps.
    """
    if scale == 1:
        return experiment

    def scaled(steps: int, least: int = 1) -> int:
        return max(least, round(steps * scale))

    optimizer = experiment.optimizer
    drops = tuple(scaled(step) for step in optimizer.decay_steps)
    return replace(
        experiment, steps=scaled(experiment.steps), log_steps=min(experiment.log_steps, scaled(experiment.steps)),
        evaluate_steps=scaled(experiment.evaluate_steps, 100),
        checkpoint_steps=scaled(experiment.checkpoint_steps, 50),
        optimizer=replace(optimizer, decay_steps=drops, warmup_steps=round(optimizer.warmup_steps * scale),
                          plateau_steps=round(optimizer.plateau_steps * scale)))


def work(experiment: Experiment) -> float:
    """Count the multiply-adds of all steps: by it the time that runs take compares."""
    macs = count(experiment.architecture, image_shape(experiment.data), classes=10).macs
    return float(macs) * experiment.steps * experiment.batch_size


def train_missing(runs: Sequence[Run], tell: Callable[[str], None]) -> None:
    """Train what is not finished, one run after the other; what was cut off goes on where it was."""
    missing = [run for run in runs if not (run.run_directory / "result.json").exists()]
    tell(f"{len(runs)} runs: {len(runs) - len(missing)} are finished, {len(missing)} to train")
    works = [work(run.experiment) for run in missing]
    for number, run in enumerate(one_by_one(missing, works), 1):
        tell(f"{number} of {len(missing)}: {run.run_directory}")
        train(run.experiment, run.run_directory)
