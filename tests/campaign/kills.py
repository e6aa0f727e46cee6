"""Kill -9, a thousand times, over training, reproducing, exporting, preparing and reporting: nothing is lost or left.

    python tests/campaign/kills.py [--count 1000] [--seed 0] [--workdir DIR] [--only train,export]

This process imports everything and starts no thread and no JAX; its children carry out `resjax ...` and are killed,
seven of ten just before a random one of the file operations that they make (a file opened for writing, renamed or
removed, a folder made or removed), the others at a random moment. The same command is then given again, at most ten
times, and at last left alone. Its end must be the one of a command that was never killed: the same bits, every line of
the log once, no file more. The networks have one block or none, as what is tried is files and not arithmetic.
The counts are kept in DIR/kills.json, from which the same command resumes, and printed.
"""

import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
import sklearn.datasets
import tensorflow_datasets  # noqa: F401  # before the fork, as the other imports
import tyro

import resjax.console.machine
import resjax.console.networks
import resjax.console.runs
import resjax.console.tables
from resjax import models
from resjax.console.command_line import execute, guarded
from resjax.data import cifar10
from resjax.training.checkpoint import damage

EXPERIMENTS = """
from resjax import Architecture, Data, Experiment, Optimizer

def net(name, depth, shortcut, precise):
    return Experiment(name=name, architecture=Architecture(depth=depth, shortcut=shortcut, ghost_batch_size=16),
                      data=Data(pad=1, flip=False), optimizer=Optimizer(learning_rate=0.05, decay_steps=()), steps=8,
                      batch_size=16, log_steps=2, evaluate_steps=4, evaluate_test=True, checkpoint_steps=2,
                      precise_batch_norm_steps=precise)

EXPERIMENTS = {"smallest": net("smallest", 8, "A", 0), "plain20": net("plain20", 14, "plain", 2),
               "resnet20": net("resnet20", 14, "A", 2)}
"""
SHARES = {"train": 40, "reproduce": 10, "export": 20, "prepare": 15, "report": 15}  # of the kills, in percent
REAL = models.cifar_resnet
PATIENCE = 300  # seconds for a command that takes three
MOST_KILLS = 10  # of one command
TIMES = {"images_per_second", "data_wait", "train_seconds"}  # differ from run to run


class Death(NamedTuple):
    """When a process is killed: before its so-manieth file operation, or after so many seconds; or not at all."""

    operation: int = 0
    seconds: float = float("inf")


class Ended(NamedTuple):
    """How a process ended: its exit code, None where it was killed as planned; what it had printed; its operations."""

    code: int | None
    text: str
    operations: int
    seconds: float


def changes_files(event: str, arguments: tuple[Any, ...]) -> bool:
    """Say whether an audited event is one after which a disk may look otherwise."""
    if event == "open":
        return isinstance(arguments[0], str) and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
    return event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")


def become(arguments: list[str], death: Death, log: Path) -> None:
    """Carry out a command in this process, a child, and end it."""
    count = 0

    def hook(event: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        if changes_files(event, values):
            count += 1
            if count == death.operation:
                os.kill(os.getpid(), signal.SIGKILL)

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.addaudithook(hook)
    try:
        code = guarded(lambda: execute(arguments))
    except BaseException:
        traceback.print_exc()
        code = 99
    print(f"\noperations {count}", flush=True)
    sys.stderr.flush()
    os._exit(code)


def run(arguments: list[str], death: Death, log: Path) -> Ended:
    """Carry out a command in a child, and kill it when its time has come."""
    log.unlink(missing_ok=True)
    begun, child = time.monotonic(), os.fork()
    if not child:
        become(arguments, death, log)
    killed = False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        passed = time.monotonic() - begun
        if ended:
            break
        if passed > min(death.seconds, PATIENCE) and not killed:
            killed = passed < PATIENCE
            os.kill(child, signal.SIGKILL)
        time.sleep(0.004)
    text = log.read_text(errors="replace") if log.exists() else ""
    planned = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and (killed or death.operation)
    count = int(text.rpartition("operations ")[2] or 0) if "operations " in text else 0
    return Ended(None if planned else os.waitstatus_to_exitcode(status), text, count, passed)


def files_of(folder: Path) -> list[str]:
    """List everything in a folder; of a checkpoint no more than that it is there."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(name for name in names if "checkpoints/" not in name or name.partition("checkpoints/")[2].isdecimal())


def contents(folder: Path) -> dict[str, Any]:
    """Digest every file of a folder, which the commands in a report name by its place."""
    return {name: sha256((folder / name).read_bytes().replace(bytes(folder), b"")).hexdigest()
            for name in files_of(folder) if (folder / name).is_file()}


def log_of(file: Path) -> list[dict[str, Any]]:
    """Read a log without what differs from run to run; each line must be one."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines
            if line["kind"] != "compile"]


