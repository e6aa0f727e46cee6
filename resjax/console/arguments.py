"""From typed words to typed values, by tyro; what is wrong with them is one message, with the nearest right word."""

import io
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial, wraps
from typing import Any

import tyro

from resjax.system.errors import BadInput, nearest

FIELDS_WORDS = {  # what people type, and the flag that it is here
    "lr": "--optimizer.learning-rate", "wd": "--optimizer.weight-decay", "bs": "--batch-size", "epochs": "--steps",
    "iterations": "--steps", "max-steps": "--steps", "output-dir": "--workdir", "logdir": "--workdir",
    "output": "--workdir", "data-dir": "--data.directory", "dataset": "--data.source", "pretrained":
    "--initialize-from", "resume": "--workdir", "device": "--on", "gpus": "--devices", "num-workers": "--data.workers",
    "augment": "--data.flip", "milestones": "--optimizer.decay-steps", "opt": "--optimizer.method",
    "optimizer": "--optimizer.method", "clip-grad": "--optimizer.clip-norm", "model-ema": "--optimizer.ema-decay"}


def did_you_mean(word: str | None) -> str:
    """Ask whether a word was meant; nothing where none is near."""
    return f"; did you mean {word}?" if word else ""


def call(function: Callable[..., Any], arguments: Sequence[str], program: str) -> Any:
    """Call a function with what its flags and words say. Raises BadInput where they are wrong."""
    @wraps(function)
    def later(*values: Any, **named: Any) -> Callable[[], Any]:
        return partial(function, *values, **named)  # so that what the function itself prints is let through

    return parse(later, arguments, program,
                 config=(tyro.conf.DisallowNone, tyro.conf.PositionalMetavarFromFieldName))()


def parse(kind: Any, arguments: Sequence[str], program: str, **settings: Any) -> Any:
    """Make a `kind` of the arguments; `settings` are tyro's. Raises BadInput where they are wrong."""
    told = io.StringIO()
    summary = " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
    columns = min(shutil.get_terminal_size().columns, 100)
    read = partial(tyro.cli, kind, prog=program, description=textwrap.fill(summary, columns), **settings)
    try:
        with redirect_stderr(told):
            return read(args=list(arguments))
    except SystemExit as stop:
        if not stop.code:  # help, which is on standard output
            raise
    raise BadInput(f"{complaint(told.getvalue(), arguments, known_flags(read))} ({program} --help lists "
                   "all)") from None


def known_flags(read: Callable[..., Any]) -> list[str]:
    """List the flags that the help of a command names."""
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            read(args=["--help"])
    except SystemExit:
        pass
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", text.getvalue())))


def complaint(told: str, arguments: Sequence[str], flags: Sequence[str]) -> str:
    """Say what is wrong: a flag that is none, with the one that was meant, or what tyro says, in one line."""
    for argument in arguments:
        flag = argument.partition("=")[0].replace("_", "-")
        if re.match("--?[a-z]", flag) and flag not in flags:
            return f"unknown flag {argument.partition('=')[0]}{meant(flag.lstrip('-'), flags)}"
    blocks = re.split(r"^.*[─-]{9,}.*$", re.sub("[│╭╮╰╯]", " ", told), flags=re.MULTILINE)  # in boxes: title, complaint
    text = " ".join((blocks[1] if len(blocks) > 1 else told).split()).replace("Error parsing ", "")
    text = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number", text)
    return re.sub(r"could not convert string to float: (.*)", r"\1 is not a number", text)


def meant(name: str, flags: Sequence[str]) -> str:
    """Ask whether the nearest flag was meant, by its whole name or its last part."""
    last = {flag.rpartition(".")[2].removeprefix("--"): flag for flag in reversed(flags)}
    word, close = FIELDS_WORDS.get(name), nearest(name, last)
    return did_you_mean(word if word in flags else last[close] if close else nearest(name, flags))
