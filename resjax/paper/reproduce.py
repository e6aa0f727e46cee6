"""Plans the runs that reproduce a table, and trains those that are not finished."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax

from resjax.experiment_files import load_runs, select
from resjax.paper.table import Row, Table
from resjax.paper.tables import TABLES
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded
from resjax.system.progress import one_by_one
from resjax.system.terminal import tell
from resjax.training.kinds import Run, kind_of
from resjax.training.log import read_metrics
from resjax.training.run_directory import (
    changes,
    check_images,
    has_checkpoint,
    read_descriptions,
    read_experiment,
    read_result,
)
from resjax.weights.files import SUFFIXES
from resjax.weights.hub import is_repository
from resjax.weights.trained import find_trained

NEEDED = {"parameters", "train_seconds", "state_digest"}  # keys that a finished result must have
MOST_SEEDS = 1_000  # largest number of runs per row


class Planned(NamedTuple):
    """A run of a row, and its folder."""

    row: Row
    experiment: Any
    run_directory: Path


def find_table(name: str) -> Table:
    """Return the table with this name. Raises BadInput, listing all tables, if there is none."""
    check(name in TABLES, f"unknown table {name!r}; the tables are table1, {', '.join(TABLES)}")
    return TABLES[name]


def check_seeds(seeds: int) -> None:
    """Raise BadInput for an invalid number of seeds."""
    check(1 <= seeds <= MOST_SEEDS, f"seeds is {seeds}; it must be in 1 ... {MOST_SEEDS}")


def plan_runs(table: Table, experiments: Path, runs: Path, seeds: int, only: Sequence[str] = (),
              scale: float = 1.0) -> list[Planned]:
    """List the runs of a table for every row and seed, with all runs of one seed before those of the next.

    The members of an ensemble are listed once, with their own seeds. `scale` shortens the schedule; shortened runs have
    separate folders. Classifiers also log test errors during training, for Figure 6. Networks that start from a run in
    `runs/` start from the one in the folder `runs`. Raises BadInput for an unknown row, a missing file or an invalid
    number.
    """
    check_seeds(seeds)
    check(0 < scale <= 1, f"scale is {scale}; it must be in (0, 1], where 1 is the schedule of the paper")
    ours = [row for row in table.rows if row.experiment]
    names = list(dict.fromkeys(row.experiment for row in ours))
    check(bool(names), f"{table.name} cannot be reproduced, because only VOC's server can evaluate it")
    for name in only:
        check(name in names, f"{table.name} has no row {name!r}; its rows are {', '.join(names)}")
    known = load_runs(experiments / table.file)
    planned = []
    for seed, row in product(range(seeds), (row for row in ours if not only or row.experiment in only)):
        if row.members and seed > 0:
            continue  # members of an ensemble are listed once
        for name, number in row.members or [(row.experiment, seed)]:
            run = select(known, name)
            if run.initialize_from.startswith("runs/"):
                run = replace(run, initialize_from=str(runs / run.initialize_from.removeprefix("runs/")))
            along = {"evaluate_test": True} if hasattr(run, "evaluate_test") else {}
            experiment = shorten_schedule(replace(run, seed=number, **along), scale)
            planned.append(Planned(row, experiment, runs / scaled_name(name, scale) / f"seed{number}"))
    return planned


def read_from(planned: Sequence[Planned], source: str | None, directory: Path | None) -> list[Planned]:
    """Change the data source or directory of runs, if given.

    Raises BadInput if the runs' images are missing, or if their location is unknown.
    """
    moved = []
    for run in planned:
        data = run.experiment.data
        check(directory is None or (source or data.source).startswith("tfds:"),
              f"--directory is for TFDS data sets, but {run.experiment.name} reads {source or data.source}; use "
              "--data instead")
        given = {name: value for name, value in (("source", source), ("directory", directory)) if value is not None}
        data = replace(data, **given)
        check(not data.source.endswith(":PATH"),
              f"{run.experiment.name} needs images; pass their location as --data {data.source}")
        moved.append(run._replace(experiment=replace(run.experiment, data=data)))
    return moved


def shard_of(runs: Sequence[Planned], shard: str) -> Sequence[Planned]:
    """Return every k-th directory's run for "i/k", starting with the i-th. Raises BadInput for text of another form."""
    number, slash, parts = shard.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise BadInput(f"shard is {shard!r}; it must be PART/PARTS, such as 2/8")
    several = list({run.run_directory: run for run in runs}.values())  # rows may share a run
    return several[int(number) - 1::int(parts)]


def planned_result(run: Planned) -> dict[str, Any] | None:
    """Read a run's result. Return None for an unfinished run and, with a warning, for a damaged one."""
    try:
        result = read_result(run.run_directory)
        if result is None or result["steps"] < run.experiment.steps:
            return None
        check_recipe(run)
        missing = sorted(NEEDED - result.keys())
        check(not missing, f"{run.run_directory / 'result.json'}: lacks {', '.join(missing)}")
        check(bool(training_errors(run.run_directory)),
              f"{run.run_directory / 'metrics.jsonl'}: contains no readable training line")
        return result
    except (BadInput, OSError) as error:
        tell(str(error))
        return None


