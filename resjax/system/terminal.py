"""Lines for whoever watches: whole words on a terminal, whole lines in files, pipes and notebooks."""

import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TextIO

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.text import Text

LONGEST_MESSAGE = 3000


@cache
def console() -> Console:
    """Return standard error as rich sees it."""
    return Console(stderr=True, highlight=False, force_jupyter=False)


def on_terminal(stream: TextIO) -> bool:
    """Say whether a stream is a terminal that can renew lines."""
    return stream.isatty() and not console().is_dumb_terminal


def room(stream: TextIO | None = None) -> float:
    """Return the columns of a line on a stream, by default standard error: no end of them where it is no terminal."""
    return console().width if on_terminal(stream or sys.stderr) else float("inf")


def fitted(parts: Iterable[str], columns: float) -> str:
    """Join parts as long as they fit, two spaces apart."""
    text = ""
    for part in parts:
        longer = f"{text}  {part}" if text else part
        if len(longer) > columns:
            break
        text = longer
    return text


class Told:
    """When the last line was told."""

    at = 0.0


def harmless(text: str, most: int = LONGEST_MESSAGE, kept: str = "\n") -> str:
    """Put what came from files or from the command line so that a terminal only shows it, and at a bounded length."""
    shown = "".join(letter if letter.isprintable() or letter in kept else "?" for letter in text[:most])
    return shown if len(text) <= most else f"{shown} ..."


def tell(text: str) -> None:
    """Say a line that stays, on standard error, where there is something to say."""
    if not text:
        return
    Told.at = time.monotonic()
    if on_terminal(sys.stderr):
        console().print(Text(text, overflow="ignore"), crop=False)
    else:
        sys.stderr.write(f"{text}\n")  # the line and its end at once: print() lets another thread's line come between
        sys.stderr.flush()


def say(text: str) -> None:
    """Print what a command was asked for; rows of progress that are shown meanwhile give way."""
    if on_terminal(sys.stdout) and not isinstance(sys.stdout, FileProxy):  # which is rich's own, while rows are shown
        Console(file=sys.stdout, highlight=False, force_jupyter=False).print(Text(text, overflow="ignore"), crop=False)
    else:
        print(text, flush=True)


def say_end(where: str, *commands: str) -> None:
    """Say where a command left its results, and what to try next, a line for each so that it can be copied whole."""
    say("\n".join([where, *(f"{'' if number else 'Next:':6}{each}" for number, each in enumerate(commands))]))


def hung(mark: str, text: str) -> str:
    """Fold a long text on a terminal beside its mark, whole words only, not below it."""
    return wrapped(f"{mark}  {text}", room(sys.stdout), len(mark) + 2)


def wrapped(text: str, columns: float, indent: int = 2) -> str:
    """Fold a text into lines of so many columns, whole words only; further ones are indented."""
    return text if columns == float("inf") else textwrap.fill(
        text, int(columns), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def say_table(markdown: str) -> None:
    """Print text in Markdown; on a terminal its tables are aligned, and columns that do not fit follow below."""
    if not on_terminal(sys.stdout):
        print(markdown, flush=True)
        return
    rows: list[list[str]] = []
    for line in [*markdown.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|")])
        else:
            if rows:
                say("\n".join(aligned([row for row in rows if set("".join(row)) - set("-:")], room(sys.stdout))))
            rows = []
            say(line)


def aligned(rows: Sequence[Sequence[str]], columns: float, numbers_from: int = 1) -> list[str]:
    """Align the cells of a table, numbers to the right; columns that do not fit follow below, beside the first."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    groups: list[list[int]] = [[0]] if widths else [[]]
    for place, width in enumerate(widths[1:], 1):
        if len(groups[-1]) > 1 and sum(widths[other] + 2 for other in groups[-1]) + width > columns:
            groups.append([0])
        groups[-1].append(place)
    lines: list[str] = []
    for group in groups:
        if lines:
            lines.append("")
        if len(group) == 2 and widths[0] + 2 + widths[group[1]] > columns > widths[0] + 20:  # folded beside the first
            lines += [wrapped(f"{row[0].ljust(widths[0])}  {row[group[1]]}", columns, widths[0] + 2) for row in rows]
            continue
        lines += ["  ".join(
            row[place].replace("\0", "|").ljust(widths[place]) if place < numbers_from
            else row[place].replace("\0", "|").rjust(widths[place]) for place in group).rstrip() for row in rows]
    return lines


def duration(seconds: float) -> str:
    """Write seconds as a person would: "2 h 05 min", "3 min 20 s", "8 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
