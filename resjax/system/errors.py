"""What can go wrong, told apart by who can fix it. The command line prints each without a traceback."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import takewhile


class BadInput(ValueError):
    """The user's input is wrong; the message names it and says what would be right. Exit code 2."""


def check(true: bool, message: str) -> None:
    """Raise `BadInput(message)` unless `true`."""
    if not true:
        raise BadInput(message)


class Diverged(RuntimeError):
    """The loss, or a parameter, is no longer finite; the message names the step. Exit code 1."""


class Lost(RuntimeError):
    """A process that this one needs has died; the message says which, and how to resume. Exit code 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP, with the state saved; the message says how to resume. Exit code 128 + `signal`."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the word that was meant, if one is near: by its letters and digits, and of equals by how it begins."""
    def likeness(other: str) -> tuple[float, int]:
        a, b = (re.sub(r"[\W_]", "", each).lower() for each in (word, other))
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
        return SequenceMatcher(None, a, b).ratio(), len(list(alike))

    best = max(words, key=likeness, default="")
    return best if likeness(best)[0] >= 0.6 else None
