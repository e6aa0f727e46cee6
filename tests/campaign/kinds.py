"""The kinds of faults that a campaign found in the code of 25 November 2026 (36b7a27), each tried in one way.

    python tests/campaign/kinds.py

It prints a line for each kind, whether the code holds, and counts.
"""

import argparse
import contextlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optax
from safetensors.numpy import load_file, save_file

import resjax
from resjax import Architecture, BadInput, Data, Experiment, Optimizer
from resjax.console.command_line import execute, guarded

Probe = Callable[[Path], bool]
PROBES: dict[str, Probe] = {}


def kind(title: str) -> Callable[[Probe], Probe]:
    """Name a kind of fault; the function under it says whether the code holds."""
    return lambda probe: PROBES.setdefault(title, probe)


def small() -> Experiment:
    """The smallest run."""
    return Experiment(name="small", architecture=Architecture(depth=8, ghost_batch_size=16), optimizer=Optimizer(),
                      data=Data(pad=1, flip=False), steps=4, batch_size=16, log_steps=2, checkpoint_steps=2,
                      precise_batch_norm_steps=0, evaluate_test=True, evaluate_steps=2)


def run_of(folder: Path) -> Path:
    """Copy a finished run, which is made once beside the folder."""
    made = folder.parent / "made"
    if not made.exists():
        resjax.train(small(), made)
    return Path(shutil.copytree(made, folder / "runs" / "run"))


def told(action: Callable[[], Any]) -> tuple[int, str]:
    """Carry out an action as a command; return its exit code, and what it told on standard error."""
    text = io.StringIO()
    with contextlib.redirect_stderr(text), contextlib.redirect_stdout(io.StringIO()):
        code = guarded(action)
    return code, text.getvalue()


def one_line(action: Callable[[], Any], *words: str) -> bool:
    """Say whether an action ends with one line that holds the words."""
    code, text = told(action)
    answers = [line for line in text.splitlines() if line.startswith("resjax: ")]
    return shown_unless(code in (1, 2) and len(answers) == 1 and all(word in answers[0] for word in words), text)


def refused(action: Callable[[], Any], *words: str) -> bool:
    """Say whether an action is refused in words."""
    try:
        action()
    except BadInput as error:
        return shown_unless(all(word in str(error) for word in words), str(error))
    return False


def shown_unless(held: bool, text: str) -> bool:
    """Show, for whoever judges, what else was told where the code does not hold."""
    if not held:
        print(f"    told: {text[-300:]!a}", file=sys.stderr)
    return held


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def weights(folder: Path) -> dict[str, np.ndarray]:
    """Copy an export of a small CIFAR network with akamaster's names, which is made once beside the folder."""
    from networks import random_network

    made = folder.parent / "weights"
    if not made.exists():
        resjax.export(random_network(depth=20), "akamaster", made)
    exported = Path(shutil.copytree(made, folder / "whole"))
    return dict(load_file(exported / "model.safetensors"))


def as_torch(values: Any, file: Path, **how: int) -> Path:
    """Write what PyTorch's reader would read: here of plain values only."""
    with zipfile.ZipFile(file, "w", **how) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(values, protocol=2))
    return file


@kind("a flipped byte in a finished run's last checkpoint")
def checkpoint(folder: Path) -> bool:
    run = run_of(folder)
    flip(max((run / "checkpoints" / "4").rglob("*"), key=lambda file: file.stat().st_size * file.is_file()))
    before = sorted(path.name for path in run.rglob("*"))
    return refused(lambda: resjax.load(run), "damaged") and sorted(path.name for path in run.rglob("*")) == before


@kind("a result of another checkpoint")
def result(folder: Path) -> bool:
    run = run_of(folder)
    content = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(content | {"state_digest": "0" * 64}))
    return refused(lambda: resjax.load(run), "checkpoint")


@kind("a flipped byte in an export")
def export(folder: Path) -> bool:
    weights(folder)
    flip(folder / "whole" / "model.safetensors")
    return refused(lambda: resjax.load(folder / "whole"), "model.safetensors")


@kind("JSON that is not UTF-8")
def utf8(folder: Path) -> bool:
    run = run_of(folder)
    (run / "experiment.json").write_bytes(b"\xff\xfe{}")
    return one_line(lambda: execute(["evaluate", str(run)]), "experiment.json")


@kind("JSON of another type")
def other_type(folder: Path) -> bool:
    run = run_of(folder)
    (run / "result.json").write_text("[1, 2]")
    return one_line(lambda: execute(["evaluate", str(run)]), "result.json")


@kind("JSON without a key")
def no_key(folder: Path) -> bool:
    run = run_of(folder)
    (run / "result.json").write_text("{}")
    return one_line(lambda: execute(["evaluate", str(run)]), "result.json")


