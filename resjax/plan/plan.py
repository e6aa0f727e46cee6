"""From compiled programs to a plan: what a step moves and computes, how fast it can be at best, and what limits it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from resjax.experiment import Experiment
from resjax.plan.compile import Compiled, image_set
from resjax.plan.devices import Device
from resjax.plan.program import Kernel, read_kernels
from resjax.training.kinds import Run

LIMITS = {"memory": "the memory's bandwidth", "arithmetic": "arithmetic", "launches": "the launches of small kernels",
          "exchange": "the exchange between devices"}
JAX_SHARE = 0.75  # of a GPU's memory, which JAX takes at its start unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise


@dataclass(frozen=True)
class Part:
    """What one kind of kernels adds up to in a step."""

    kernels: float
    bytes: float
    macs: float
    seconds: float


@dataclass(frozen=True)
class Figures:
    """What one device does in a step (or a batch) of a program, as the compiled text says."""

    steps: int
    """Steps that a call makes."""
    kernels: float
    bytes: float
    macs: float
    collectives: dict[str, tuple[float, float]]
    """By kind: how many, and the bytes of their arrays."""
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    compile_seconds: float
    compiler_bytes: float | None
    """What XLA itself counts that a call moves, where it does."""
    seconds: float
    """The least that a step takes on the device."""
    limits: dict[str, float]
    """The seconds of that by what limits each kernel; the exchange runs beside them, at best."""
    parts: dict[str, Part]

    @property
    def limit(self) -> str:
        """Say what limits the step most."""
        return LIMITS[max(self.limits, key=lambda name: self.limits[name])]


def figures(compiled: Compiled, device: Device, precision: str, count: int, hosts: int) -> Figures:
    """Read a compiled program, for one of `count` devices on `hosts` machines that share the work."""
    everything = read_kernels(compiled.text, compiled.rounds)
    kernels = [kernel for kernel in everything if kernel.kind != "collective"]
    collectives = [kernel for kernel in everything if kernel.kind == "collective"]
    steps, peak = compiled.steps, device.peak[precision]
    limits = {"memory": 0.0, "arithmetic": 0.0, "launches": 0.0}
    for kernel in kernels:
        seconds, limit = bound(kernel, device, peak)
        limits[limit] += seconds * kernel.times / steps
    limits["exchange"] = sum(exchange_seconds(kernel, device, count, hosts) * kernel.times for kernel in collectives
                             ) / steps
    busy = sum(seconds for name, seconds in limits.items() if name != "exchange")
    launched, moved, multiplied = totals([*kernels, *collectives], steps)
    return Figures(
        steps=steps, kernels=launched, bytes=moved, macs=multiplied, collectives=dict(exchanged(collectives, steps)),
        argument_bytes=compiled.argument_bytes, temporary_bytes=compiled.temporary_bytes,
        peak_bytes=compiled.peak_bytes, compile_seconds=round(compiled.seconds, 1),
        compiler_bytes=compiled.compiler_bytes,
        seconds=max(busy, limits["exchange"]), limits=limits, parts=dict(parts(kernels, device, peak, steps)))


def bound(kernel: Kernel, device: Device, peak: float) -> tuple[float, str]:
    """Return the least seconds of a kernel, and what asks for them: its bytes, its multiply-adds, or its launch."""
    return max((kernel.bytes / device.bandwidth, "memory"), (kernel.macs / peak, "arithmetic"),
               (device.launch, "launches"))


def exchange_seconds(kernel: Kernel, device: Device, count: int, hosts: int) -> float:
    """Return the least seconds in which arrays are summed over all devices: around a ring within each host, then each
    device's share around a ring of hosts.
    """
    local = count // hosts
    within = 2 * (local - 1) / local * kernel.sent / device.link
    return max(device.launch, within + 2 * (hosts - 1) / hosts * kernel.sent / local / device.network)


def totals(kernels: Sequence[Kernel], steps: int) -> tuple[float, float, float]:
    """Add up launches, bytes and multiply-adds of a step."""
    return (sum(kernel.times for kernel in kernels) / steps,
            sum(kernel.bytes * kernel.times for kernel in kernels) / steps,
            sum(kernel.macs * kernel.times for kernel in kernels) / steps)


def exchanged(collectives: Sequence[Kernel], steps: int) -> Iterator[tuple[str, tuple[float, float]]]:
    """Count, for each kind of collective, how many a step has, and the bytes of their arrays."""
    for kind in sorted({kind_of(kernel) for kernel in collectives}):
        same = [kernel for kernel in collectives if kind_of(kernel) == kind]
        yield kind, (sum(kernel.times for kernel in same) / steps,
                     sum(kernel.sent * kernel.times for kernel in same) / steps)


def kind_of(collective: Kernel) -> str:
    """Name a collective as XLA does: "all-reduce"."""
    return collective.name.partition(".")[0].removesuffix("-start")


def parts(kernels: Sequence[Kernel], device: Device, peak: float, steps: int) -> Iterator[tuple[str, Part]]:
    """Divide a step into its kinds of kernels, the ones that take longest first."""
    found = []
    for kind in {kernel.kind for kernel in kernels}:
        same = [kernel for kernel in kernels if kernel.kind == kind]
        seconds = sum(bound(kernel, device, peak)[0] * kernel.times for kernel in same) / steps
        found.append((kind, Part(*totals(same, steps), seconds)))
    yield from sorted(found, key=lambda pair: -pair[1].seconds)


def hours(experiment: Experiment, programs: dict[str, Figures]) -> dict[str, float]:
    """Return the least hours of a run: of its steps, its precise batch norm, and all its evaluations."""
    test = image_set(experiment.data).test
    batches = -(-test // experiment.batch_size)
    evaluations = 1 + (experiment.steps - 1) // experiment.evaluate_steps * experiment.evaluate_test
    seconds = {"train": experiment.steps * programs["train"].seconds,
               "evaluate": evaluations * batches * programs["evaluate"].seconds}
    if "statistics" in programs:
        seconds["statistics"] = experiment.precise_batch_norm_steps * programs["statistics"].seconds
    return {name: value / 3600 for name, value in seconds.items()}


def usable_memory(device: Device) -> int:
    """Return the bytes of a device's memory that a program may take: of a GPU's, what JAX takes at its start."""
    return int(device.memory * (JAX_SHARE if device.platform == "cuda" else 1))


def summary(run: Run, device: Device, count: int, hosts: int, programs: dict[str, Figures],
            taken: dict[str, float]) -> dict[str, Any]:
    """Gather what a plan says beside the figures of its programs; `taken` are the hours of the run."""
    train = programs["train"]
    return {
        "experiment": run.name, "device": device.title, "devices": count, "hosts": hosts,
        "batch_size": run.batch_size, "images_per_second": run.batch_size / train.seconds,
        "step_seconds": train.seconds, "limit": train.limit, "hours": taken, "run_hours": sum(taken.values()),
        "device_hours": sum(taken.values()) * count,
        "memory_share": max(program.peak_bytes for program in programs.values()) / device.memory}