def training_errors(run_directory: Path) -> list[float]:
    """List the training errors in a run's log, in percent."""
    return [line["error"] for line in read_metrics(run_directory, "train") if "error" in line]


def check_recipe(run: Planned) -> None:
    """Raise BadInput, saying what differs, if a folder holds a run that does not belong to the table."""
    if not (run.run_directory / "experiment.json").exists():
        return
    before, source = read_experiment(run.run_directory), run.experiment.initialize_from
    if Path(before.initialize_from).parts[-2:] == Path(source).parts[-2:]:  # both runs were moved to another folder
        before = replace(before, initialize_from=source)
    differences = changes(before, run.experiment)
    in_python = [f"{part}: {value}" for part, value in (read_descriptions(run.run_directory) or {}).items()]
    check(not differences and not in_python,
          f"{run.run_directory} differs from the run of the table ({'; '.join([*differences, *in_python])}). Move it "
          "away, or choose another --runs")


def check_weights(run: Planned, earlier: Sequence[Planned]) -> None:
    """Raise BadInput if the weights that a run needs do not exist and no `earlier` run will save them.

    Names on the Hub are not looked up.
    """
    source = run.experiment.initialize_from
    if not source or has_checkpoint(run.run_directory):
        return
    path = expanded(source)
    hub = is_repository(source) and path.suffix not in SUFFIXES
    check(path.exists() or hub or find_trained(source) is not None
          or any(path == each.run_directory for each in earlier),
          f"{run.experiment.name} starts from {source}, which does not exist. Train or download it, or change "
          "initialize_from in a copy of the experiment files and pass their folder as --experiments")


def check_moved(run: Planned) -> None:
    """Raise BadInput if the images of a finished run were moved and are different now."""
    before, now = read_experiment(run.run_directory).data, run.experiment.data
    directory = getattr(now, "directory", None)
    if before.source != now.source or directory not in (None, getattr(before, "directory", None)):
        check_images(run.run_directory, kind_of(run.experiment).identity(run.experiment))


def scaled_name(name: str, scale: float) -> str:
    """Return the folder name of an experiment's runs, or the file name of a table, at this scale."""
    return name if scale == 1 else f"{name}-x{scale:g}"


LEAST = {"steps": 1, "evaluate_steps": 100, "checkpoint_steps": 50, "precise_batch_norm_steps": 1}


def shorten_schedule(run: Any, scale: float) -> Any:
    """Shorten the schedule, its intervals, and the averaging of batch statistics after training, in proportion.

    `log_steps` stays unchanged, because tables and figures compare means of the training error over `log_steps` steps.
    """
    if scale == 1:
        return run
    durations = {field.name: max(LEAST[field.name], round(getattr(run, field.name) * scale))
                 for field in fields(run) if field.name in LEAST and getattr(run, field.name)}
    durations["log_steps"] = min(run.log_steps, durations["steps"])
    optimizer = run.optimizer
    drops = tuple(dict.fromkeys(max(1, round(step * scale)) for step in optimizer.decay_steps))
    return replace(run, **durations, optimizer=replace(
        optimizer, decay_steps=drops, warmup_steps=round(optimizer.warmup_steps * scale),
        plateau_steps=round(optimizer.plateau_steps * scale)))


def train_missing(planned: Sequence[Planned], announce: Callable[[str], None]) -> None:
    """Train unfinished runs one after the other, resuming those that were interrupted.

    Raises BadInput, before training, if a folder holds a run that does not belong to the table, or if pretrained
    weights are missing.
    """
    runs = list({run.run_directory: run for run in planned}.values())
    for run in runs:
        check_recipe(run)
    results = [read_result(run.run_directory) for run in runs]
    missing: list[Planned] = []
    for run, result in zip(runs, results, strict=True):
        if result is None or result["steps"] < run.experiment.steps:
            check_weights(run, missing)
            missing.append(run)
        else:
            check_moved(run)
    announce(f"{len(runs)} runs: {len(runs) - len(missing)} finished, {len(missing)} to train")
    for number, run in enumerate(one_by_one(missing, [run.experiment.work() for run in missing]), 1):
        announce(f"{number} of {len(missing)}: {run.run_directory}")
        kind_of(run.experiment).train(run.experiment, run.run_directory, devices_for(run.experiment, announce))


def devices_for(run: Run, announce: Callable[[str], None]) -> Sequence[jax.Device]:
    """Return all devices or, in a single process, as many as divide the batch. Announce it if some are unused."""
    devices = jax.devices()
    if jax.process_count() > 1:
        return devices
    count = max(count for count in range(1, len(devices) + 1) if run.batch_size % count == 0)
    if count < len(devices):
        announce(f"{run.name}: training on {count} of {len(devices)} devices, because the batch size is "
                 f"{run.batch_size}")
    return devices[:count]
