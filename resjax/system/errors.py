"""The exceptions of resjax. The command line prints their messages without a traceback."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import takewhile


class BadInput(ValueError):
    """The user's input is wrong. The message names the input and says what is allowed.

    On the command line, the exit code is 2.
    """


def check(true: bool, message: str) -> None:
    """Raise `BadInput(message)` unless `true`."""
    if not true:
        raise BadInput(message)


class Diverged(RuntimeError):
    """The loss or a parameter is no longer finite. The message names the step.

    On the command line, the exit code is 1.
    """


class Lost(RuntimeError):
    """A process that this one needs has died. The message says which process it is, and how to resume.

    On the command line, the exit code is 1.
    """


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP stopped the run. The message says how to resume it.

    On the command line, the exit code is 128 + `signal`.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the most similar word, if any, by letters and digits; for ties, the one with the longest common prefix."""
    def likeness(other: str) -> tuple[float, int]:
        a, b = (re.sub(r"[\W_]", "", each).lower() for each in (word, other))
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
        return SequenceMatcher(None, a, b).ratio(), len(list(alike))

    best = max(words, key=likeness, default="")
    return best if likeness(best)[0] >= 0.6 else None
