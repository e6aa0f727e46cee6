"""What libraries tell of failures, in pages or from threads, that resjax tells in one line: left out where it works."""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any


def is_news(record: logging.LogRecord) -> bool:
    """Say whether a library's line is to be shown: Orbax's tell in pages what it raises, and of files that it lacks."""
    error = "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else ""
    return "orbax" not in f"{record.pathname} {error}" or (
        record.levelno < logging.ERROR and "Metadata file" not in record.getMessage())


def unless_over(hook: Callable[[Any], object], unraisable: Any) -> None:
    """Show what a thread raises, but where a save has failed and other parts of it find that it is over."""
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


def leave_out_chatter() -> Callable[[], None]:
    """Leave it out from now on; return what undoes this.

    The command line does so for good, as threads of a failed save may outlive the training.
    """
    def is_told(record: logging.LogRecord) -> bool:  # a filter of this call's own, as calls can be nested
        return is_news(record)

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
    """Leave it out until the end of the block."""
    undo = leave_out_chatter()
    try:
        yield
    finally:
        undo()
