"""What a step of a compiled program moves and computes, how fast it can be at best, and what limits it."""

from collections.abc import Sequence
from dataclasses import dataclass

from resjax.plan.compile import Compiled
from resjax.plan.devices import Device
from resjax.plan.kernels import Kernel, read_kernels

LIMITS = {"memory": "the memory's bandwidth", "arithmetic": "arithmetic", "launches": "the launches of small kernels",
          "exchange": "the exchange between devices"}


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
        """What limits the step most."""
        return LIMITS[max(self.limits, key=lambda name: self.limits[name])]


def figures(compiled: Compiled, device: Device, precision: str, count: int, hosts: int) -> Figures:
    """Read a compiled program, for one of `count` devices on `hosts` machines that share the work."""
    everything, steps = read_kernels(compiled.text, compiled.rounds), compiled.steps
    limits, parts, collectives = dict.fromkeys(LIMITS, 0.0), dict[str, Part](), dict[str, tuple[float, float]]()
    groups: dict[str, list[Kernel]] = {}  # by kind, collectives by what XLA calls them ("all-reduce")
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
    """Return the least seconds of a kernel, and what asks for them: its bytes, its multiply-adds, or its launch.

    A collective sums its arrays around a ring within each host, then each device's share around a ring of hosts;
    `machine` is how many devices there are, on how many hosts.
    """
    if kernel.kind != "collective":
        return max((kernel.bytes / device.bandwidth, "memory"), (kernel.macs / peak, "arithmetic"),
                   (device.launch, "launches"))
    count, hosts = machine
    local = count // hosts
    within = 2 * (local - 1) / local * kernel.sent / device.link
    return max(device.launch, within + 2 * (hosts - 1) / hosts * kernel.sent / local / device.network), "exchange"


def totals(kernels: Sequence[Kernel], steps: int) -> tuple[float, float, float]:
    """Add up the launches, bytes and multiply-adds of a step."""
    return (sum(kernel.times for kernel in kernels) / steps,
            sum(kernel.bytes * kernel.times for kernel in kernels) / steps,
            sum(kernel.macs * kernel.times for kernel in kernels) / steps)
