"""Bytes, multiply-adds, minimum time and bottleneck of a step of a compiled program."""

from collections.abc import Sequence
from dataclasses import dataclass

from resjax.plan.compile import Compiled
from resjax.plan.devices import Device
from resjax.plan.kernels import Kernel, read_kernels

LIMITS = {"memory": "the memory's bandwidth", "arithmetic": "arithmetic", "launches": "the launches of small kernels",
          "exchange": "the exchange between devices"}


@dataclass(frozen=True)
class Part:
    """The totals of one kind of kernel in a step."""

    kernels: float
    bytes: float
    macs: float
    seconds: float


@dataclass(frozen=True)
class Figures:
    """The work of one device in a step or batch of a program, read from the compiled text."""

    steps: int
    """The number of steps per call."""
    kernels: float
    bytes: float
    macs: float
    collectives: dict[str, tuple[float, float]]
    """The number of collectives of each kind, and the bytes of their arrays."""
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    compile_seconds: float
    compiler_bytes: float | None
    """The bytes that a call moves by XLA's own count, if known."""
    seconds: float
    """The minimum seconds of a step on the device."""
    limits: dict[str, float]
    """The same seconds, by what limits each kernel. At best, devices communicate while they compute."""
    parts: dict[str, Part]

    @property
    def limit(self) -> str:
        """The main bottleneck of the step."""
        return LIMITS[max(self.limits, key=lambda name: self.limits[name])]


def figures(compiled: Compiled, device: Device, precision: str, count: int, hosts: int) -> Figures:
    """Analyse a compiled program for one of `count` devices on `hosts` machines that share the work."""
    everything, steps = read_kernels(compiled.text, compiled.rounds), compiled.steps
    limits, parts, collectives = dict.fromkeys(LIMITS, 0.0), dict[str, Part](), dict[str, tuple[float, float]]()
    groups: dict[str, list[Kernel]] = {}  # by kind, collectives by XLA's name ("all-reduce")
    for kernel in sorted(everything, key=lambda kernel: kernel.name):
        name = kernel.name.partition(".")[0].removesuffix("-start") if kernel.kind == "collective" else kernel.kind
        groups.setdefault(name, []).append(kernel)
    for kind, kernels in groups.items():
        seconds = 0.0
        for kernel in kernels:
            least, limit = bound(kernel, device, device.peak[precision], (count, hosts))
            limits[limit] += least * kernel.times / steps
            seconds += least * kernel.times / steps
        if kernels[0].kind == "collective":
            collectives[kind] = (totals(kernels, steps)[0], sum(each.sent * each.times for each in kernels) / steps)
        else:
            parts[kind] = Part(*totals(kernels, steps), seconds)
    busy = sum(seconds for name, seconds in limits.items() if name != "exchange")
    return Figures(
        steps, *totals(everything, steps), collectives, compiled.argument_bytes, compiled.temporary_bytes,
        compiled.peak_bytes, round(compiled.seconds, 1), compiled.compiler_bytes, max(busy, limits["exchange"]), limits,
        dict(sorted(parts.items(), key=lambda pair: -pair[1].seconds)))


def bound(kernel: Kernel, device: Device, peak: float, machine: tuple[int, int]) -> tuple[float, str]:
    """Return the minimum seconds of a kernel, and what limits it: its bytes, its multiply-adds, or its launch.

    A collective sums its arrays around a ring within each host, then each device's share around a ring of hosts;
    `machine` gives the number of devices and hosts.
    """
    if kernel.kind != "collective":
        return max((kernel.bytes / device.bandwidth, "memory"), (kernel.macs / peak, "arithmetic"),
                   (device.launch, "launches"))
    count, hosts = machine
    local = count // hosts
    within = 2 * (local - 1) / local * kernel.sent / device.link
    return max(device.launch, within + 2 * (hosts - 1) / hosts * kernel.sent / local / device.network), "exchange"


def totals(kernels: Sequence[Kernel], steps: int) -> tuple[float, float, float]:
    """Sum the launches, bytes and multiply-adds of a step."""
    return (sum(kernel.times for kernel in kernels) / steps,
            sum(kernel.bytes * kernel.times for kernel in kernels) / steps,
            sum(kernel.macs * kernel.times for kernel in kernels) / steps)