def end_of_runs(folder: Path) -> dict[str, Any]:
    """Tell what a folder of runs has come to: results, logs, whole checkpoints, tables, names of all files."""
    whole = [str(place.relative_to(folder)) for place in folder.rglob("checkpoints/*") if damage(place) is None]
    results = {str(file.relative_to(folder)): {key: value for key, value in json.loads(file.read_text()).items()
                                               if key not in TIMES} for file in folder.rglob("result.json")}
    return {"log": {str(file.relative_to(folder)): log_of(file) for file in folder.rglob("metrics.jsonl")},
            "results": results, "whole checkpoints": sorted(whole), "files": files_of(folder),
            "tables": {name: found for name, found in contents(folder).items() if "table" in name or "figure" in name}}


def end_of_files(folder: Path) -> dict[str, Any]:
    """Tell what a folder holds, to the byte."""
    return {"files": files_of(folder), "contents": contents(folder)}


class Scenario(NamedTuple):
    """A command for a folder, and what it has made of it."""

    command: Callable[[Path], list[str]]
    end: Callable[[Path], dict[str, Any]]
    before: Callable[[Path], object] = Path.mkdir


def scenarios(folder: Path, with_runs: bool = True) -> dict[str, Scenario]:
    """Prepare what commands need, for those that read finished runs these too, and list them."""
    (folder / "cifar10.py").write_text(EXPERIMENTS)
    archive = folder / "cifar-10-binary.tar.gz"
    write_archive(archive)
    cifar10.SHA256 = sha256(archive.read_bytes()).hexdigest()
    models.cifar_resnet = small_resnet
    sklearn.datasets.load_digits()  # SciPy is imported now
    tables = ["--seeds", "1", "--only", "plain20,resnet20", "--experiments", str(folder)]
    source = folder / "source"
    if with_runs and not source.exists():
        told = run(["reproduce", "table6", *tables, "--runs", str(source)], Death(), folder / "log")
        assert told.code == 0, told.text
    return {
        "train": Scenario(lambda place: ["train", f"{folder}/cifar10.py:smallest", "--workdir", f"{place}/run"],
                          end_of_runs),
        "reproduce": Scenario(lambda place: ["reproduce", "table6", *tables, "--runs", str(place)], end_of_runs),
        "export": Scenario(lambda place: ["export", f"{source}/resnet20/seed0", "--to", "stablehlo", "--out",
                                          f"{place}/out"], end_of_files),
        "prepare": Scenario(lambda place: ["prepare", "cifar10", "--directory", str(place), "--archive", str(archive)],
                            end_of_files),
        "report": Scenario(lambda place: ["report", f"{place}/runs"], end_of_files,
                           lambda place: shutil.copytree(source, place / "runs"))}


def small_resnet(depth: int, shortcut: Any, classes: int, **settings: Any) -> models.ResNet:
    """Build nothing of a network but what files have to do with, in place of those of 8 and of 14 layers."""
    if depth > 14:
        return REAL(depth, shortcut, classes, **settings)
    return models.ResNet((1,) * (depth > 8), 4, classes, shortcut, **settings)


