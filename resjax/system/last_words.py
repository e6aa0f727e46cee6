"""A last line on standard error from a process that cannot write it itself.

Where one of several processes dies, JAX aborts the others in C++ once the heartbeats have been missing for the time
that `distributed.join` gives it: no exception reaches Python, and a user would see a run end without a word.
"""

import atexit
import os
import subprocess
import sys

# Reads until this process has ended, however it did, or has said that no last line is wanted
SPEAKER = "import sys; sys.stdin.buffer.read() or print(sys.argv[1], file=sys.stderr)"
Speakers: list["subprocess.Popen[bytes]"] = []


def leave_last_words(line: str) -> None:
    """Have `line` written when this process ends, unless it calls `withdraw_last_words` or ends as Python does."""
    shown = "\033[?25h\n" if os.isatty(2) else ""  # the cursor, which rows of progress hide
    Speakers.append(subprocess.Popen([sys.executable, "-S", "-c", SPEAKER, shown + line], stdin=subprocess.PIPE,
                                     start_new_session=True))  # so that Ctrl-C does not end it
    atexit.register(withdraw_last_words)


def withdraw_last_words() -> None:
    """Have nothing written: this process ends in good order, or has said why it does not."""
    while Speakers:
        Speakers.pop().communicate(b"withdrawn")


def end_at_once(code: int) -> None:
    """End without the barrier at which JAX would wait for the other processes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
