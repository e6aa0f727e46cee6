"""Writes a run's log as TensorBoard event files, during training or afterwards. TensorFlow is not needed."""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from resjax.system.errors import BadInput, check
from resjax.system.files import writing

VERSION = "brain.Event:2"  # version of the format, which starts each file


def check_tensorboardx() -> None:
    """Raise BadInput if the package that writes the format is missing."""
    try:
        import tensorboardX  # noqa: F401
    except ModuleNotFoundError:
        raise BadInput("TensorBoard logs need tensorboardX: pip install 'resjax[tensorboard]'") from None


def open_writer(file: Path) -> Any:
    """Start an event file. Return its writer, which runs in this thread so that a full disk raises an error here."""
    from tensorboardX.record_writer import RecordWriter

    writer = RecordWriter(str(file))
    write_event(writer, file_version=VERSION)
    return writer


def write_event(writer: Any, **parts: Any) -> None:
    """Write an event."""
    from tensorboardX.proto.event_pb2 import Event

    writer.write(Event(wall_time=time.time(), **parts).SerializeToString())


def write_line(writer: Any, line: dict[str, Any]) -> None:
    """Write the numbers of a log line as `train/loss` and so on."""
    from tensorboardX.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=f"{line['kind']}/{key}", simple_value=number) for key, number in line.items()
              if key != "step" and type(number) in (int, float)]
    write_event(writer, step=line["step"], summary=Summary(value=values))


class Events(AbstractContextManager["Events"]):
    """The events of a run in a folder. Whenever the training starts or resumes, it writes a new file.

    Raises BadInput if the writer's package is missing, or if the folder already holds another run's events.
    """

    def __init__(self, folder: Path, run_directory: Path) -> None:
        check_tensorboardx()
        self.folder, self.file = folder, folder
        self.writer: Any = None
        check(not self.used() or (run_directory / "experiment.json").exists(),
              f"{folder} contains TensorBoard logs of another run; the two would be mixed up, so choose another folder")

    def __exit__(self, *_: object) -> None:
        if self.writer:
            self.writer.close()

    def used(self) -> bool:
        """Return whether the folder already contains events."""
        return any(self.folder.glob("events.out.tfevents.*"))

    def begin(self, step: int, lines: Iterable[dict[str, Any]]) -> None:
        """Start a file with the `lines` of `step` that the log keeps, for these and all later lines.

        TensorBoard discards the events of earlier files from `step` on. Raises OSError if the folder cannot be written.
        """
        from tensorboardX.proto.event_pb2 import SessionLog

        before = [int(file.name.split(".")[3]) for file in self.folder.glob("events.out.tfevents.*.resjax")]
        number = max([int(time.time()), *(number + 1 for number in before)])  # TensorBoard reads files in this order
        self.file = self.folder / f"events.out.tfevents.{number}.resjax"
        with writing(self.file):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.writer = open_writer(self.file)
            write_event(self.writer, step=step, session_log=SessionLog(status=SessionLog.START))
            for line in lines:
                write_line(self.writer, line)
            self.writer.flush()

    def write(self, line: dict[str, Any]) -> None:
        """Write a line of the log and flush it."""
        with writing(self.file):
            write_line(self.writer, line)
            self.writer.flush()
