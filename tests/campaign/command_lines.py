"""A thousand random command lines: each ends in time, with a right exit code and without a traceback.

    python tests/campaign/command_lines.py [--count 1000] [--seed 0] [--verbose]

Commands, their own flags and those of others, and values good and bad: files of every kind, missing, damaged and
unreadable ones, devices, FIFOs, users and folders that are not there, overlong names, control characters,
numbers of every size. Everything runs in one process, whose trainings are of a few steps. Counts are printed; what
broke a rule is listed, and then the exit code is 1.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from campaign import kills
from campaign.damage import Outcome, attempt

import resjax
from resjax.console.command_line import COMMANDS, execute
from resjax.data import cifar10

SECONDS = 30.0  # of work; the longest that is right, a first training, takes ten
LONG = ("quickstart", "doctor")
COMMON = ["--help", "--seed", "--steps", "--workdir", "--out", "--data", "--directory", "--views", "--split", "--to",
          "--key", "--stride-in", "--only", "--seeds", "--scale", "--shard", "--runs", "--archive", "--batch-size",
          "--no-such-flag", "-", "--", "--=", "-h", "--data.source", "--data.size", "--data.std", "--data.pad",
          "--optimizer.learning-rate", "--optimizer.decay-steps", "--architecture.depth", "--architecture.shortcut",
          "--initialize-from", "--name", "--log-steps", "--checkpoint-steps", "--precise-batch-norm-steps",
          "--experiments", "--score", "--resize", "--evaluate-test", "--data.flip", "--tensorboard", "--json", "--on",
          "--devices", "--hosts", "--distributed", "--whole-table", "--csv", "--coco", "--code", "--flag", "--of",
          "--shortcut", "--top", "--annotations", "--by-class", "--training", "--evaluate-steps"]
WORDS = ["", " ", "1", "0", "-1", "8", "1e400", "nan", "inf", "-inf", "2147483648", "9" * 30, "1/2", "0/0", "²",
         "True", "None", "digits", "train", "test", "single", "ten-crop", "torchvision", "stablehlo", "akamaster",
         "table1", "table6", "table7", "table11", "resnet20", "A", "plain", "3x3", "pillow-bicubic",
         "\x1b[31mred\x1b[0m", "\x01", "a\nb", "\r", "\u202ereversed", "\udcff", "x" * 300,
         "/" + "y/" * 3000, "é" * 200,
         "../" * 40, "*", "$(touch marker)", "; touch marker", "%s%n", "{}", "OWNER/NAME", "a/b/c", "h100", "v5e",
         "folder:", "tars:", "tfds:", "folder:nowhere", "tfds:cifar10", "tfds:../x", "voc:", ":", "file:", ":name"]


def places(folder: Path) -> list[str]:
    """Make files of every kind, and name them."""
    (folder / "empty").touch()
    (folder / "noise.png").write_bytes(random.Random(0).randbytes(5000))
    (folder / "text.py").write_text("EXPERIMENTS = 3\n")
    (folder / "wrong.py").write_text("def (:\n")
    (folder / "raises.py").write_text("raise KeyError('\\x1b[2J')\n")
    (folder / "link.json").symlink_to("link.json")
    (folder / "new\nline").touch()
    os.mkfifo(folder / "fifo")
    os.mkfifo(folder / "fifo.py")
    (folder / "odd").mkdir()
    (folder / "odd" / "experiment.json").write_text("{}")
    (folder / "pipes").mkdir()
    os.mkfifo(folder / "pipes" / "experiment.json")
    shutil.copy(folder / "cifar10.py", folder / "experiments.py")
    run = "source/resnet20/seed0"
    return [run, run, "source", "cifar10.py:smallest", "cifar10.py:resnet20", "cifar10.py", "cifar10.py:nobody",
            f"{run}/experiment.json", f"{run}/result.json", "empty", "noise.png", "text.py", "text.py:a", "wrong.py:a",
            "raises.py:a", "link.json", "new\nline", "fifo", "fifo.py", "fifo.py:a", "odd", "pipes", "nowhere",
            "nowhere/deeper", "~nobodyhere", "~nobodyhere/run", "/dev/zero", "/dev/full", "/dev/null", "/proc/self/mem",
            "folder:fifo", "folder:/dev/zero", "folder:~nobodyhere", "tars:source", "empty/inside", "."]


def command_line(chance: random.Random, files: Sequence[str]) -> list[str]:
    """Make one at random: mostly a known command with a first argument that it may like."""
    def value() -> str:
        return chance.choice(files) if chance.random() < 0.5 else chance.choice(WORDS)

    line = [chance.choice([*COMMANDS, *COMMANDS, value()])]
    firsts = {"train": files[3:5], "show": files[3:5], "plan": files[3:5], "mean-image": files[3:5], "list": files[5:6],
              "evaluate": files[:1], "predict": files[:1], "saliency": files[:1], "export": files[:1],
              "detect": files[:1], "prepare": ["cifar10"], "report": ["source"], "compare": ["source"],
              "reproduce": ["table6", "table1"]}
    if line[0] in firsts and chance.random() < 0.6:
        line.append(chance.choice(firsts[line[0]]))
    for _ in range(chance.choice((0, 1, 1, 2, 2, 3, 5))):
        if chance.random() < 0.6:
            line += [chance.choice(COMMON)] + [value()] * (chance.random() < 0.8)
        else:
            line.append(value())
    return line


def kept_short(line: Sequence[str]) -> bool:
    """Say whether a line asks for nothing that is right and takes long, or that needs a network or a launcher."""
    text = " ".join(line)
    if line[0] in LONG:
        return False
    long = ("table7", "table8", "table9", "table10", "table11", "OWNER/NAME", "a/b/c", "--on h100", "--on v5e",
            "--distributed", "doctor")
    if line[0] == "reproduce" and "table6" in line and "--experiments" not in line:
        return False
    return not any(part in text for part in long) or (line[0] not in ("reproduce", "plan") and "/" not in text)


def faults(outcome: Outcome, seconds: float) -> list[str]:
    """List the rules that a command line broke."""
    told = outcome.told
    broken = ["traceback"] * ("Traceback" in told or outcome.code == 99) + ["time"] * (seconds > SECONDS)
    lines = [line for line in told.splitlines() if line.startswith("resjax: ")]
    if outcome.code not in (0, 1, 2):
        broken.append(f"exit code {outcome.code}")
    if any((ord(character) < 32 and character != "\n") or 0x7f <= ord(character) < 0xa0 for line in lines
           for character in line) or any(len(line) > 3100 for line in lines):
        broken.append("control characters or length")
    return broken


def carry_out(line: Sequence[str]) -> Any:
    """Carry out a line; what tyro refuses ends as a program does."""
    try:
        execute(line)
    except SystemExit as end:
        if end.code not in (0, None):
            raise resjax.BadInput("refused by the command line") from None


def too_long(number: int, frame: Any) -> None:
    raise TimeoutError("it takes too long")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    folder, chance = Path(tempfile.mkdtemp()), random.Random(arguments.seed)
    os.environ |= {"RESJAX_CACHE": str(folder / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                   "HF_HUB_OFFLINE": "1"}
    resjax.system.platform.configure()
    kills.scenarios(folder)
    cifar10.URL = "http://127.0.0.1:9/nothing"
    os.chdir(folder)
    counts, wrong = tried(chance, arguments.count, folder, arguments.verbose)
    print(json.dumps(counts))
    shutil.rmtree(folder, ignore_errors=True)
    return int(wrong > 0)


def tried(chance: random.Random, count: int, folder: Path, verbose: bool = False) -> tuple[dict[str, int], int]:
    """Carry out so many lines in a folder; return counts, and how many broke a rule."""
    files, counts, wrong = places(folder), collections.Counter[str](), 0
    signal.signal(signal.SIGALRM, too_long)
    while counts["lines"] < count:
        line = command_line(chance, files)
        if not kept_short(line):
            continue
        begun = time.process_time()
        signal.alarm(int(10 * SECONDS))  # of a wall clock, on a busy machine
        outcome = attempt(lambda _, line=line: carry_out(line), folder, folder / "log")
        signal.alarm(0)
        seconds = time.process_time() - begun
        broken = faults(outcome, seconds) + ["a marker"] * (folder / "marker").exists()
        counts["lines"] += 1
        counts[f"exit code {outcome.code}"] += 1
        counts["broke a rule"] += bool(broken)
        counts.update(broken)
        wrong += bool(broken)
        if broken or verbose:
            print(f"{', '.join(broken) or 'right'}: {seconds:.1f} s {line!s:.600}\n   {outcome.told[-1200:]!r}",
                  flush=True)
        shutil.rmtree(folder / "runs", ignore_errors=True)
    return dict(counts), wrong


if __name__ == "__main__":
    sys.exit(main())
