"""Damaged and hostile files of weights: no code runs, memory and time are those of an honest file, one clear line each.

    python tests/campaign/weights.py [--mutations 10000] [--seed 0] [--only TEXT] [--verbose]

writes every construction of `hostile_files` and `hostile_hdf5` and so many mutations of whole files, loads each in a
process whose memory, time and doings are watched, and prints counts; what broke a rule is listed, and then the exit
code is 1.
"""

import argparse
import collections
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from campaign import hostile_files, hostile_hdf5, mutations

MEMORY, SECONDS = 1 << 30, 10.0  # more than what the largest honest file here takes, which is 1 MB
PATIENCE = 120  # seconds without a word from the process, on a busy machine
FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.remove", "os.rename", "os.rmdir",
             "os.mkdir", "pickle.find_class", "socket.connect", "shutil.rmtree", "ctypes.dlopen", "webbrowser.open")


def constructions() -> Iterator["Case"]:
    """List all hostile files."""
    for kind in (hostile_files.pickles, hostile_files.archives, hostile_files.safetensors, hostile_hdf5.hdf5,
                 hostile_files.others):
        yield from kind()


class Outcome(NamedTuple):
    """What became of a file: `kind` is refused, loaded, traceback or ended; what it cost, in bytes and seconds."""

    name: str
    kind: str
    message: str
    memory: int
    seconds: float
    did: str


def watch(doings: list[str]) -> None:
    """Note whatever this process does that reading a file never needs."""
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
        if event in FORBIDDEN or writes:
            doings.append(f"{event} {arguments[:2]}")
        if event == "subprocess.Popen" and not str(arguments[1][2]).endswith("hdf5_layout.py"):
            doings.append(f"{event} {arguments[1]}")

    sys.addaudithook(hook)


def peak() -> int:
    """Return the most memory that this process has held since `forget_peak`, and that a child of it ever did."""
    status = Path("/proc/self/status").read_text()
    own = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    return own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def spent() -> float:
    """Return the seconds of work of this process and its children."""
    return sum(getattr(resource.getrusage(who), field) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
               for field in ("ru_utime", "ru_stime"))


def attempt(target: Path, known: dict[str, Any]) -> tuple[str, str]:
    """Load a file. Where its tensors are named and shaped as known ones, reading them is enough: the rest is slow."""
    import resjax
    from resjax.weights.files import read_tensors

    try:
        shapes = {name: tensor.shape for name, tensor in read_tensors(target).items()} if target.is_file() else None
        if shapes is None or shapes not in known.values():
            resjax.load(target, shortcut="A", stride_in="3x3")
        return "loaded", ""
    except resjax.BadInput as error:
        return "refused", str(error)
    except BaseException:
        return "traceback", traceback.format_exc()


def serve(pipe: Connection) -> None:
    """Load what is asked for and answer with outcomes."""
    import resjax
    from resjax.weights.files import read_tensors

    known: dict[str, Any] = {}
    doings: list[str] = []
    for target in pipe.recv():
        resjax.load(target, shortcut="A", stride_in="3x3") if "resnet" in target.name else read_tensors(target)
        known[target.name] = {name: tensor.shape for name, tensor in read_tensors(target).items()}
    watch(doings)
    while (asked := pipe.recv()) is not None:
        name, target = asked
        forget_peak()
        before, began = peak(), spent()
        doings.clear()
        kind, message = attempt(target, known)
        pipe.send(Outcome(name, kind, message, peak() - before, spent() - began, "; ".join(doings)))


class Guard:
    """Asks a process, and starts another where a file ended or held up the one before."""

    def __init__(self, honest: list[Path]) -> None:
        self.honest = honest
        self.begin()

    def begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        self.process = context.Process(target=serve, args=(there,), daemon=False)
        self.process.start()
        there.close()
        self.pipe.send(self.honest)

    def ask(self, name: str, target: Path) -> Outcome:
        began = time.monotonic()
        self.pipe.send((name, target))
        try:
            if self.pipe.poll(PATIENCE):
                answer: Outcome = self.pipe.recv()
                return answer
            self.process.kill()
        except EOFError:
            pass
        self.process.join()
        code = self.process.exitcode
        self.begin()
        return Outcome(name, "ended", f"exit code {code}", 0, time.monotonic() - began, "")

    def end(self) -> None:
        self.pipe.send(None)
        self.process.join()


def faults(outcome: Outcome) -> Iterator[str]:
    """List the rules that an outcome breaks."""
    if outcome.kind in ("traceback", "ended"):
        yield outcome.kind
    if outcome.kind == "refused" and ("\n" in outcome.message or not outcome.message.isprintable()
                                      or len(outcome.message) > 1500):
        yield "unclear"
    if outcome.memory > MEMORY:
        yield f"{outcome.memory >> 20} MiB"
    if outcome.seconds > SECONDS:
        yield f"{outcome.seconds:.1f} s"
    if outcome.did:
        yield "did something"


Case = tuple[str, Callable[[Path], Path]]


def run(cases: Iterator[Case], guard: Guard, folder: Path, seen: Callable[[Outcome], object]) -> list[Outcome]:
    """Write, load and remove one file after the other."""
    outcomes = []
    for number, (name, make) in enumerate(cases):
        place = folder / str(number)
        place.mkdir()
        outcome = guard.ask(name, make(place))
        if (place / "marker").exists():
            outcome = outcome._replace(did=f"{outcome.did}; wrote a file")
        outcomes.append(outcome)
        seen(outcome)
        shutil.rmtree(place)
    return outcomes


def summary(title: str, outcomes: list[Outcome]) -> int:
    """Print counts, and what broke a rule; return how many did."""
    if not outcomes:
        return 0
    kinds = collections.Counter(outcome.kind for outcome in outcomes)
    wrong = [(outcome, ", ".join(faults(outcome))) for outcome in outcomes if any(faults(outcome))]
    print(f"{title}: {len(outcomes)}; {', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))}; "
          f"at most {max(o.memory for o in outcomes) >> 20} MiB and {max(o.seconds for o in outcomes):.1f} s; "
          f"{len(wrong)} broke a rule")
    for outcome, why in wrong[:50]:
        print(f"  {outcome.name}: {why}: {outcome.did} {outcome.message[-1500:]}")
    return len(wrong)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="constructions whose name holds this")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()

    def tell(outcome: Outcome) -> None:
        if arguments.verbose:
            print(f"{outcome.memory >> 20:5} MiB {outcome.seconds:5.1f} s {outcome.kind:9} {outcome.name}: "
                  f"{outcome.message[-160:]!r}", flush=True)

    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        honest = mutations.honest_files(folder)
        guard = Guard(honest)
        wrong = summary("constructions", run(
            (case for case in constructions() if arguments.only in case[0]), guard, folder, tell))
        mutated = mutations.mutated(honest, random.Random(arguments.seed), arguments.mutations)
        wrong += summary("mutations", run(mutated, guard, folder, tell))
        guard.end()
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
