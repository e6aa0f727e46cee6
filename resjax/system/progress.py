"""Shows progress on standard error, as a live display on terminals and as plain lines elsewhere.

Tasks, such as loading, compiling or training, can be nested. A terminal shows the innermost task. If several networks
are trained, a row above the task shows the current network. Messages are printed above these rows and remain when the
rows are removed.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from threading import Timer
from typing import Any, ClassVar, TypeVar

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from resjax.system.terminal import LastMessage, console, duration, fitted, on_terminal, tell

Item = TypeVar("Item")
NAMED, AGAIN = 1.0, 30.0  # without a terminal: seconds before a task is named, and between its later lines
LONG = 5.0  # seconds after which a finished loop is reported
BAR = 10  # minimum width of a bar, in columns
SPARE = 4  # columns left free for the ^C that a terminal echoes


@dataclass(eq=False)
class Work:
    """A task; `total` is 0 if its size is unknown."""

    text: str
    total: int = 0
    done: int = 0
    seconds_left: float | None = None
    notes: tuple[str, ...] = ()
    begun: float = field(default_factory=lambda: time.monotonic())
    at: float = field(default_factory=lambda: time.monotonic())
    """The time of the last update."""

    def parts(self) -> list[str]:
        """Describe the progress, the most important part first. Before any progress, show the elapsed time."""
        if not self.total or not self.done:
            return [duration(time.monotonic() - self.begun)]
        left = [] if self.seconds_left is None else [f"{remaining(self.seconds_left, self.at)} left"]
        return [f"{100 * self.done / self.total:.0f} %", *left, f"{self.done:,} of {self.total:,}", *self.notes]


@dataclass(eq=False)
class Nets:
    """Networks that are trained one after the other, with their amounts of work in a common unit."""

    works: Sequence[float]
    number: int = 0
    seconds_left: float | None = None
    kind: str = "net"
    begun: float = field(default_factory=lambda: time.monotonic())
    at: float = field(default_factory=lambda: time.monotonic())
    """The time of the last estimate."""
    before: float | None = None
    """The seconds that this network spent loading and compiling before its first step. The other networks are assumed
    to take as long."""

    def parts(self) -> list[str]:
        """Describe the remaining time for all networks."""
        return [] if self.seconds_left is None else [f"{remaining(self.seconds_left, self.at)} left in total"]

    def estimate(self, left: float, whole: float) -> None:
        """Estimate the remaining seconds from the remaining and total seconds of the current network."""
        if self.before is None:
            self.before = time.monotonic() - self.begun
        later = self.works[self.number + 1:]
        self.seconds_left = left + whole * sum(later) / self.works[self.number] + self.before * len(later)
        self.at = time.monotonic()


def remaining(seconds: float, since: float) -> str:
    """Format the remaining seconds of an earlier estimate, minus the time elapsed since then."""
    return duration(max(0.0, seconds - (time.monotonic() - since)))


class Screen:
    """The display of this process. Of several processes that work as one, only the first is not `silent`."""

    works: ClassVar[list[Work]] = []
    nets: Nets | None = None
    live: Live | None = None
    silent = False


@contextmanager
def working(text: str, total: int = 0) -> Iterator[None]:
    """Show a task, of `total` parts if known, until the end of the block; see `advance`."""
    work = Work(text, total)
    Screen.works.append(work)
    try:
        with nullcontext() if Screen.silent else rows_shown() if on_terminal(sys.stderr) else named_later(text):
            yield
    except (Exception, KeyboardInterrupt):  # it also ends a loop over nets, whose generator a traceback keeps alive
        Screen.nets = None
        raise
    finally:
        if work in Screen.works:
            Screen.works.remove(work)


@contextmanager
def named_later(text: str) -> Iterator[None]:
    """Print a task's name once, unless it ends quickly."""
    timer = Timer(NAMED, tell, [f"{text} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def rows_shown() -> Iterator[None]:
    """Show the live rows, updated four times a second, unless they are already shown; remove them at the end."""
    if Screen.live:
        yield
        return
    Screen.live = Live(get_renderable=progress_lines, console=console(), refresh_per_second=4, transient=True,
                       redirect_stdout=on_terminal(sys.stdout))
    Screen.live.start()
    try:
        yield
    finally:
        clear()


def clear() -> None:
    """Remove the rows from the terminal when a command ends."""
    live, Screen.live, Screen.nets = Screen.live, None, None
    Screen.works.clear()
    if live:
        live.stop()


def progress_lines() -> RenderableType:
    """Lay out the current tasks for the width of the terminal."""
    nets, width, rows = Screen.nets, console().width - SPARE, []
    if nets:
        count = len(nets.works)
        title = f"{nets.kind} {nets.number + 1} of {count}"
        rows.append(progress_line(title, nets.parts(), nets.number / count, width))
    for work in Screen.works[-1:]:
        rows.append(progress_line(work.text, work.parts(), work.done / work.total if work.total else None, width))
    return Group(*rows)


def progress_line(text: str, parts: Sequence[str], fraction: float | None, columns: int) -> RenderableType:
    """Lay out one line: the name, a bar if there is room, and as many parts as fit."""
    bar = 0 if fraction is None else BAR + 2
    note = fitted(parts, columns - len(text) - 2 - bar) or fitted(parts, columns - len(text) - 2) or "".join(parts[:1])
    bar = min(columns - len(text) - len(note) - 4, 4 * BAR) if bar else 0
    line = Table.grid(padding=(0, 2, 0, 0))
    title = Text(text, no_wrap=True)
    title.truncate(columns - len(note) - 2, overflow="ellipsis")
    cells: list[Any] = [title]
    if bar >= BAR:
        cells.append(ProgressBar(total=1, completed=fraction or 0, width=bar))
    line.add_row(*cells, Text(note, no_wrap=True))
    return line


def advance(done: int, *notes: str, pace: float | None = None, total: int | None = None) -> None:
    """Update the innermost task with the parts done, seconds per part, and notes."""
    if Screen.silent or not Screen.works:
        return
    work, now = Screen.works[-1], time.monotonic()
    work.done, work.notes, work.total, work.at = done, notes, work.total if total is None else total, now
    if pace is not None:
        work.seconds_left = (work.total - done) * pace
    if not on_terminal(sys.stderr) and now - max(LastMessage.at, work.begun) >= AGAIN:
        tell(f"{work.text}: {', '.join(work.parts())}")


def advance_net(done: int, *notes: str, pace: float) -> str:
    """Update the training of the current network. Return the remaining time for all networks, if there are several."""
    advance(done, *notes, pace=pace)
    nets = Screen.nets
    if not (nets and Screen.works) or len(nets.works) == 1:
        return ""
    nets.estimate((Screen.works[-1].total - done) * pace, Screen.works[-1].total * pace)
    return f"{duration(nets.seconds_left or 0)} in total"


def track(items: Iterable[Item], text: str, total: int, unit: int = 1) -> Iterator[Item]:
    """Yield the items and show the progress, with `unit` parts per item. Report a loop that took long."""
    begun = time.monotonic()
    with working(text, total * unit):
        for number, item in enumerate(items, 1):
            yield item
            advance(number * unit, pace=(time.monotonic() - begun) / number / unit)
    if not Screen.silent and time.monotonic() - begun > LONG:
        tell(f"{text}: {total * unit:,} in {duration(time.monotonic() - begun)}")


def one_by_one(items: Sequence[Item], works: Sequence[float], kind: str = "net") -> Iterator[Item]:
    """Yield items, and show the current item and the remaining time for all. `works` are the items' relative costs."""
    with working(f"{len(items)} {kind if len(items) == 1 else f'{kind}s'}, one at a time"):
        begun, left = time.monotonic(), None
        for number, item in enumerate(items):
            if number:
                left = Screen.nets.seconds_left if Screen.nets else None
                if Screen.nets and Screen.nets.before is None:  # no steps measured: estimate from the finished items
                    left = (time.monotonic() - begun) * sum(works[number:]) / sum(works[:number])
            Screen.nets = Nets(works, number, left, kind)
            yield item
        Screen.nets = None


def chunks(count: int, size: int) -> list[range]:
    """Split range(count) into ranges of `size`; the last range may be shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
