"""What can go wrong, told apart by who can mend it. The command line prints each without a traceback."""


class BadInput(ValueError):
    """What the user gave is wrong; the message names it and says what would be right. Exit code 2."""


def check(true: bool, message: str) -> None:
    """Raise `BadInput(message)` unless `true`."""
    if not true:
        raise BadInput(message)


class Diverged(RuntimeError):
    """The loss, or a parameter, is no longer finite; the message names the step. Exit code 1."""


class Lost(RuntimeError):
    """A process that this one needs has died; the message says which, and how to go on. Exit code 1."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP, with the state saved; the message says how to go on. Exit code 128 + `signal`."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