@kind("one damaged run among others, in a report")
def report(folder: Path) -> bool:
    run = run_of(folder)
    shutil.copytree(run, run.parent / "whole")
    (run / "result.json").write_text("[")
    code, _ = told(lambda: execute(["report", str(run.parent)]))
    return code == 0 and "whole" in (run.parent / "report.html").read_text()


@kind("a log that lost lines")
def log(folder: Path) -> bool:
    run = run_of(folder)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], "{", *lines[1:]]) + "\n")
    (run / "result.json").unlink()
    code, text = told(lambda: resjax.train(small(), run))
    return code == 0 and "unreadable lines" in text


@kind("compressed members of an archive")
def compressed(folder: Path) -> bool:
    return refused(lambda: resjax.load(as_torch({}, folder / "a.pth", compression=zipfile.ZIP_DEFLATED)), "compressed")


@kind("external data of HDF5")
def external(folder: Path) -> bool:
    from campaign.hostile_hdf5 import hdf5

    make = next(make for name, make in hdf5() if name.endswith("in another file"))
    return refused(lambda: resjax.load(make(folder)), "another file")


@kind("an argparse.Namespace beside the weights")
def namespace(folder: Path) -> bool:
    return "Namespace" not in message(lambda: resjax.load(as_torch(
        {"args": argparse.Namespace(lr=0.1), "state_dict": {}}, folder / "a.pth")))


def message(action: Callable[[], Any]) -> str:
    """Return what an action is refused with."""
    try:
        action()
    except BadInput as error:
        return str(error)
    return ""


@kind("a suffix that nobody knows")
def suffix(folder: Path) -> bool:
    save_file(weights(folder), folder / "net.ckpt")
    return resjax.load(folder / "net.ckpt", shortcut="A").architecture.depth == 20


@kind("weights in several files")
def sharded(folder: Path) -> bool:
    from networks import in_parts

    weights(folder)
    in_parts(folder / "whole")
    return bool(resjax.load(folder / "whole").architecture.depth == 20)


@kind("another family's net is refused by what it is")
def squeeze(folder: Path) -> bool:
    tensors = weights(folder) | {"layer1.0.se.fc1.weight": np.ones((4, 16, 1, 1), np.float32)}
    save_file(tensors, folder / "net.safetensors")
    return refused(lambda: resjax.load(folder / "net.safetensors", shortcut="A"), "squeeze-and-excitation")


@kind("a user that does not exist")
def user(folder: Path) -> bool:
    return one_line(lambda: execute(["evaluate", "~nobodyhere/run"]), "~nobodyhere")


@kind("a FIFO")
def fifo(folder: Path) -> bool:
    run = run_of(folder)
    for name in ("result.json", "metrics.jsonl"):
        (run / name).unlink()
    os.mkfifo(run / "metrics.jsonl")
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)  # for code that waits until somebody writes
    try:
        return one_line(lambda: resjax.train(small(), run), "metrics.jsonl")
    finally:
        signal.alarm(0)


@kind("an over-long path")
def long_path(folder: Path) -> bool:
    return one_line(lambda: execute(["report", "y/" * 3000]), "too long")


@kind("RESJAX_CACHE without a home")
def no_home(folder: Path) -> bool:
    from unittest.mock import patch

    from resjax.system.platform import cache_directory

    with patch.object(Path, "home", side_effect=RuntimeError), patch.dict(os.environ, {"RESJAX_CACHE": str(folder)}):
        return cache_directory() == folder


@kind("a full disk, at the log")
def full_disk(folder: Path) -> bool:
    run = run_of(folder)
    (run / "result.json").unlink()
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").symlink_to("/dev/full")
    return one_line(lambda: resjax.train(small(), run), "metrics.jsonl")


KILLED = """
import os, signal, sys
import resjax
from networks import random_network
network = random_network(depth=20)
sys.addaudithook(lambda event, _: event == "os.rename" and os.kill(os.getpid(), signal.SIGKILL))
resjax.export(network, "akamaster", sys.argv[1])
"""


def apart(code: str, *arguments: object) -> int:
    """Run code in a process of its own; return its exit code. Raises TimeoutExpired after a minute."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=False, env=environment,
                          stderr=subprocess.DEVNULL, timeout=60).returncode


@kind("what a killed export has left")
def leftovers(folder: Path) -> bool:
    from networks import random_network

    killed = apart(KILLED, folder / "out") == -signal.SIGKILL and any(folder.iterdir())
    resjax.export(random_network(depth=20), "akamaster", folder / "out")
    return killed and [path.name for path in folder.iterdir()] == ["out"]


LOADED = """
import sys
import resjax
try:
    resjax.load(sys.argv[1])
except resjax.BadInput:
    sys.exit(3)
