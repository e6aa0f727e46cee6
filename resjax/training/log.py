"""The log of a training run, in `metrics.jsonl` and as progress lines on the terminal."""

import csv
import io
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from resjax.system.distributed import is_first
from resjax.system.files import expanded, regular, write_text, writing
from resjax.system.progress import advance_net, working
from resjax.system.terminal import duration, fitted, room, speed, tell
from resjax.training.tensorboard import Events

Line = dict[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class RunningMetrics:
    """Sums since the last line of the log, and the seconds of training since the start of the run.

    Tasks add fields for their own sums. The class is frozen, because a checkpoint is written while training continues.
    """

    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    total_seconds: float = 0.0

    def plus(self, metrics: Any, seconds: float, waited: float) -> Self:
        """Add the sums of a call, its duration in seconds, and the seconds for which the devices waited for data."""
        sums = {key: getattr(self, key) + np.sum(value).item() for key, value in metrics._asdict().items()
                if key != "learning_rate"}
        return replace(self, **sums, seconds=self.seconds + seconds, waited=self.waited + waited,
                       total_seconds=self.total_seconds + seconds)

    def means(self) -> Line:
        """Return the task's metrics, which are divided only here."""
        raise NotImplementedError

    def line(self, step: int, rate: float) -> Line:
        """Return the training line of the log. The time for which devices waited for data is in percent.

        A learning rate of NaN means that it is unknown, and is left out.
        """
        known = {} if math.isnan(rate) else {"learning_rate": rate}
        return {"step": step, "kind": "train", **self.means(), **known,
                "images_per_second": self.images / self.seconds, "data_wait": 100 * self.waited / self.seconds}


class Stopwatch:
    """Measures the seconds of training without pauses, and how many of these seconds were spent waiting for data."""

    def __init__(self) -> None:
        self.started, self.waited = time.perf_counter(), 0.0

    def lap(self) -> tuple[float, float]:
        """Return both times since the last lap, and start a new lap."""
        now, waited = time.perf_counter(), self.waited
        seconds, self.started, self.waited = now - self.started, now, 0.0
        return seconds, waited

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Pause inside the block."""
        begun = time.perf_counter()
        yield
        self.started += time.perf_counter() - begun

    def waits(self, items: Iterator[Item]) -> Iterator[Item]:
        """Yield items and count the time until each arrives; the first arrives before training begins."""
        item = next(items, None)
        self.started = time.perf_counter()
        while item is not None:
            yield item
            begun = time.perf_counter()
            item = next(items, None)
            self.waited += time.perf_counter() - begun


@dataclass(frozen=True)
class Log:
    """Writes the log of a run to its directory, and its progress to standard error."""

    run_directory: Path
    name: str
    steps: int
    batch_size: int
    events: Events | None = None

    def record(self, line: Line) -> None:
        """Append a line to `metrics.jsonl`, sync it to disk, and show it. Raises OSError if the disk is full."""
        if is_first():
            metrics = self.run_directory / "metrics.jsonl"
            with writing(metrics), metrics.open("a", encoding="utf-8") as file:
                file.write(as_json(line))
                file.flush()
                os.fsync(file.fileno())
            if self.events:
                self.events.write(line)
        left = self.glance(line) if line["kind"] == "train" else ()
        columns = room()
        parts = self.parts(line) if columns < float("inf") else (*self.parts(line), *left)
        self.tell(fitted(parts, columns - len(self.name) - 2))

    def tell(self, text: str, any_process: bool = False) -> None:
        """Print a permanent message unless it is empty. Only the first process prints, unless `any_process` is set."""
        if text and (is_first() or any_process):
            tell(f"{self.name}  {text}")

    def doing(self, text: str, total: int = 0) -> AbstractContextManager[None]:
        """Show what the run is doing, such as "compiling", until the end of the block."""
        return working(f"{self.name}  {text}", total)

    def training(self) -> AbstractContextManager[None]:
        """Show the training progress until the end of the block."""
        return self.doing("training", self.steps)

    def glance(self, line: Line) -> tuple[str, ...]:
        """Update the training progress. Return the remaining times of this run and of all runs."""
        pace = self.batch_size / line["images_per_second"]
        for_all = advance_net(line["step"], *self.parts(line)[1:], pace=pace)
        left = f"{duration((self.steps - line['step']) * pace)} left"
        return (left, f"({for_all})") if for_all else (left,)

    def parts(self, line: Line) -> tuple[str, ...]:
        """Format a line of the log as text, the most important numbers first."""
        step = f"step {line['step']}/{self.steps}"
        match line["kind"]:
            case "train":
                waits = [f"waited for data {line['data_wait']:.0f} % of the time"] if line["data_wait"] >= 1 else []
                rate = [f"rate {line['learning_rate']:g}"] if "learning_rate" in line else []
                error = [f"error {line['error']:.2f} %"] if "error" in line else []
                return (step, f"loss {line['loss']:.4f}", *error, *waits, *rate,
                        speed(line["images_per_second"]))
            case "compile":
                return step, f"compiled in {line['seconds']:.1f} s"
            case "detection" if line["mean_average_precision"] is None:
                return step, "no mAP, because no test image has an object that counts"
            case "detection":
                return (step, f"mAP {line['mean_average_precision']:.2f} % at 0.5",
                        f"(11 points: {line['eleven_point']:.2f} %)",
                        *(f"{name} {value:.1f}" for name, value in line["average_precision"].items()
                          if value is not None))
            case "own":
                return step, *(f"{name} {value:.4g}" for name, value in line.items() if name not in ("step", "kind"))
            case kind:
                first, *rest = errors_in_words(line)
                return step, f"{kind}: {first}", *rest, f"loss {line['loss']:.4f}"


def errors_in_words(errors: Mapping[str, Any]) -> list[str]:
    """Format the top-1 error and the top-5 error. A top-5 error of 0, as for up to five classes, is left out."""
    five = [f"top-5 error {errors['top5_error']:.2f} %"] if errors["top5_error"] else []
    return [f"top-1 error {errors['top1_error']:.2f} %", *five]


NUMBERS = {"train": ("loss", "images_per_second"), "compile": ("seconds",), "own": (),
           "validation": ("top1_error", "top5_error", "loss"), "test": ("top1_error", "top5_error", "loss"),
           "detection": ("mean_average_precision", "eleven_point")}
MEASURED = {"validation", "test", "detection"}  # kinds of lines with evaluations


def read_metrics(run_directory: str | Path, kind: str | None = None) -> list[Line]:
    """Read the lines of `metrics.jsonl`, either of one kind ("train", "validation", "test", "own") or all of them.

    Lines of the kind "own" contain the numbers that a callback returned, with None for NaN and infinity. Incomplete
    lines, such as the last line that a killed process wrote, are left out.
    """
    return [line for line in parsed_lines(expanded(run_directory)) if line and kind in (None, line["kind"])]


def parsed_lines(run_directory: Path) -> list[Line]:
    """Parse all lines. An invalid line becomes an empty one."""
    file, lines = run_directory / "metrics.jsonl", []
    for text in regular(file).read_bytes().splitlines() if file.exists() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        lines.append(line if is_line(line) else {})
    return lines


def is_line(line: Any) -> bool:
    """Return whether a value has all the numbers of a log line."""
    if not isinstance(line, dict) or line.get("kind") not in NUMBERS:
        return False
    missing = {type(None)} if line["kind"] == "detection" else set()  # the value if no test image has an object
    numbers = type(line.get("step")) is int and type(line.get("error", 0)) in {int, float}  # not all phases have errors
    return numbers and all(
        key in line and type(line[key]) in {int, float, *missing} for key in NUMBERS[line["kind"]])


def rewind_metrics(log: Log, step: int) -> None:
    """Drop the lines that a run resumed at `step` will write again.

    These are the lines of later steps and, if `step` is the last step, the lines of its evaluation. If a finished run
    is extended, the lines of its last evaluation remain, because it measured the state from which the run continues.
    """
    if not is_first():
        return
    lines = parsed_lines(log.run_directory)
    lost = sum(not line for line in lines[:-1])  # the last one may be incomplete
    log.tell(f"metrics.jsonl: dropped {lost} unreadable lines" if lost else "")
    remaining = [line for line in lines if line and (line["step"] < step or (
        line["step"] == step and (step < log.steps or line["kind"] not in MEASURED)))]
    write_text(log.run_directory / "metrics.jsonl", "".join(map(as_json, remaining)))
    if log.events:
        log.events.begin(step, [line for line in remaining if line["step"] == step])


def as_json(line: Line) -> str:
    """Format a line of the log. Numbers of a callback that are not finite become null, because JSON has no NaN."""
    if line["kind"] == "own":
        line = {key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in line.items()}
    return json.dumps(line) + "\n"


def export_csv(run_directory: Path) -> None:
    """Write the numbers of `metrics.jsonl` to `metrics.csv`, with one row per line and one column per number."""
    rows = [{key: value for key, value in line.items() if type(value) in (int, float, str)}
            for line in read_metrics(run_directory)]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(run_directory / "metrics.csv", table.getvalue())
