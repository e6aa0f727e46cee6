"""Compiles JAX functions to XLA programs, for hardware that this machine may not have.

Each program is compiled in a separate process, so that the compilation can be stopped as soon as the optimised program
and its memory allocation are known. A plan does not need the machine code of the kernels. For a TPU, XLA completes the
program and the allocation within seconds, but takes minutes to generate the machine code (eight minutes for a float32
ResNet-50). With the flag `--xla_dump_to`, XLA writes the program and its allocation to a folder as soon as they are
complete, and this module reads them there.
"""

import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Sharding

from resjax.experiment_files import pickled
from resjax.plan.devices import Machine, target_config
from resjax.system.errors import BadInput, Lost, check

HOMES = {"classification": "resjax.plan.classifier", "detection": "resjax.plan.detector"}  # modules by kind of run
PLUGINS = {"cuda": (("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13"), "pip install 'jax[cuda12]'"),
           "tpu": (("libtpu",), "pip install 'jax[tpu]'")}
HERE = {"JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3", "TPU_MIN_LOG_LEVEL": "3",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}  # keep libtpu quiet
PAUSE = 0.05  # seconds between two checks of the dump
SETTLED = ".after_optimizations"  # part of XLA's file names for a TPU program
# Matches an array in main memory. On-chip arrays have a color, and only newer compilers name a page.
ALLOCATION = re.compile(r"^allocation \d+: size (\d+), (?:page \d+, )?(?!color)(\S*)", re.MULTILINE)


@dataclass(frozen=True)
class Compiled:
    """A compiled program for one of the devices that share the work, with XLA's own memory figures."""

    text: str
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    """The memory of arguments and of results that do not reuse it, plus the peak of temporary memory."""
    seconds: float
    """The compile time, up to the point at which the program was read."""
    compiler_bytes: float | None = None
    """The bytes that a call moves by XLA's own count, including on-chip memory. They are known only for TPUs."""


class Program(NamedTuple):
    """A program of a run."""

    lower: Callable[[], Any]
    steps: int = 1
    """The number of steps or batches per call."""
    rounds: int | None = None
    """The assumed number of iterations of a loop whose length depends on its data."""


Programs = Iterator[tuple[str, Program]]


@dataclass(frozen=True)
class Workload:
    """A run of any kind, described for a plan."""

    precision: str
    ghost_batch_size: tuple[str, int]
    """The field that sets the number of images per batch-norm group, and this number."""
    programs: Callable[[Sequence[jax.Device]], Programs]
    """The programs of the run, "train" first."""
    batches: dict[str, int]
    """The number of steps or batches that the run computes with each program, by program."""
    assumptions: tuple[str, ...]
    objects: Callable[[], Any] = dict
    """Returns the provenance of the run's own Python objects (see `training.python_objects`)."""


def workload_of(run: Any) -> Workload:
    """Describe a run for a plan, by the module that knows the programs of its kind."""
    workload: Workload = import_module(HOMES[run.kind]).workload_of(run)
    return workload


class Job(NamedTuple):
    """A run to plan, and the machine to plan for."""

    run: Any
    machine: Machine

    def programs(self) -> dict[str, Program]:
        """Return the programs by name. Raises the errors of `target_devices`."""
        return dict(workload_of(self.run).programs(target_devices(self.machine)))


class DoesNotFit(Exception):
    """A program does not fit into the device's memory. The message is the compiler's."""


def hide_devices() -> None:
    """Let JAX start without this machine's accelerators. Call this function before any computation."""
    os.environ.update(HERE)
    jax.config.update("jax_platforms", "cpu")


def target_devices(machine: Machine) -> list[jax.Device]:
    """Describe a machine's devices as a compilation target. A single TPU is taken from the smallest slice.

    Raises BadInput if there is no such machine, or if JAX's plugin is missing; the message has the command to install
    it.
    """
    device, count, hosts = machine.device, machine.count, machine.hosts
    modules, command = PLUGINS[device.platform]
    if not any(find_spec(module) for module in modules if find_spec(module.partition(".")[0])):
        raise BadInput(f"{device.title}: JAX's compiler for this device is not installed; install it with {command} "
                       "(the compiler needs no device)")
    check(count % hosts == 0, f"devices is {count}; it must be a multiple of hosts, {hosts}")
    if device.platform == "cuda":
        settings = {"target_config": target_config(device), "topology": f"1x{hosts}x{count // hosts}"}
    else:
        check(count == 1 or count in device.slices, f"{device.title} comes in slices of "
              f"{', '.join(map(str, sorted(device.slices)))} chips, not {count}")
        settings = {"topology_name": f"{device.title.split()[-1]}:{device.slices[max(4, count)]}"}
    return list(topologies.get_topology_desc(platform=device.platform, **settings).devices)[:count]


