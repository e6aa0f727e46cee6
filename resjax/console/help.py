"""Writes the help of a command from tyro's text, with the names of Python fields replaced by flags."""

import io
import os
import re
import textwrap
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, NamedTuple

COLUMN = 24  # where the text of a flag begins
# Names of text values in the help, by the last part of the flag.
VALUES = {"initialize-from": "NETWORK", "source": "SOURCE", "data": "SOURCE", "only": "ROWS", "shard": "PART/PARTS",
          "of": "CLASS", "key": "NAME", "name": "NAME", "train": "SET", "test": "SET", "classes": "CLASS"}


class Argument(NamedTuple):
    """A flag, with its negation if it has one, or a positional argument, which has no flags."""

    flags: tuple[str, ...]
    value: str
    text: str

    @property
    def choices(self) -> list[str]:
        """Return the allowed words; empty if any value is allowed."""
        return self.value.strip("{}").split(",") if self.value.startswith("{") else []

    @property
    def heading(self) -> str:
        """Return the flag or argument as it is typed."""
        return " ".join(part for part in (", ".join(self.flags), self.value) if part)


class Section(NamedTuple):
    """A group of related flags, with a description."""

    title: str
    about: str
    entries: list[Argument]


def sections_of(read: Callable[..., Any]) -> list[Section]:
    """Read the help that tyro writes for a parser; `read` is `tyro.cli` with this parser."""
    output, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"  # makes tyro write its boxes in one column
    try:
        with redirect_stdout(output):
            read(args=["--help"])
    except SystemExit:
        pass
    finally:
        os.environ.pop("COLUMNS")
        os.environ |= {"COLUMNS": columns} if columns else {}
    lines = [re.sub(r"^[│╭╰]|[│╮╯]$", " ", line).rstrip() for line in output.getvalue().splitlines()]
    ruled = [bool(re.fullmatch(" *[-─]{9,} *", line)) for line in lines]
    starts = [at for at in range(len(lines) - 1) if ruled[at + 1] and re.match(" [a-z]", lines[at])]
    return [section(lines[start].strip(), lines[start + 2:end], ruled[start + 2:end])
            for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]


def section(title: str, lines: list[str], ruled: list[bool]) -> Section:
    """Read one box: a description above a second rule, if there is one, and the entries below it."""
    about = ruled.index(True) if True in ruled else -1
    groups: list[list[str]] = []
    for line in lines[about + 1:]:
        if re.match(r"  (-|[A-Z\[{])", line):
            groups.append([line])
        elif line and groups:
            groups[-1].append(line)
    entries = [entry(group) for group in groups]
    description = " ".join(" ".join(lines[:max(about, 0)]).split())
    return Section(title, description, [each for each in entries if "-h" not in each.flags])


def entry(lines: list[str]) -> Argument:
    """Read one flag. A long list of values is broken after commas."""
    text = "\n".join(lines)
    text = re.sub(r",\n  (?=\S)", ",", text)
    head, _, description = text.strip().replace("\n", "  ").partition("  ")
    *flags, last = head.split(", ") if head.startswith("-") else ["", head]
    flag, _, value = last.partition(" ") if head.startswith("-") else ("", "", last)
    names = tuple(name for name in (*flags, flag) if name)
    value = re.sub(r"\[(\w+) \[\1 \.\.\.\]\]", r"\1 ...", value)
    if names:
        value = re.sub(r"\bSTR\b", VALUES.get(names[0].rpartition(".")[2].removeprefix("--"), "TEXT"), value)
    description = " ".join(description.split())
    description = re.sub(r" ?\(default: (None|False|''|)\)$", "", description)
    description = description.replace("(default: True)", "(default: on)")
    return Argument(names, value, description.removesuffix(" (required)") if not names else description)


def format_help(program: str, about: list[str], sections: list[Section], columns: int) -> str:
    """Write the help of a command, at most `columns` wide."""
    flags = {flag.rpartition(".")[2].removeprefix("--"): flag for part in reversed(sections)
             for e in part.entries for flag in e.flags[:1]}
    arguments = [e.value for part in sections for e in part.entries if not e.flags]
    lines = [" ".join(["usage:", program, *arguments, "[--flag value ...]" if flags else ""]).rstrip()]
    for paragraph in about:
        lines += ["", *textwrap.wrap(paragraph, columns)]
    for part in sections:
        if part.entries:
            lines += ["", f"{part.title.removeprefix('positional ')}:",
                      *textwrap.wrap(part.about, columns, initial_indent="  ", subsequent_indent="  ")]
        for e in part.entries:
            lines += placed(e.heading, in_words(e.text, flags), columns)
    return "\n".join(lines)


def placed(heading: str, text: str, columns: int) -> list[str]:
    """Place a flag and its text side by side, or the text below if the flag is long."""
    head = textwrap.wrap(heading.replace(",", ", ") if len(heading) > columns else heading, columns,
                         initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    body = textwrap.wrap(text, columns, initial_indent=" " * COLUMN, subsequent_indent=" " * COLUMN,
                         break_on_hyphens=False)
    if len(heading) + 4 <= COLUMN and body:
        return [f"  {heading}".ljust(COLUMN) + body[0].lstrip(), *body[1:]]
    return [*head, *body]


def in_words(text: str, flags: dict[str, str]) -> str:
    """Replace the names of Python fields (`decay_steps`, `data.size`) by the flags that set them."""
    def flag(match: re.Match[str]) -> str:
        return flags.get(match[1].rpartition(".")[2].replace("_", "-"), match[0])

    return re.sub(r"`([a-z_.-]+)`", flag, text)