"""


@kind("a key in a pickle that takes for ever to hash")
def shared(folder: Path) -> bool:
    from campaign.hostile_files import archive
    from campaign.hostile_pickles import SHARED, beside

    return apart(LOADED, archive(folder, beside(b"}" + SHARED + b"Ns"))) == 3


@kind("several sets of weights in a file are listed, to choose by a key")
def sets(folder: Path) -> bool:
    from campaign.hostile_files import archive
    from campaign.hostile_pickles import state, text

    both = b"".join(text(name) + state()[2:-1] for name in ("state_dict", "state_dict_ema"))
    return refused(lambda: resjax.load(archive(folder, b"\x80\x02}(" + both + b"u.")), "state_dict_ema", "--key")


@kind("a network without its last layer")
def headless(folder: Path) -> bool:
    tensors = {name: tensor for name, tensor in weights(folder).items() if not name.startswith("linear")}
    save_file(tensors, folder / "net.safetensors")
    return resjax.load(folder / "net.safetensors", shortcut="A").classes == ()


@kind("the colours of CIFAR-100 where there are 100 classes")
def colours(folder: Path) -> bool:
    from networks import random_network

    network = random_network(shortcut="B", classes=tuple(map(str, range(100))))
    exported = resjax.export(network, "torchvision", folder / "whole")
    bare = shutil.copy(exported / "model.safetensors", folder / "bare.safetensors")
    return bool(np.allclose(resjax.load(bare).mean, [255 * value for value in (0.507, 0.4865, 0.4409)]))


@kind("a folder that lost its description is not read as somebody else's without a word")
def undescribed(folder: Path) -> bool:
    weights(folder)
    for described in (folder / "whole").glob("*.json"):
        described.unlink()
    code, text = told(lambda: resjax.load(folder / "whole", shortcut="A"))
    return code == 0 and "the preprocessing" in text


@kind("control characters in what is told")
def control(folder: Path) -> bool:
    return one_line(lambda: execute(["evaluate", f"{folder}/\x1b[31m\x07"])) and "\x07" not in told(
        lambda: execute(["evaluate", f"{folder}/\x1b[31m\x07"]))[1]


@kind("tags in a report")
def tags(folder: Path) -> bool:
    run = run_of(folder)
    row = {"experiment": "x", "title": "x", "layers": 1, "steps": 1, "parameters": 1,
           "training_errors": [1.0], "holds": True, "verdict": "x",
           "measures": [{"paper": "<script>alert(1)", "ours": "1", "values": [1.0]}]}
    (run.parent / "table6.json").write_text(json.dumps({
        "table": "table6", "command": "x", "title": "x", "protocol": "x", "scale": 1, "rows": [row], "figures": []}))
    code, _ = told(lambda: execute(["report", str(run.parent)]))
    page = (run.parent / "report.html").read_text() if code == 0 else "<script>alert(1)"
    return "<script>alert(1)" not in page and "Content-Security-Policy" in page


@kind("a run directory outside runs/")
def outside(folder: Path) -> bool:
    (folder / "mine.py").write_text(
        "from resjax import Experiment\nEXPERIMENTS = {'a': Experiment(name='../../outside')}\n")
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        execute(["train", f"{folder}/mine.py:a", "--help"])
    shown = text.getvalue()
    return "runs" in shown and "runs/../.." not in shown.replace(" ", "")


@kind("an optimizer of optax's in an experiment")
def optax_optimizer(folder: Path) -> bool:
    return refused(lambda: Experiment(name="x", optimizer=optax.adam(1e-3)), "optimizer")  # type: ignore[arg-type]


@kind("a list in place of a tuple")
def a_list(folder: Path) -> bool:
    return refused(lambda: Optimizer(decay_steps=[100]), "decay-steps")  # type: ignore[arg-type]


@kind("infinity in an experiment")
def infinite(folder: Path) -> bool:
    return refused(lambda: Optimizer(weight_decay=float("inf")), "weight-decay")


@kind("what float32 cannot hold")
def float32(folder: Path) -> bool:
    return refused(lambda: Optimizer(weight_decay=1e300), "weight-decay")


@kind("steps beyond 32 bits")
def beyond(folder: Path) -> bool:
    return refused(lambda: Experiment(name="x", steps=2**31), "steps")


class TooLong(BaseException):
    """What nobody takes for an error of the system, as `TimeoutError` is."""


def too_long(number: int, frame: Any) -> None:
    raise TooLong


def holds(title: str, folder: Path) -> bool:
    """Try a kind: an exception that is no refusal breaks it."""
    folder.mkdir()
    try:
        return PROBES[title](folder)
    except (Exception, TooLong) as error:
        print(f"    {title}: {type(error).__name__}: {error!s:.200}", file=sys.stderr)
        return False


def main() -> int:
    with tempfile.TemporaryDirectory() as where:
        os.environ["RESJAX_CACHE"] = f"{where}/cache"
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # the tests set it
        found = {title: holds(title, Path(where) / str(number)) for number, title in enumerate(PROBES)}
    for title, held in found.items():
        print(f"{'holds' if held else 'BROKEN':7} {title}")
    print(json.dumps({"kinds": len(found), "hold": sum(found.values())}))
    return int(not all(found.values()))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(main())
