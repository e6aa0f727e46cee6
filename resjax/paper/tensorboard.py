"""Exports the curves of all runs in a folder to TensorBoard."""

import time
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from resjax.system.errors import check
from resjax.system.files import write_aside
from resjax.training import find_runs, read_metrics
from resjax.training.tensorboard import check_tensorboardx, open_writer, write_line


def write_tensorboard(folder: Path, out: Path) -> None:
    """Write every number of every run's `metrics.jsonl` to `out`, under `train/loss`, `test/top1_error` and so on.

    Raises BadInput if tensorboardX is missing, if there is no run, or if `out` already contains logs. Raises OSError if
    the disk is full.
    """
    check_tensorboardx()
    for run_directory in find_runs(folder):
        logs = out / run_directory.relative_to(folder)
        check(not any(logs.glob("events.*")), f"{logs} already contains logs; choose another folder, or delete them")
        logs.mkdir(parents=True, exist_ok=True)
        file = logs / f"events.out.tfevents.{time.time():.0f}.resjax"
        write_aside(file, partial(write_events, read_metrics(run_directory)))


def write_events(lines: Iterable[dict[str, Any]], file: Path) -> None:
    """Write the numbers of a log."""
    with closing(open_writer(file)) as writer:
        for line in lines:
            write_line(writer, line)
