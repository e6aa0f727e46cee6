"""Commands on a full disk, or in a folder that cannot be written: each ends with one line that says what and why.

    python tests/campaign/full_disk.py [--workdir DIR]

A disk that is full is played by a limit on the size of files, from which on the system refuses to write, as a test may
not make a disk. Prints a line for each command, and one of counts; the exit code is 1 where a rule was broken.
"""

import gc
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))
from campaign import kills
from campaign.damage import Outcome, be_bound_by_permissions
from networks import random_network

import resjax
from resjax import paper
from resjax.console.command_line import execute, guarded
from resjax.system.chatter import leave_out_chatter
from resjax.training import loop

ALL_OF_IT = resource.getrlimit(resource.RLIMIT_FSIZE)[1]


def leave(size: int) -> None:
    """Let files of this process grow to so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, ALL_OF_IT))


@contextmanager
def full(size: int = 0) -> Iterator[None]:
    """Let files grow to so many bytes within the block."""
    leave(size)
    try:
        yield
    finally:
        leave(ALL_OF_IT)


@contextmanager
def full_from(name: str, now: Callable[..., bool]) -> Iterator[None]:
    """Let the disk be full when the loop of training calls a function with what `now` looks for."""
    plain = getattr(loop, name)

    def called(*arguments: Any) -> Any:
        with full() if now(*arguments) else full(ALL_OF_IT):
            found = plain(*arguments)
            if name == "save_checkpoint":
                loop.finish_saves(arguments[0])
            return found

    with patch.object(loop, name, called):
        yield


class Try(NamedTuple):
    """What is tried: a title, a command, how the disk fills meanwhile, and what the line names."""

    title: str
    command: Callable[[], object]
    disk: Any
    names: str


def typed(*arguments: str) -> Callable[[], object]:
    """Type a command."""
    return lambda: execute(arguments)


def told_by(command: Callable[[], object]) -> Outcome:
    """Carry out a command; what it tells comes through a pipe, which never is full."""
    text: list[bytes] = []
    out, into = os.pipe()
    kept = os.dup(1), os.dup(2)
    reader = threading.Thread(target=lambda: text.extend(iter(lambda: os.read(out, 65536), b"")))
    reader.start()
    for number in (1, 2):
        os.dup2(into, number)
    os.close(into)
    try:
        code = guarded(command)
    except BaseException:
        traceback.print_exc()
        code = 99
    gc.collect()
    sys.stdout.flush()
    for number, descriptor in zip((1, 2), kept, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    reader.join()
    os.close(out)
    return Outcome(code, None, b"".join(text).decode(errors="replace"))


drawn = cache(random_network)  # the tries are listed twice


def tries(folder: Path, known: dict[str, kills.Scenario]) -> Iterator[Try]:
    """List all; whatever is written lies in `folder / "disk"`."""
    disk, run = folder / "disk", f"{folder}/source/resnet20/seed0"
    train = typed("train", f"{folder}/cifar10.py:smallest", "--workdir", f"{disk}/run")
    report = ("report", f"{folder}/source", "--out", f"{disk}/page.html")
    for size, names in ((0, "run: cannot write"), (600, "experiment.json"), (5_000, "checkpoints")):
        yield Try(f"training, {size} bytes are left", train, full(size), names)
    yield Try("training, the last save", train, full_from("save_checkpoint", lambda *values: values[2]["averaged"]),
              "checkpoints")
    yield Try("training, the log", train, full_from("measure_and_log", lambda run, state, last=False: True),
              "metrics.jsonl")
    yield Try("training, the result", train, full_from("write_json", lambda file, _: file.name == "result.json"),
              "result.json")
    yield Try("report", typed(*report), full(), "page.html")
    if find_spec("tensorboardX"):
        yield Try("TensorBoard", typed(*report, "--tensorboard", f"{disk}/logs"), full_after_page(), "logs")
    yield Try("export", typed("export", run, "--to", "stablehlo", "--out", f"{disk}/out"), full(), "out")
    for form, network in (("akamaster", drawn("cifar", 20)), ("keras", drawn("imagenet", 50, "B"))):
        yield Try(f"export to {form}", partial(resjax.export, network, form, disk / "out"), full(), "out")
    yield Try("prepare", typed(*known["prepare"].command(disk)), full(), "cifar10")
    shutil.copytree(folder / "source", disk / "runs")
    yield Try("a table", typed("reproduce", "table6", "--seeds", "1", "--only", "plain20,resnet20", "--experiments",
                               str(folder), "--runs", f"{disk}/runs"), full(), "runs/")


@contextmanager
def full_after_page() -> Iterator[None]:
    """Let the disk be full once the page is written."""
    plain = paper.write_tensorboard
    with patch.object(paper, "write_tensorboard", lambda *places: full_now(plain, *places)):
        yield


def full_now(action: Callable[..., object], *values: Any) -> object:
    """Do something on a full disk."""
    with full():
        return action(*values)


def fault(outcome: Outcome, names: str) -> str:
    """Say what is wrong with how a command ended."""
    lines = outcome.told.splitlines()
    last = lines[-1] if lines else ""
    usual = ("smallest", "table6", "In ", "Wrote ")
    others = [line for line in lines[:-1] if not line.startswith(usual) and not line.endswith("...")]
    if outcome.code not in (1, 2):
        return f"exit code {outcome.code}"
    if not last.startswith("resjax: ") or names not in last or len(last) > 400:
        return "no line that says what cannot be written"
    return "other lines" if others else ""


def campaign(workdir: Path | None = None) -> int:
    """Try everything.

    Args:
        workdir: Where everything lies; by default a temporary folder.
    """
    folder, counts = Path(workdir or tempfile.mkdtemp()).absolute(), Counter[str]()
    folder.mkdir(exist_ok=True)
    leave_out_chatter()  # as the command line does: threads of a failed save tell of it late on a busy machine
    os.environ |= {"RESJAX_CACHE": str(folder / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    resjax.system.platform.configure()
    known = kills.scenarios(folder)
    bound = be_bound_by_permissions()
    for read_only in (False, *[True] * bound):
        disk = folder / "disk"
        shutil.rmtree(disk, ignore_errors=True)
        disk.mkdir()
        for each in tries(folder, known):
            left = {path: path.stat().st_mode for path in (disk, *disk.glob("*")) if path.is_dir() and read_only}
            for path in left:
                path.chmod(0o555)
            with (full(ALL_OF_IT) if read_only else each.disk):
                outcome = told_by(each.command)
            for path, mode in left.items():
                path.chmod(mode)
            wrong = fault(outcome, "" if read_only else each.names)
            kind = "read-only" if read_only else "full"
            counts[f"{kind}: {wrong or 'one line'}"] += 1
            print(f"{kind}, {each.title}: {wrong or outcome.told.splitlines()[-1]}", flush=True)
            if wrong:
                print(outcome.told[-3000:], flush=True)
            if not each.title.startswith("a table"):
                shutil.rmtree(disk / "run", ignore_errors=True)
    print(json.dumps(counts))
    return int(any(not kind.endswith("one line") for kind in counts))


if __name__ == "__main__":
    sys.exit(tyro.cli(campaign))