def write_archive(file: Path) -> None:
    """Write an archive as CIFAR-10's official one, of two images a part."""
    with tarfile.open(file, "w:gz") as archive:
        for name in (name for names in cifar10.SPLITS.values() for name in names):
            content = bytes(range(256)) * 25
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            content = b"\3" + content[:3072] + b"\5" + content[7:3079]
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def chain(scenario: Scenario, place: Path, whole: Ended, chance: random.Random, counts: Counter[str]) -> dict[str, Any]:
    """Give a command again and again, killed, and at last left alone; return what it has come to."""
    shutil.rmtree(place, ignore_errors=True)
    scenario.before(place)
    for number in range(MOST_KILLS + 1):
        operation = chance.random() < 0.7
        death = Death(chance.randint(1, whole.operations)) if operation else Death(
            seconds=chance.uniform(0, whole.seconds))
        ended = run(scenario.command(place), Death() if number == MOST_KILLS else death, place.with_suffix(".log"))
        counts["tracebacks"] += "Traceback" in ended.text
        if ended.code is not None:
            break
        counts["kills"] += 1
        counts["before a file operation" if operation else "at a moment"] += 1
    there = "already exists" in ended.text  # an export that was killed when it was whole
    return {} if ended.code and not there else scenario.end(place)


def campaign(count: int = 1000, seed: int = 0, workdir: Path | None = None, only: str = "") -> int:
    """Kill so many processes and count what came of it.

    Args:
        count: Kills.
        seed: Of the moments.
        workdir: Where everything lies; by default a temporary folder.
        only: Some commands only: train,export.
    """
    folder = Path(workdir or tempfile.mkdtemp()).absolute()
    folder.mkdir(exist_ok=True)
    os.environ |= {"RESJAX_CACHE": str(folder / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    resjax.system.platform.configure()
    names, kept = [name for name in SHARES if not only or name in only.split(",")], folder / "kills.json"
    known = scenarios(folder, with_runs=bool({"export", "report"} & set(names)))
    wholes: dict[str, tuple[Ended, dict[str, Any]]] = {}
    counts: dict[str, Counter[str]] = {name: Counter(values) for name, values in (
        json.loads(kept.read_text()) if kept.exists() else {}).items()}
    for name in names:
        place = folder / f"{name}-whole"
        for _ in range(2):  # the second time nothing is compiled
            shutil.rmtree(place, ignore_errors=True)
            known[name].before(place)
            ended = run(known[name].command(place), Death(), place.with_suffix(".log"))
            assert ended.code == 0, ended.text
        wholes[name] = ended, known[name].end(place)
        counts.setdefault(name, Counter())
    while (total := sum(each["kills"] for each in counts.values())) < count:
        chance = random.Random(f"{seed} {total} {sum(each['commands'] for each in counts.values())}")
        name = min(names, key=lambda name: counts[name]["kills"] / SHARES[name])
        found = chain(known[name], folder / f"{name}-cut", wholes[name][0], chance, counts[name])
        counts[name]["commands"] += 1
        wrong = [part for part, value in wholes[name][1].items() if found.get(part) != value]
        counts[name].update({"other end": bool(wrong)} | {f"other {part}": 1 for part in wrong})
        if wrong:
            shutil.copytree(folder / f"{name}-cut", folder / f"{name}-wrong-{total}", dirs_exist_ok=True)
            print(json.dumps({"command": name, "kills": total, "other": wrong}), flush=True)
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{total} kills, {usage.ru_utime + usage.ru_stime:.0f} s of CPU", file=sys.stderr, flush=True)
        kept.write_text(json.dumps(counts, indent=1))
    print(json.dumps(counts))
    return int(any(each["other end"] + each["tracebacks"] for each in counts.values()))


if __name__ == "__main__":
    sys.exit(tyro.cli(campaign))
