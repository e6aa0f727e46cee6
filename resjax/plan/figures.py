"""Computes the bytes, multiply-adds, minimum time and bottleneck of one step, from its compiled program."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from resjax.plan.compile import Compiled, Program
from resjax.plan.devices import Machine
from resjax.plan.kernels import COLLECTIVES, Kernel, read_kernels

LIMITS = {"memory": "the memory's bandwidth", "arithmetic": "arithmetic", "launches": "the launches of small kernels",
          "exchange": "the exchange between devices"}


@dataclass(frozen=True)
class Part:
    """The totals of a step, or of one kind of kernel in it."""

    kernels: float
    bytes: float
    macs: float
    seconds: float
    """The minimum seconds on the device."""


@dataclass(frozen=True)
class Figures(Part):
    """The work of one device in a step or batch of a program, read from the compiled text."""

    collectives: dict[str, tuple[float, float]]
    """The number of collectives of each kind, and the bytes of their arrays."""
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    compile_seconds: float
    limits: dict[str, float]
    """The minimum seconds, by what limits each kernel. At best, devices communicate while they compute."""
    parts: dict[str, Part]


def figures(program: Program, compiled: Compiled, machine: Machine, precision: str) -> Figures:
    """Analyse a compiled program for one of the devices that share the work."""
    limits = dict.fromkeys(LIMITS, 0.0)
    totals: defaultdict[str, Any] = defaultdict(lambda: np.zeros(5))  # kernels, bytes, macs, seconds, sent
    for kernel in read_kernels(compiled.text, program.rounds):
        seconds, limit = bound(kernel, machine, precision)
        limits[limit] += kernel.times * seconds / program.steps
        totals[kernel.kind] += kernel.times * np.array([1, kernel.bytes, kernel.macs, seconds, kernel.sent])
    by_kind = {kind: (total / program.steps).tolist() for kind, total in sorted(totals.items())}
    kernels, moved, macs, *_ = (sum(totals.values()) / program.steps).tolist()
    parts = {kind: Part(*sums[:4]) for kind, sums in by_kind.items() if kind not in COLLECTIVES}
    busy = sum(seconds for name, seconds in limits.items() if name != "exchange")
    return Figures(
        kernels, moved, macs, max(busy, limits["exchange"]),
        {kind: (sums[0], sums[4]) for kind, sums in by_kind.items() if kind in COLLECTIVES},
        compiled.argument_bytes, compiled.temporary_bytes, compiled.peak_bytes, round(compiled.seconds, 1), limits,
        dict(sorted(parts.items(), key=lambda pair: -pair[1].seconds)))


def bound(kernel: Kernel, machine: Machine, precision: str) -> tuple[float, str]:
    """Return the minimum seconds of a kernel, and whether its bytes, multiply-adds or launch limit it.

    A collective sums its arrays around a ring within each host, and then each device's share around a ring of hosts.
    """
    device, hosts, local = machine.device, machine.hosts, machine.count // machine.hosts
    if kernel.kind not in COLLECTIVES:
        return max((kernel.bytes / device.bandwidth, "memory"), (kernel.macs / device.peak[precision], "arithmetic"),
                   (device.launch, "launches"))
    within = 2 * (local - 1) / local * kernel.sent / device.link
    return max(device.launch, within + 2 * (hosts - 1) / hosts * kernel.sent / local / device.network), "exchange"
