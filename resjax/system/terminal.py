"""Prints text, and wraps long lines on terminals, but not in files, pipes or notebooks."""

import shlex
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
    """Return rich's console for standard error."""
    return Console(stderr=True, highlight=False, force_jupyter=False)


def on_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can redraw lines."""
    return stream.isatty() and not console().is_dumb_terminal


def room(stream: TextIO | None = None) -> float:
    """Return the number of columns of a stream, by default standard error; unlimited if it is not a terminal."""
    return console().width if on_terminal(stream or sys.stderr) else float("inf")


def fitted(parts: Iterable[str], columns: float) -> str:
    """Join as many parts as fit, separated by two spaces."""
    text = ""
    for part in parts:
        longer = f"{text}  {part}" if text else part
        if len(longer) > columns:
            break
        text = longer
    return text


class LastMessage:
    """The time of the last message."""

    at = 0.0


def harmless(text: str, most: int = LONGEST_MESSAGE, allowed: str = "\n") -> str:
    """Escape control characters of text from files or the command line, and limit its length."""
    printable = "".join(letter if letter.isprintable() or letter in allowed else "?" for letter in text[:most])
    return printable if len(text) <= most else f"{printable} ..."


def tell(text: str) -> None:
    """Print a permanent message on standard error, unless it is empty."""
    if not text:
        return
    LastMessage.at = time.monotonic()
    if on_terminal(sys.stderr):
        console().print(Text(text, overflow="ignore"), crop=False)
    else:
        sys.stderr.write(f"{text}\n")  # a single write, because with print(), lines of threads interleave
        sys.stderr.flush()


def say(text: str) -> None:
    """Print a command's output. Live progress rows make room for it."""
    if on_terminal(sys.stdout) and not isinstance(sys.stdout, FileProxy):  # rich replaces it while rows are shown
        Console(file=sys.stdout, highlight=False, force_jupyter=False).print(Text(text, overflow="ignore"), crop=False)
    else:
        print(text, flush=True)


def say_end(where: str, *commands: str) -> None:
    """Print where a command wrote its results and what to try next. Each is one unfolded line, for copying."""
    say("\n".join([where, *(f"{'' if number else 'Next:':6}{each}" for number, each in enumerate(commands))]))


def speed(images_per_second: float) -> str:
    """Format a speed, such as "684 images/s" or "0.14 images/s"."""
    return f"{images_per_second:.{0 if images_per_second >= 10 else 2}f} images/s"


def quoted(value: object) -> str:
    """Quote a value for a command line that can be copied."""
    return shlex.quote(str(value))


def hung(mark: str, text: str) -> str:
    """Fold a long text on a terminal with a hanging indent."""
    return wrapped(f"{mark}  {text}", room(sys.stdout), len(mark) + 2)


def wrapped(text: str, columns: float, indent: int = 2) -> str:
    """Fold text at word boundaries into lines of at most `columns`. All lines except the first are indented."""
    return text if columns == float("inf") else textwrap.fill(
        text, int(columns), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def say_table(markdown: str) -> None:
    """Print Markdown text. On a terminal, tables are aligned, and columns that do not fit follow below."""
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
    """Align the cells of a table, numbers to the right. Columns that do not fit follow below, next to the first."""
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
        if len(group) == 2 and widths[0] + 2 + widths[group[1]] > columns > widths[0] + 20:  # fold the last column
            lines += [wrapped(f"{row[0].ljust(widths[0])}  {row[group[1]]}", columns, widths[0] + 2) for row in rows]
            continue
        lines += ["  ".join(
            row[place].replace("\0", "|").ljust(widths[place]) if place < numbers_from
            else row[place].replace("\0", "|").rjust(widths[place]) for place in group).rstrip() for row in rows]
    return lines


def duration(seconds: float) -> str:
    """Format seconds for people, such as "2 h 05 min", "3 min 20 s" or "8 s"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
