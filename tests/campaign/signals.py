"""Ctrl-C, SIGTERM and SIGHUP at random moments, a hundred times: each is heeded, and no bit of the end is another.

    python tests/campaign/signals.py [--count 100] [--seed 1] [--workdir DIR]

Three programs take turns: a script that trains two nets, `resjax reproduce` of two rows, and a script that trains on
photographs. Each is once left alone; then it is started and asked to stop, again and again, from the moment on at which
it listens, until it has made all its steps. Counts, in one JSON line: signals, those heeded within 10 seconds, those
answered by one line and the right exit code, tracebacks, and programs whose end was the uninterrupted one's.
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

import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))
from photographs import write_folders

SMALL = """
from pathlib import Path
import sys
from resjax import Architecture, Data, Experiment, Optimizer, Photographs, train
from resjax.command_line import guarded

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


def campaign(count: int = 100, seed: int = 1, workdir: Path | None = None) -> None:
    """Send signals and count what happens.

    Args:
        count: Signals.
        seed: Of the moments.
        workdir: Where the programs run; by default a temporary folder.
    """
    folder, chance, counts = Path(workdir or tempfile.mkdtemp()), random.Random(seed), Counter[str]()
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "RESJAX_CACHE": str(folder / "cache")}
    write_folders(folder / "folders")
    whole, seconds = {}, {}
    for name in PROGRAMS:
        begun = time.monotonic()
        subprocess.run(command(name, folder, folder / f"{name}-whole"), check=True, env=environment,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        whole[name], seconds[name] = digests(folder / f"{name}-whole"), time.monotonic() - begun
    names = list(PROGRAMS)
    while counts["signals"] < count:
        name = names[counts["programs"] % len(names)]
        runs = folder / f"{name}-cut"
        shutil.rmtree(runs, ignore_errors=True)
        finished = False
        while not finished:
            with (folder / "err").open("w+") as err:
                process = subprocess.Popen(command(name, folder, runs), env=environment, stdout=err, stderr=err)
                while process.poll() is None and not listens(process):
                    time.sleep(0.01)
                until = time.monotonic() + chance.uniform(0, 0.7 * seconds[name])
                while process.poll() is None and (time.monotonic() < until or counts["signals"] >= count):
                    time.sleep(0.01)
                number = chance.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
                asked, begun = process.poll() is None, time.monotonic()
                if asked:
                    process.send_signal(number)
                code = process.wait()
                finished = code == 0
                err.seek(0)
                text = err.read()
                counts["tracebacks"] += "Traceback" in text
                if asked and not finished:
                    answers = [line for line in text.splitlines() if line.startswith("resjax: ")]
                    counts["signals"] += 1
                    counts["within_10_seconds"] += time.monotonic() - begun < 10
                    right = code == 128 + number and len(answers) == 1
                    counts["one_line_and_code"] += right
                    if not right:
                        print(json.dumps({"program": name, "signal": number, "code": code, "text": text[-2000:]}))
        counts["programs"] += 1
        counts["same_end"] += digests(runs) == whole[name]
        print(json.dumps({**counts}), file=sys.stderr, flush=True)
    print(json.dumps({**counts}))


if __name__ == "__main__":
    tyro.cli(campaign)
