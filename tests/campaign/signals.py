"""Ctrl-C, SIGTERM and SIGHUP at random moments, a hundred times: each is heeded, and no bit of the end is another.

    python tests/campaign/signals.py [--count 100] [--seed 1] [--workdir DIR] [--only script]

Three programs take turns: a script that trains two nets, `resjax reproduce` of two rows, and a script that trains on
photographs. Each is once left alone; then it is started and asked to stop, again and again, from the moment on at which
it listens, until it has made all its steps. A signal is to be heeded within 10 seconds, by one line and the right exit
code, without a traceback. Counts are kept in DIR/signals.json and printed: signals, also by program, the slowest end,
programs, and those whose end was the uninterrupted one's; what broke a rule is listed, and then
the exit code is 1.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))
from photographs import write_folders

for ignored in (signal.SIGHUP, signal.SIGINT):  # by nohup or in the background: programs inherit it
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, signal.default_int_handler)

SMALL = """
from pathlib import Path
import sys
from resjax import Architecture, Data, Experiment, Optimizer, Photographs, train
from resjax.console.command_line import guarded

def net(name, depth, shortcut="A"):
    return Experiment(name=name, architecture=Architecture(depth=depth, shortcut=shortcut, ghost_batch_size=16),
                      data=Data(pad=1, flip=False), optimizer=Optimizer(learning_rate=0.05, decay_steps=(200, 300)),
                      steps=400, batch_size=32, log_steps=20, evaluate_steps=80, evaluate_test=True,
                      checkpoint_steps=40, precise_batch_norm_steps=20)
"""
PROGRAMS = {
    "script": SMALL + """
def main():
    for experiment in (net("first", 8), net("second", 14)):
        train(experiment, Path(sys.argv[1]) / experiment.name)
raise SystemExit(guarded(main))
""",
    "reproduce": SMALL + """
EXPERIMENTS = {"plain20": net("plain20", 8, "plain"), "resnet20": net("resnet20", 8)}
""",
    "photographs": SMALL + """
def main():
    data = Photographs(source="folder:FOLDERS", size=64, shorter_side=(72, 120), test_shorter_side=80, workers=1)
    architecture = Architecture(family="imagenet", depth=18, ghost_batch_size=8)
    train(Experiment(name="photographs", architecture=architecture, data=data, steps=30, batch_size=16, log_steps=5,
                     optimizer=Optimizer(learning_rate=0.005, decay_steps=(18,)), evaluate_steps=10,
                     evaluate_test=True, checkpoint_steps=5, precise_batch_norm_steps=4), sys.argv[1])
if __name__ == "__main__":
    raise SystemExit(guarded(main))
"""}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(NamedTuple):
    """How a program ended: the signal that stopped it, None where it made all its steps; its exit code, what it told,
    and the seconds from the signal to its end.
    """

    asked: signal.Signals | None
    code: int
    text: str
    seconds: float


def command(name: str, folder: Path, runs: Path) -> list[str]:
    """Write a program, and say how it is started."""
    (folder / "cifar10.py").write_text(PROGRAMS["reproduce"])
    (folder / f"{name}.py").write_text(PROGRAMS[name].replace("FOLDERS", str(folder / "folders")))
    if name == "reproduce":
        return [sys.executable, "-m", "resjax", "reproduce", "table6", "--seeds", "1", "--only", "plain20,resnet20",
                "--experiments", str(folder), "--runs", str(runs)]
    return [sys.executable, str(folder / f"{name}.py"), str(runs)]


def listens(process: subprocess.Popen[bytes]) -> bool:
    """Say whether a process catches SIGTERM."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) & 1 << (signal.SIGTERM - 1))


def digests(runs: Path) -> dict[str, str]:
    """Read what the runs of a program ended with."""
    return {str(file.relative_to(runs)): json.loads(file.read_text())["state_digest"]
            for file in sorted(runs.rglob("result.json"))}


