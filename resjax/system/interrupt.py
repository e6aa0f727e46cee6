"""Ctrl-C, SIGTERM and SIGHUP: heeded at once where nothing is lost by it, and between two steps while a net trains."""

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
    """What was asked of this process. `held`: it is not raised, but somebody asks."""

    received: signal.Signals | None = None
    listening = False
    held = False


@contextmanager
def stop_requests() -> Iterator[None]:
    """Listen until the end of the block, where nobody does yet: the first request is raised as `Interrupted`.

    A second Ctrl-C ends the process at once. What the caller's shell lets the process ignore (nohup) stays ignored.
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
    """Remember a request, and raise it unless it is held; while a module is imported, ask again a little later."""
    if importing(frame):
        again = threading.Timer(0.05, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
        return
    if Requests.received and number == signal.SIGINT:
        shown = b"\033[?25h" if os.isatty(2) else b""  # the cursor, which rows of progress hide
        os.write(2, shown + b"\nresjax: SIGINT, again: ended at once\n")
        os._exit(128 + number)
    if not Requests.received:
        Requests.received = signal.Signals(number)
        heed()


def importing(frame: FrameType | None) -> bool:
    """Say whether our function imports a module: one in C may crash where it does not expect an exception."""
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        if str(frame.f_globals.get("__name__")).startswith("resjax.") and frame.f_code.co_name != "<module>":
            return False
        frame = frame.f_back
    return False


def heed() -> None:
    """Raise the request that came, unless it is held or all processes have to agree on it."""
    if Requests.received and not Requests.held and not many_processes():
        raise Interrupted(f"{Requests.received.name}: stopped; the same command resumes from what is saved",
                          Requests.received)


@contextmanager
def requests(*, held: bool) -> Iterator[None]:
    """Hold requests back until the end of the block, or, within such a block, raise them at once again."""
    before, Requests.held = Requests.held, held
    try:
        heed()
        yield
    finally:
        Requests.held = before
    heed()


def requested() -> int:
    """Return the number of the signal that asked to stop, or 0."""
    return int(Requests.received or 0)


def many_processes() -> bool:
    """Say whether this process is one of those that JAX has joined; asked without importing JAX."""
    joined: Callable[[], bool] = getattr(sys.modules.get("jax.distributed"), "is_initialized", lambda: False)
    return joined()


def without_requests(hook: Callable[[Any], object], unraisable: Any) -> None:
    """Keep quiet about a request that was raised where nothing can be, such as in a destructor: it is remembered."""
    if unraisable.exc_type is not Interrupted:
        hook(unraisable)
