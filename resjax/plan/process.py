"""Compilation in a separate process, which is stopped as soon as its result is known.

For a TPU, XLA fixes the program and its memory within seconds, which is all that a plan reads. The machine code of the
kernels takes minutes (eight for a float32 ResNet-50). XLA writes intermediate results to the folder of its flag
`--xla_dump_to`.
"""

import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from resjax.plan.compile import Compiled, DoesNotFit, Job, Program, compile_program, hide_devices
from resjax.system.errors import Lost

PAUSE = 0.05  # seconds between two checks of the dump
SETTLED = ".after_optimizations"  # XLA's file names for a TPU program
# An array in main memory; on-chip arrays have a color, and only later compilers name a page.
ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (?:page \d+, )?(?!color)(\S*)", re.MULTILINE)


def compile_apart(job: Job, name: str, program: Program, stop: threading.Event) -> Compiled:
    """Compile a program of a job, or read its final form early; give up once `stop` is set.

    Raises DoesNotFit if the compiler reports too little memory, and Lost if the process died or was stopped.
    """
    start = time.perf_counter()
    with TemporaryDirectory(prefix="resjax-") as temporary, started(job, name, Path(temporary)) as process:
        folder = Path(temporary)
        while not stop.wait(PAUSE):
            code = process.poll()
            if job.device.platform == "tpu" and (found := settled(folder, program, time.perf_counter() - start)):
                return found
            if code is not None:
                return compiled_result(folder, name, code)
    raise Lost(f"stopped while compiling {name}")


@contextmanager
def started(job: Job, name: str, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the compilation in a process that ends with this one or with the block; it ignores Ctrl-C."""
    (folder / "job").write_bytes(pickle.dumps((job, name)))
    command = [sys.executable, "-c", f"from {__name__} import compile_job; compile_job()", str(folder)]
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=errors, stderr=errors, start_new_session=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


def compile_job() -> None:
    """Compile the job in the folder from the command line, and write the result there."""
    folder = Path(sys.argv[1])
    threading.Thread(target=end_with_the_other, args=(folder,), daemon=True).start()
    hide_devices()
    job, name = pickle.loads((folder / "job").read_bytes())
    if job.device.platform == "tpu":
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder} --xla_dump_hlo_as_text"
    try:
        found: Compiled | DoesNotFit = compile_program(job.all()[name])
    except DoesNotFit as error:
        found = error
    (folder / "result").write_bytes(pickle.dumps(found))


def end_with_the_other(folder: Path) -> None:
    """Exit silently once the parent process has ended."""
    os.read(sys.stdin.fileno(), 1)  # returns when the pipe closes; `sys.stdin` itself could block the exit
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def compiled_result(folder: Path, name: str, code: int) -> Compiled:
    """Return the result of a finished process. Raises Lost, with its last output, if there is none."""
    if not (folder / "result").exists():
        words = (folder / "errors").read_text(errors="replace")[-2000:].strip()
        raise Lost(f"{name}: its compiler process died with exit code {code} {words}".rstrip())
    found: Compiled | DoesNotFit = pickle.loads((folder / "result").read_bytes())
    if isinstance(found, DoesNotFit):
        raise found
    return found


def settled(folder: Path, program: Program, seconds: float) -> Compiled | None:
    """Read a TPU's program and its memory (without code) from the dump; None until XLA has fixed them."""
    last = next(folder.glob(f"*{SETTLED}_after_buffer_assignment.txt"), None)  # written last: the others are complete
    if last is None:
        return None
    stem = last.name.partition(SETTLED)[0] + SETTLED
    arrays = ALLOCATION.findall((folder / f"{stem}-buffer-assignment.txt").read_text())
    if not arrays:  # another compiler's format: use the final result instead
        return None
    arguments, temporaries, peak = (sum(int(size) for size, found in arrays if found.startswith(kind))
                                    for kind in ("parameter", "preallocated-temp", ""))
    return Compiled((folder / f"{stem}.txt").read_text(), program.steps, arguments, temporaries, peak, seconds, None,
                    program.rounds)
