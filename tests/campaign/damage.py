"""Every file that resjax writes or reads, damaged in every way, through every command that reads it.

    python tests/campaign/damage.py [--only TEXT] [--workdir DIR] [--verbose]

Each file in turn is emptied, cut to half, appended to, deleted, replaced by a folder, made unreadable, or has a bit
of a byte turned, early, in the middle and late. Then every command that reads the folder is given, on a fresh copy.
It must find what it finds in the undamaged folder, or end with one clear line; a change of a file that has a digest
must never give other numbers. Counts are printed, and kept in DIR/damage.json after every case; what broke a rule is
listed, and then the exit code is 1.
Everything runs in one process, from which root's power to read what has no permission is taken first (Linux).
"""

import argparse
import collections
import ctypes
import json
import os
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from campaign.damage_subjects import SUBJECTS, Command, Subject

import resjax
from resjax.console.command_line import guarded

READS_ALL = (1 << 1) | (1 << 2)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


def be_bound_by_permissions() -> bool:
    """Give up root's power to read and write anything, for this thread and those that it starts; say whether it is."""
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        if not hasattr(libc, "capset") or libc.capget(header, data):
            return False
        data[0] &= ~READS_ALL
        return libc.capset(header, data) == 0
    return True


def flip(where: float) -> Callable[[Path], object]:
    """Turn a bit of one byte."""
    def change(file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[int(where * (len(content) - 1))] ^= 1
        file.write_bytes(content)
    return change


def folder_instead(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda file: file.write_bytes(b""),
    "cut to half": lambda file: file.write_bytes(file.read_bytes()[:file.stat().st_size // 2]),
    "appended to": lambda file: file.write_bytes(file.read_bytes() + b"\0{appended}\n"),
    "deleted": Path.unlink, "a folder": folder_instead, "no permission": lambda file: file.chmod(0),
    "flipped early": flip(0.1), "flipped in the middle": flip(0.5), "flipped late": flip(0.9)}


SAID = ("damaged", "readable", "a JSON object", "not an experiment", "cannot", "lacks")


class Outcome(NamedTuple):
    """What a command came to: its exit code, what it found and printed, and what it told on standard error."""

    code: int
    found: Any
    told: str


def attempt(command: Command, place: Path, log: Path) -> Outcome:
    """Carry out a command, with whatever any library writes to the process's standard error."""
    found: list[Any] = []
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    for number, name in ((1, "out"), (2, "err")):
        descriptor = os.open(log.with_suffix(f".{name}"), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            code = guarded(lambda: found.append(command(place)))
    except BaseException:
        traceback.print_exc()
        code = 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
    out, told = (log.with_suffix(suffix).read_text(errors="replace").replace(str(place), "PLACE")
                 for suffix in (".out", ".err"))
    return Outcome(code, (found, re.sub(r"[\d.,]+ (images/s|MB)", "", out)), told)


def judge(outcome: Outcome, whole: Outcome, sealed: bool) -> str:
    """Name the kind of an outcome; the kinds in capitals break a rule."""
    lines = [line for line in outcome.told.splitlines() if line.strip()]
    answers = [line for line in lines if line.startswith("resjax: ")]
    if "Traceback" in outcome.told or outcome.code == 99:
        return "TRACEBACK"
    if any(not line.isprintable() or len(line) > 1500 for line in lines):
        return "UNCLEAR"
    if outcome.code:
        return "refused" if len(answers) == 1 and "WARNING" not in outcome.told else "UNCLEAR"
    if outcome.found == whole.found:
        return "right"
    if any(word in f"{outcome.told} {outcome.found}" for word in SAID):
        return "said"
    return "SILENT" if sealed else "other (no digest)"


class Case(NamedTuple):
    """A file of a subject, how it is damaged, and the command that is then given."""

    subject: str
    file: str
    damage: str
    command: str


def cases(subjects: dict[str, Subject]) -> Iterator[Case]:
    """List every file, damage and command."""
    for name, subject in subjects.items():
        seen = set()
        for file in sorted(found for found in subject.folder.rglob("*") if found.is_file()):
            relative = str(file.relative_to(subject.folder))
            if subject.kinds(relative) in seen:
                continue
            seen.add(subject.kinds(relative))
            for damage in DAMAGES if file.stat().st_size else ("appended to", "deleted", "a folder", "no permission"):
                for command in subject.commands:
                    if command.rpartition(" ")[2] == relative or "load " not in command:
                        yield Case(name, relative, damage, command)


def try_case(case: Case, subjects: dict[str, Subject], whole: dict[tuple[str, str], Outcome],
             folder: Path) -> tuple[str, Outcome]:
    """Damage a copy, give the command, and judge."""
    subject, place = subjects[case.subject], folder / "place"
    command = subject.commands[case.command]
    for key in ((case.subject, case.command), None):
        if key in whole:
            continue
        clear(place)
        shutil.copytree(subject.folder, place)
        if key is not None:
            whole[key] = attempt(command, place, folder / "log")
            assert whole[key].code == 0, whole[key].told
            continue
        DAMAGES[case.damage](place / case.file)
        outcome = attempt(command, place, folder / "log")
        clear(place)
        sealed = case.file.startswith(subject.sealed) if subject.sealed else False
        return judge(outcome, whole[case.subject, case.command], sealed), outcome
    raise AssertionError


def clear(place: Path) -> None:
    """Remove a folder, whatever its permissions."""
    for path in place.rglob("*") if place.exists() else ():
        path.chmod(0o755)
    shutil.rmtree(place, ignore_errors=True)


def prepared(folder: Path) -> dict[str, Subject]:
    """Make all subjects."""
    os.environ |= {"RESJAX_CACHE": str(folder / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    resjax.system.platform.configure()
    found: dict[str, Subject] = {}
    for make in SUBJECTS:
        found |= make(folder)
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="cases whose description matches this pattern")
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    folder = Path(arguments.workdir or tempfile.mkdtemp()).absolute()
    folder.mkdir(exist_ok=True)
    bound = be_bound_by_permissions()
    subjects, whole = prepared(folder), {}
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for case in cases(subjects):
        if not re.search(arguments.only, ", ".join(case)) or (case.damage == "no permission" and not bound):
            continue
        kind, outcome = try_case(case, subjects, whole, folder)
        counts[case.subject][kind] += 1
        (folder / "damage.json").write_text(json.dumps(counts))
        if kind.isupper() or arguments.verbose:
            print(f"{kind}: {', '.join(case)}: code {outcome.code}\n    {outcome.told.strip()[-1500:]}", flush=True)
    print(json.dumps(counts))
    return int(any(kind.isupper() for each in counts.values() for kind in each))


if __name__ == "__main__":
    sys.exit(main())
