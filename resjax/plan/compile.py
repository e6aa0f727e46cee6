"""Compilation of programs for hardware that this machine may not have."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import Sharding

from resjax.plan.devices import Device, target_config
from resjax.system.errors import BadInput, check

PLUGINS = {"cuda": (("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13"), "pip install 'jax[cuda12]'"),
           "tpu": (("libtpu",), "pip install 'jax[tpu]'")}
HERE = {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3"}


@dataclass(frozen=True)
class Compiled:
    """A compiled program for one of the devices that share the work, with XLA's own memory figures."""

    text: str
    steps: int
    """The number of steps or batches per call."""
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    """The memory of arguments and of results that do not reuse it, plus the peak of temporary memory."""
    seconds: float
    """The compile time, up to the point at which the program was read."""
    compiler_bytes: float | None = None
    """The bytes that a call moves by XLA's own count, including on-chip memory. Only known for TPUs."""
    rounds: int | None = None
    """The assumed number of iterations of a loop whose length depends on its data."""


class Program(NamedTuple):
    """A function that lowers a program; `steps` and `rounds` are those of `Compiled`."""

    lower: Callable[[], Any]
    steps: int
    rounds: int | None = None


Programs = Iterator[tuple[str, Program]]


@dataclass(frozen=True)
class Job:
    """The programs of a run, for hardware that you don't have."""

    programs: Callable[[Any, Sequence[jax.Device]], Programs]
    run: Any
    device: Device
    count: int
    hosts: int

    def all(self) -> dict[str, Program]:
        """Return the programs by name. Raises the errors of `target_devices`."""
        return dict(self.programs(self.run, target_devices(self.device, self.count, self.hosts)))


class DoesNotFit(Exception):
    """The compiler could not fit a program into the device's memory; the message is the compiler's."""


def hide_devices() -> None:
    """Let JAX start without any accelerator of this machine; call this before any computation."""
    os.environ.update(HERE)


def target_devices(device: Device, count: int, hosts: int = 1) -> list[jax.Device]:
    """Describe `count` devices on `hosts` machines as a compilation target; a single TPU comes from the smallest slice.

    Raises BadInput if the plugin is missing, with the command that installs it, or if there is no such machine.
    """
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
    with quiet():
        return list(topologies.get_topology_desc(platform=device.platform, **settings).devices)[:count]


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what the plugins print when they find no device; exceptions are still raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


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
    return Compiled(compiled.as_text(), program.steps, memory.argument_size_in_bytes, memory.temp_size_in_bytes, peak,
                    time.perf_counter() - start, (compiled.cost_analysis() or {}).get("bytes accessed"),
                    program.rounds)


def shaped(tree: Any, sharding: Sharding) -> Any:
    """Replace the arrays of a tree by shapes, on the devices of a sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
