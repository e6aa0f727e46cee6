"""Prepares a last message on standard error, for a process that may die before it can print this message.

If one of several processes dies, JAX aborts the others in C++ after the heartbeat timeout of `distributed.join`. No
exception reaches Python, so users would see a run end without any message.
"""

import atexit
import os
import subprocess
import sys
from typing import NoReturn

# Prints the line once this process has ended in any way, unless the line was withdrawn
SPEAKER = "import sys; sys.stdin.buffer.read() or print(sys.argv[1], file=sys.stderr)"
Speakers: list["subprocess.Popen[bytes]"] = []


def leave_last_words(line: str) -> None:
    """Have `line` written when this process ends, unless it exits normally or calls `withdraw_last_words`."""
    cursor = "\033[?25h\n" if os.isatty(2) else ""  # show the cursor, which the progress display hides
    Speakers.append(subprocess.Popen([sys.executable, "-S", "-c", SPEAKER, cursor + line], stdin=subprocess.PIPE,
                                     start_new_session=True))  # so that Ctrl-C does not end it
    atexit.register(withdraw_last_words)


def withdraw_last_words() -> None:
    """Cancel the last line, because this process ends normally."""
    while Speakers:
        Speakers.pop().communicate(b"withdrawn")


def end_at_once(code: int, *, reported: bool) -> NoReturn:
    """Exit without JAX's shutdown barrier, which would wait for the other processes.

    If the error has been reported, nothing is written after it: not the last line, and not the errors of JAX's threads,
    which lose their connection as the other processes end and would abort this one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if reported:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for speaker in Speakers:
            if speaker.stdin:
                os.write(speaker.stdin.fileno(), b"withdrawn")
    os._exit(code)
