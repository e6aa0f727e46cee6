"""Parses command-line arguments with tyro. Error messages take one line and suggest the nearest flag."""

import inspect
import io
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial, wraps
from typing import Any

import tyro

from resjax.console.commands import COMMANDS
from resjax.console.help import format_help, sections_of
from resjax.system.errors import BadInput, nearest
from resjax.system.terminal import say

FIELDS_WORDS = {  # flags that people know from elsewhere, and resjax's names for them
    "lr": "--optimizer.learning-rate", "wd": "--optimizer.weight-decay", "bs": "--batch-size", "epochs": "--steps",
    "iterations": "--steps", "max-steps": "--steps", "output-dir": "--workdir", "logdir": "--workdir",
    "output": "--workdir", "data-dir": "--data.directory", "dataset": "--data.source", "pretrained":
    "--initialize-from", "resume": "--workdir", "device": "--on", "gpus": "--devices", "num-workers": "--data.workers",
    "augment": "--data.flip", "milestones": "--optimizer.decay-steps", "opt": "--optimizer.method",
    "optimizer": "--optimizer.method", "clip-grad": "--optimizer.clip-norm", "model-ema": "--optimizer.ema-decay"}


def did_you_mean(word: str | None) -> str:
    """Return a "did you mean" question, or nothing if no word is close."""
    return f"; did you mean {word}?" if word else ""


def call(function: Callable[..., Any], arguments: Sequence[str], program: str) -> Any:
    """Call a function with the parsed arguments. Raises BadInput if they are invalid."""
    @wraps(function)
    def later(*values: Any, **named: Any) -> Callable[[], Any]:
        return partial(function, *values, **named)  # so that what the function itself prints is let through

    return parse(later, arguments, program)()


def parse(kind: Any, arguments: Sequence[str], program: str, **settings: Any) -> Any:
    """Build a `kind` from the arguments; `settings` are tyro's. Raises BadInput if they are invalid."""
    output, read = io.StringIO(), reader(kind, program, **settings)
    if {"-h", "--help"} & set(arguments):
        say(format_help(program, about(kind, program), sections_of(read), min(shutil.get_terminal_size().columns, 100)))
        raise SystemExit(0)
    try:
        with redirect_stderr(output):
            return read(args=[expand_home(argument) for argument in arguments])
    except SystemExit:
        flags = [flag for section in sections_of(read) for entry in section.entries for flag in entry.flags]
    raise BadInput(f"{complaint(output.getvalue(), arguments, flags)} (see {program} --help)")


def expand_home(argument: str) -> str:
    """Replace a `~` at the beginning of a value; shells do so only if no flag and `=` precede it."""
    flag, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    return f"{flag}{equals}{os.path.expanduser(value)}"


def reader(kind: Any, program: str, **settings: Any) -> Callable[..., Any]:
    """Return `tyro.cli` for a kind. Flags change an experiment's data but not their type; None is not a value."""
    return partial(tyro.cli, kind, prog=program, **settings, config=(
        tyro.conf.AvoidSubcommands, tyro.conf.DisallowNone, tyro.conf.PositionalMetavarFromFieldName))


def about(kind: Any, program: str) -> list[str]:
    """Return the first paragraphs of the help, which say what a command does and give an example."""
    command = COMMANDS.get(program.removeprefix("resjax ").split()[0])
    if command is None:
        return paragraphs(kind)
    description = [command.summary] if command.on_experiment else paragraphs(kind)
    return [*description, f"Example: resjax {command.example}"]


def paragraphs(kind: Any) -> list[str]:
    """Split the part of a docstring before its arguments at empty lines."""
    return inspect.cleandoc(kind.__doc__ or "").partition("\nArgs:")[0].strip().split("\n\n")


def complaint(text: str, arguments: Sequence[str], flags: Sequence[str]) -> str:
    """Describe an error in one line, by the unknown flag with a suggestion, or else by tyro's message."""
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if re.match("--?[a-z]", flag) and flag not in flags:
            return f"unknown flag {argument.partition('=')[0]}{suggest_flag(flag.lstrip('-'), flags)}"
    blocks = re.split(r"^.*[─-]{9,}.*$", re.sub("[│╭╮╰╯]", " ", text), flags=re.MULTILINE)  # in boxes: title, complaint
    text = " ".join((blocks[1] if len(blocks) > 1 else text).split()).replace("Error parsing ", "")
    text = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number", text)
    return re.sub(r"could not convert string to float: (.*)", r"\1 is not a number", text)


def suggest_flag(name: str, flags: Sequence[str]) -> str:
    """Suggest the nearest flag, by its full name or its last part."""
    last = {flag.rpartition(".")[2].removeprefix("--"): flag for flag in reversed(flags)}
    word, close = FIELDS_WORDS.get(name), nearest(name, last)
    return did_you_mean(word if word in flags else last[close] if close else nearest(name, flags))
