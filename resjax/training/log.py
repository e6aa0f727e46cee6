"""What a run tells while it goes on: `metrics.jsonl`, and lines for whoever watches."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from resjax.distributed import is_first
from resjax.files import write_text

Line = dict[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class RunningMetrics:
    """Sums since the last line of the log, and the seconds of training since the start of the run.

    A task adds fields for the sums of its own. Frozen, since a checkpoint is written while the run goes on.
    """

    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    total_seconds: float = 0.0

    def plus(self, found: Any, seconds: float, waited: float) -> Self:
        """Add the sums of a call, the seconds it took, and of them those that the devices waited for data."""
        sums = {key: getattr(self, key) + np.sum(value).item() for key, value in found._asdict().items()
                if key != "learning_rate"}
        return replace(self, **sums, seconds=self.seconds + seconds, waited=self.waited + waited,
                       total_seconds=self.total_seconds + seconds)

    def means(self) -> Line:
        """Divide the sums of the task, once."""
        raise NotImplementedError

    def line(self, step: int, rate: float) -> Line:
        """Make the training line of the log; the time that the devices waited for data is in percent."""
        return {"step": step, "kind": "train", **self.means(), "learning_rate": rate,
                "images_per_second": self.images / self.seconds, "data_wait": 100 * self.waited / self.seconds}

    def emptied(self) -> Self:
        """Begin the next line."""
        return type(self)(total_seconds=self.total_seconds)


class Stopwatch:
    """Seconds of training, without what it stood still for; and of them those that were spent on waiting for data."""

    def __init__(self) -> None:
        self.started, self.waited = time.perf_counter(), 0.0

    def lap(self) -> tuple[float, float]:
        """Return both since the last lap, and begin the next."""
        now, waited = time.perf_counter(), self.waited
        seconds, self.started, self.waited = now - self.started, now, 0.0
        return seconds, waited

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stand still meanwhile."""
        begun = time.perf_counter()
        yield
        self.started += time.perf_counter() - begun

    def waits(self, items: Iterator[Item]) -> Iterator[Item]:
        """Pass items on, and count the time until each comes; the first comes before training begins."""
        item = next(items, None)
        self.started = time.perf_counter()
        while item is not None:
            yield item
            begun = time.perf_counter()
            item = next(items, None)
            self.waited += time.perf_counter() - begun


@dataclass(frozen=True)
class Log:
    """Writes to a run directory and tells on standard error, for a run of so many steps.

    `followed_by` is the work that comes after this run, in units of this run.
    """

    run_directory: Path
    name: str
    steps: int
    batch_size: int
    followed_by: float = 0.0

    def record(self, line: Line) -> None:
        """Append a line to `metrics.jsonl`, on disk before this returns, and tell it. OSError: the disk is full."""
        if is_first():
            with (self.run_directory / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        self.tell(self.describe(line))

    def tell(self, text: str, any_process: bool = False) -> None:
        """Print a line that stays: from the first of many processes, or from any."""
        if is_first() or any_process:
            start = "\r\033[K" if sys.stderr.isatty() else ""
            print(f"{start}{self.name}  {text}", file=sys.stderr, flush=True)

    def remark(self, text: str) -> None:
        """Print a line where there is something to say."""
        if text:
            self.tell(text)

    def glance(self, line: Line) -> None:
        """Show a line that the next one overwrites, on a terminal only."""
        if is_first() and sys.stderr.isatty():
            print(f"\r\033[K{self.name}  {self.describe(line)}", end="", file=sys.stderr, flush=True)

    def describe(self, line: Line) -> str:
        """Put a line of the metrics into words."""
        match line["kind"]:
            case "train":
                text = (f"loss {line['loss']:.4f}  error {line['error']:.2f} %  rate {line['learning_rate']:g}  "
                        f"{line['images_per_second']:.0f} images/s  {self.left(line)} left")
                if line["data_wait"] >= 1:
                    text += f"  waits for data {line['data_wait']:.0f} % of the time"
            case "compile":
                text = f"compiled in {line['seconds']:.1f} s"
            case "detection":
                classes = "  ".join(f"{name} {value:.1f}" for name, value in line["average_precision"].items()
                                    if value is not None)
                text = (f"mAP {line['mean_average_precision']:.2f} % at 0.5 (11 points: {line['eleven_point']:.2f} %)"
                        f"  {classes}")
            case kind:
                text = (f"{kind}: top-1 error {line['top1_error']:.2f} %  top-5 error {line['top5_error']:.2f} %  "
                        f"loss {line['loss']:.4f}")
        return f"step {line['step']}/{self.steps}  {text}"

    def left(self, line: Line) -> str:
        """Say how long the run will still train at the rate of this line, and the runs after it with it."""
        seconds_a_step = self.batch_size / line["images_per_second"]
        left = (self.steps - line["step"]) * seconds_a_step
        overall = left + self.followed_by * self.steps * seconds_a_step
        return duration(left) if not self.followed_by else f"{duration(left)} (all runs: {duration(overall)})"


def duration(seconds: float) -> str:
    """Write seconds as a person would: "2 h 05 min", "3 min 20 s", "8 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


NUMBERS = {"train": ("loss", "error", "learning_rate", "images_per_second"), "compile": ("seconds",),
           "validation": ("top1_error", "top5_error", "loss"), "test": ("top1_error", "top5_error", "loss"),
           "detection": ("mean_average_precision", "eleven_point")}
MEASURED = {"validation", "test", "detection"}  # the kinds of what is measured between steps and at the end


def read_metrics(run_directory: str | Path, kind: str | None = None) -> list[Line]:
    """Read the lines of `metrics.jsonl`: of one kind ("train", "validation", "test", "compile"), or all.

    What is no such line, as the one under way when a process was killed, is left out.
    """
    return [line for line in parsed_lines(Path(run_directory)) if line and kind in (None, line["kind"])]


def parsed_lines(run_directory: Path) -> list[Line]:
    """Read all lines; one that is none is empty."""
    file, lines = run_directory / "metrics.jsonl", []
    for text in file.read_bytes().splitlines() if file.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        lines.append(line if is_line(line) else {})
    return lines


def is_line(line: Any) -> bool:
    """Say whether something has all the numbers of a line of the log."""
    if not isinstance(line, dict) or line.get("kind") not in NUMBERS:
        return False
    return all(type(line.get(key)) in (int, float) for key in ("step", *NUMBERS[line["kind"]]))


def rewind_metrics(log: Log, step: int) -> None:
    """Drop the lines after `step`, which the restored run writes again, as it measures again after its last step."""
    if not is_first():
        return
    lines = parsed_lines(log.run_directory)
    lost = sum(not line for line in lines[:-1])  # the last may have been under way
    log.remark(f"metrics.jsonl: {lost} lines cannot be read and are left out" if lost else "")
    kept = [line for line in lines if line and (line["step"] < step or (
        line["step"] == step and (step < log.steps or line["kind"] not in MEASURED)))]
    write_text(log.run_directory / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
