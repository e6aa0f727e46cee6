"""Suppresses long error messages of libraries and their threads, because resjax reports these errors in one line."""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


def unless_over(hook: Callable[[Any], object], unraisable: Any) -> None:
    """Show a thread's exception, unless it only says that a failed save has closed the event loop."""
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


def leave_out_chatter() -> Callable[[], None]:
    """Suppress these messages from now on; return a function that undoes this.

    The command line never undoes the suppression, because threads of a failed save may outlive the training.
    """
    def is_told(record: logging.LogRecord) -> bool:  # one filter per call, since calls can be nested
        """Return whether to show a log record: not Orbax's long reports of raised errors and missing files."""
        error = "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else ""
        return "orbax" not in f"{record.pathname} {error}" or (
            record.levelno < logging.ERROR and "Metadata file" not in record.getMessage())

    loggers, hook = [logging.getLogger(library) for library in ("absl", "asyncio")], sys.unraisablehook
    for logger in loggers:
        logger.addFilter(is_told)
    sys.unraisablehook = partial(unless_over, hook)

    def undo() -> None:
        sys.unraisablehook = hook
        for logger in loggers:
            logger.removeFilter(is_told)

    return undo


@contextmanager
def without_chatter() -> Iterator[None]:
    """Suppress these messages until the end of the block."""
    undo = leave_out_chatter()
    try:
        yield
    finally:
        undo()