def left_alone(name: str, folder: Path, environment: dict[str, str]) -> tuple[dict[str, str], float]:
    """Let a program make all its steps unless it has in this folder before; return its end, and its seconds."""
    kept, begun = folder / f"{name}-whole.json", time.monotonic()
    if not kept.exists():
        runs = folder / f"{name}-whole"
        shutil.rmtree(runs, ignore_errors=True)
        subprocess.run(command(name, folder, runs), check=True, env=environment, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        kept.write_text(json.dumps([digests(runs), time.monotonic() - begun]))
    end, seconds = json.loads(kept.read_text())
    return end, seconds


def interrupted(arguments: list[str], environment: dict[str, str], log: Path, number: signal.Signals,
                after: float) -> Ended:
    """Start a program, and send it a signal so many seconds after it has begun to listen."""
    with log.open("w+") as err:
        process = subprocess.Popen(arguments, env=environment, stdout=err, stderr=err)
        while process.poll() is None and not listens(process):
            time.sleep(0.01)
        until = time.monotonic() + after
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        asked, begun = listens(process), time.monotonic()  # it may just have ended its work
        if asked:
            process.send_signal(number)
        code = process.wait()
        err.seek(0)
        return Ended(number if asked and code else None, code, err.read(), time.monotonic() - begun)


def fault(ended: Ended) -> str:
    """Say which rule a program broke as it ended; "" for none."""
    answers = [line for line in ended.text.splitlines() if line.startswith("resjax: ")]
    if "Traceback" in ended.text:
        return "traceback"
    if ended.code != (128 + ended.asked if ended.asked else 0):
        return "exit code"
    if len(answers) != bool(ended.asked):
        return "no line, or several"
    return "more than 10 seconds" if ended.asked and ended.seconds >= 10 else ""


def campaign(count: int = 100, seed: int = 1, workdir: Path | None = None, only: str = "") -> int:
    """Send signals and count what happens.

    Args:
        count: Signals.
        seed: Of the moments.
        workdir: Where the programs run; by default a temporary folder.
        only: Some programs only: script,reproduce.
    """
    folder, chance, counts = Path(workdir or tempfile.mkdtemp()).absolute(), random.Random(seed), Counter[str]()
    folder.mkdir(exist_ok=True)
    for number in SIGNALS:  # the programs below would ignore what nohup or a shell's & lets this one ignore
        signal.signal(number, signal.SIG_DFL)
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "RESJAX_CACHE": str(folder / "cache")}
    if not (folder / "folders").exists():
        write_folders(folder / "folders")
    names = [name for name in PROGRAMS if not only or name in only.split(",")]
    wholes = {name: left_alone(name, folder, environment) for name in names}
    slowest = 0.0
    while counts["signals"] < count:
        name = names[counts["programs"] % len(names)]
        runs, ended = folder / f"{name}-cut", None
        shutil.rmtree(runs, ignore_errors=True)
        while ended is None or ended.asked:
            more = counts["signals"] < count
            ended = interrupted(command(name, folder, runs), environment, folder / "log", chance.choice(SIGNALS),
                                chance.uniform(0, 0.25 * wholes[name][1]) if more else float("inf"))
            if ended.asked and ended.code == -ended.asked and digests(runs) == wholes[name][0]:
                counts["after the work"] += 1  # it ended its work as it was asked, and no longer listened
                continue
            counts.update(filter(None, [fault(ended)] + [name, "signals"] * bool(ended.asked)))
            slowest = max(slowest, ended.seconds) if ended.asked else slowest
            if fault(ended):
                counts["faults"] += 1
                print(json.dumps({"program": name, "fault": fault(ended), **ended._asdict()}), flush=True)
        counts["programs"] += 1
        counts["same end"] += digests(runs) == wholes[name][0]
        (folder / "signals.json").write_text(json.dumps({**counts, "slowest, seconds": round(slowest, 1)}))
    print((folder / "signals.json").read_text())
    return int(counts["faults"] > 0 or counts["same end"] < counts["programs"])


if __name__ == "__main__":
    sys.exit(tyro.cli(campaign))