def compile_program(program: Program) -> Compiled:
    """Lower and compile a program. Raises DoesNotFit if the compiler reports too little memory."""
    start = time.perf_counter()
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise DoesNotFit(str(error)) from None
        raise
    memory = compiled.memory_analysis()
    peak = (memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes)
    return Compiled(compiled.as_text(), memory.argument_size_in_bytes, memory.temp_size_in_bytes, peak,
                    time.perf_counter() - start, (compiled.cost_analysis() or {}).get("bytes accessed"))


def compile_apart(job: Job, name: str, stop: threading.Event) -> Compiled:
    """Compile a program of a job, or read its final form early; give up once `stop` is set.

    Raises DoesNotFit if the compiler reports too little memory, and Lost if the process died or was stopped.
    """
    start, on_tpu = time.perf_counter(), job.machine.device.platform == "tpu"
    with TemporaryDirectory(prefix="resjax-") as place, start_compiler(job, name, folder := Path(place)) as process:
        try:
            while process.poll() is None:
                if stop.wait(PAUSE):
                    raise Lost(f"stopped while compiling {name}")
                if on_tpu and (compiled := settled(folder, time.perf_counter() - start)):
                    return compiled
        finally:
            process.kill()
        return compiled_result(folder, name, process.returncode)


def start_compiler(job: Job, name: str, folder: Path) -> "subprocess.Popen[bytes]":
    """Start the compilation in a process that ignores Ctrl-C and ends when this process ends.

    The job can contain functions of an experiment file, which are sent whole, and of modules that this process finds.
    """
    (folder / "job").write_bytes(pickled((job, name)))
    code = f"import sys; from {__name__} import compile_job; sys.path[:] = {[*map(str, sys.path)]}; compile_job()"
    command = [sys.executable, "-c", code, str(folder)]
    with (folder / "errors").open("wb") as errors:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=errors, stderr=errors, start_new_session=True)


def compile_job() -> None:
    """Compile the job in the folder from the command line, and write the result there."""
    folder = Path(sys.argv[1])
    threading.Thread(target=end_with_the_other, args=(folder,), daemon=True).start()
    hide_devices()
    job, name = pickle.loads((folder / "job").read_bytes())
    if job.machine.device.platform == "tpu":
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to={folder} --xla_dump_hlo_as_text"
    try:
        result: Compiled | DoesNotFit = compile_program(job.programs()[name])
    except DoesNotFit as error:
        result = error
    (folder / "result").write_bytes(pickle.dumps(result))


def end_with_the_other(folder: Path) -> None:
    """Exit silently once the parent process has ended."""
    os.read(sys.stdin.fileno(), 1)  # returns when the pipe closes; `sys.stdin` itself could block the exit
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def compiled_result(folder: Path, name: str, code: int) -> Compiled:
    """Return the result of a finished process. Raises Lost, with its last output, if there is none."""
    if not (folder / "result").exists():
        words = (folder / "errors").read_text("utf-8", errors="replace")[-2000:].strip()
        raise Lost(f"{name}: its compiler process died with exit code {code} {words}".rstrip())
    result: Compiled | DoesNotFit = pickle.loads((folder / "result").read_bytes())
    if isinstance(result, DoesNotFit):
        raise result
    return result


def settled(folder: Path, seconds: float) -> Compiled | None:
    """Read a TPU program and its memory (without code) from the dump; None until both are final."""
    last = next(folder.glob(f"*{SETTLED}_after_buffer_assignment.txt"), None)  # written last: the others are complete
    if last is None:
        return None
    stem = last.name.partition(SETTLED)[0] + SETTLED
    arrays = ALLOCATION.findall((folder / f"{stem}-buffer-assignment.txt").read_text("utf-8"))
    if not arrays:  # another compiler's format, so use the final result instead
        return None
    arguments, temporaries, peak = (sum(int(size) for size, kind in arrays if kind.startswith(wanted))
                                    for wanted in ("parameter", "preallocated-temp", ""))
    return Compiled((folder / f"{stem}.txt").read_text("utf-8"), arguments, temporaries, peak, seconds)


def shaped(tree: Any, sharding: Sharding) -> Any:
    """Replace the arrays of a tree by shapes, on the devices of a sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def array(sharding: Sharding, kind: Any, *shape: int) -> Any:
    """Describe an array on the devices of a sharding."""
    return jax.ShapeDtypeStruct(shape, kind, sharding=sharding)
