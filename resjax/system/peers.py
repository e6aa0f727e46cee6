"""Processes that work as one: where one of them dies, every other says so in a line within seconds, and ends.

JAX's own watch takes minutes and then aborts in pages of text; a collective operation waits for ever.
"""

import atexit
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener, wait
from threading import Thread

from resjax.system import progress
from resjax.system.terminal import tell

BEAT, SILENCE = 4.0, 40.0  # seconds between two signs of life, and without one
GRACE = 2.0  # seconds for a process that is about to end to say why
KEY = 16  # bytes by which the processes know each other
ALIVE, ENDED, LOST = b"alive", b"ended", b"lost"


class Here:
    """What this process has said of its own end."""

    ending = False


def listen(key: bytes, processes: int) -> tuple[int, Callable[[], dict[int, Connection]]]:
    """Open a port, as the first process does; return it, and what waits until all others have come."""
    listener = Listener(("", 0), backlog=processes, authkey=key)

    def gather() -> dict[int, Connection]:
        connections = [listener.accept() for _ in range(processes - 1)]
        return {int(connection.recv_bytes(9)): connection for connection in connections}

    return listener.address[1], gather


def come(host: str, port: int, key: bytes, me: int) -> dict[int, Connection]:
    """Connect to the first process, as all others do."""
    connection = Client((host, port), authkey=key)
    connection.send_bytes(b"%d" % me)
    return {0: connection}


def watch(gather: Callable[[], dict[int, Connection]], processes: int) -> None:
    """Watch the processes that `gather` connects, from now until this one ends; those that cannot be, JAX watches."""
    peers: dict[int, Connection] = {}

    def work() -> None:
        with suppress(OSError, EOFError):
            peers.update(gather())
        look_after(peers, processes)

    # Where JAX learns of a death before we do, it aborts: then sleep(6), as SIGABRT is signal 6, leaves us the time
    libc = ctypes.CDLL(None)
    libc.signal(int(signal.SIGABRT), libc.sleep)
    Thread(target=work, daemon=True).start()
    atexit.register(take_leave, peers)


def look_after(peers: dict[int, Connection], processes: int) -> None:
    """Say that this process lives and hear that the others do, until one does not, or all have taken their leave."""
    heard, said = dict.fromkeys(peers, time.monotonic()), 0.0
    while peers:
        now = time.monotonic()
        if now - said >= BEAT:
            send(peers, ALIVE)
            said = now
        ready = wait(list(peers.values()), timeout=BEAT)
        for number, connection in list(peers.items()):
            text = received(connection) if connection in ready else ALIVE
            if connection in ready:
                heard[number] = time.monotonic()
            if text == ENDED:
                del peers[number]
            elif text != ALIVE or time.monotonic() - heard[number] > SILENCE:
                end_without(int(text.removeprefix(LOST) or number), peers, processes)
                return


def received(connection: Connection) -> bytes:
    """Return what a process says; that it is lost where it has gone without a word."""
    try:
        return connection.recv_bytes(20)
    except (OSError, EOFError):
        return LOST


def send(peers: dict[int, Connection], text: bytes) -> None:
    """Say something to all; who has gone is found when it is listened to."""
    for connection in list(peers.values()):
        with suppress(OSError):
            connection.send_bytes(text)


def end_without(number: int, peers: dict[int, Connection], processes: int) -> None:
    """End, as a process is lost; the others hear which. Who is ending for a reason of its own has time to say it."""
    send(peers, LOST + b"%d" % number)
    time.sleep(GRACE)
    if not Here.ending:
        Here.ending = True
        progress.clear()
        tell(f"resjax: process {number} of {processes} has died or ended, and this one cannot go on without it; its "
             "own last lines say why. The same command goes on from the last checkpoint")
        end_at_once(1)


def take_leave(peers: dict[int, Connection]) -> None:
    """Tell the others that this process ends in good order."""
    send(peers, ENDED)


def end_at_once(code: int) -> None:
    """End without the barrier at which JAX would wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
