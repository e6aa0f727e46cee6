"""The curves of runs as TensorBoard logs, written without TensorFlow."""

import time
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from resjax.system.errors import BadInput, check
from resjax.system.files import write_aside
from resjax.training import find_runs, read_metrics

VERSION = "brain.Event:2"  # of the format: each file begins with it


def write_tensorboard(folder: Path, out: Path) -> None:
    """Write every number of every run's `metrics.jsonl` to `out`, under `train/loss`, `test/top1_error` and so on.

    Raises BadInput where tensorboardX is missing, there is no run, or `out` holds logs already; OSError where the disk
    is full.
    """
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError:
        raise BadInput("TensorBoard logs need tensorboardX: pip install 'resjax[tensorboard]'") from None
    for run_directory in find_runs(folder):
        logs = out / run_directory.relative_to(folder)
        check(not any(logs.glob("events.*")), f"{logs} holds logs already; choose another folder, or remove them")
        logs.mkdir(parents=True, exist_ok=True)
        file = logs / f"events.out.tfevents.{time.time():.0f}.resjax"
        write_aside(file, partial(write_events, read_metrics(run_directory)))


def write_events(lines: Iterable[dict[str, Any]], file: Path) -> None:
    """Write the numbers of a log in TensorBoard's format; in this thread, which hears of a full disk."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    now = time.time()
    with closing(RecordWriter(str(file))) as writer:
        writer.write(Event(wall_time=now, file_version=VERSION).SerializeToString())
        for line in lines:
            for key, number in line.items():
                if key != "step" and type(number) in (int, float):
                    value = Summary.Value(tag=f"{line['kind']}/{key}", simple_value=number)
                    event = Event(wall_time=now, step=line["step"], summary=Summary(value=[value]))
                    writer.write(event.SerializeToString())
