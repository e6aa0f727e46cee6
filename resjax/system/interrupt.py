"""Handles Ctrl-C, SIGTERM and SIGHUP: training stops between two steps, and all other work stops at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

from resjax.system.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Requests:
    """The stop request that this process received. If it is `held`, it is not raised; callers check for it."""

    received: signal.Signals | None = None
    listening = False
    held = False


@contextmanager
def stop_requests() -> Iterator[None]:
    """Listen for stop requests until the end of the block, unless already listening. The first one raises
    `Interrupted`.

    A second Ctrl-C ends the process at once. Signals that were ignored when the process started (nohup) stay ignored.
    """
    if Requests.listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, receive) for number in SIGNALS
              if signal.getsignal(number) is not signal.SIG_IGN}
    hook = sys.unraisablehook
    sys.unraisablehook = partial(without_requests, hook)
    Requests.listening, Requests.received = True, None
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
        Requests.listening, Requests.received = False, None


def receive(number: int, frame: FrameType | None) -> None:
    """Record a request, and raise it unless requests are held. During an import, retry a little later."""
    if importing(frame):
        again = threading.Timer(0.05, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    if Requests.received and number == signal.SIGINT:
        cursor = b"\033[?25h" if os.isatty(2) else b""  # show the cursor, which the progress display hides
        os.write(2, cursor + b"\nresjax: SIGINT, again: ended at once\n")
        os._exit(128 + number)
    if not Requests.received:
        Requests.received = signal.Signals(number)
        heed()


def importing(frame: FrameType | None) -> bool:
    """Return whether our code is importing a module, because an exception during the import may crash C extensions."""
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        if str(frame.f_globals.get("__name__")).startswith("resjax.") and frame.f_code.co_name != "<module>":
            return False
        frame = frame.f_back
    return False


def heed() -> None:
    """Raise a pending request, unless requests are held or all processes have to agree on the request."""
    if Requests.received and not Requests.held and not many_processes():
        raise Interrupted(f"{Requests.received.name}: stopped; run the same command to resume from the last checkpoint",
                          Requests.received)


@contextmanager
def requests(*, held: bool) -> Iterator[None]:
    """Hold stop requests back until the end of the block or, inside such a block, raise them again."""
    before, Requests.held = Requests.held, held
    try:
        heed()
        yield
    finally:
        Requests.held = before
    heed()


def requested() -> int:
    """Return the number of the received stop signal, or 0."""
    return int(Requests.received or 0)


def many_processes() -> bool:
    """Return whether JAX has connected this process to others, without importing JAX."""
    joined: Callable[[], bool] = getattr(sys.modules.get("jax.distributed"), "is_initialized", lambda: False)
    return joined()


def without_requests(hook: Callable[[Any], object], unraisable: Any) -> None:
    """Suppress the report of a request that was raised where Python ignores exceptions, such as in a destructor."""
    if unraisable.exc_type is not Interrupted:
        hook(unraisable)
