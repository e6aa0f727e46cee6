"""The plan of a run: compiled, or read from the cache, and what stands in its way told with what would be right."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

import resjax
from resjax.accelerators.compile import DoesNotFit, compile_run, largest_batch, target_devices
from resjax.accelerators.devices import GIB, Device, find_device
from resjax.accelerators.plan import Figures, figures, summary, usable_memory
from resjax.errors import BadInput, check
from resjax.experiment import Experiment
from resjax.files import read_json, write_json
from resjax.platform import cache_directory

COMPILERS = ("jax", "jaxlib", "flax", "optax", "jax-cuda12-pjrt", "jax-cuda13-pjrt", "libtpu")


def plan_run(experiment: Experiment, name: str, count: int = 1, hosts: int = 1) -> dict[str, Any]:
    """Plan a run on `count` devices called `name`, on `hosts` machines: the same run, compiled before or now.

    Raises BadInput for a device that is not in the table, a plugin that is missing, devices that do not divide the
    batch, and a run that does not fit, with the largest batch that does.
    """
    device = find_device(name)
    check(count >= 1 and hosts >= 1, f"devices is {count} and hosts {hosts}; both are at least 1")
    size = experiment.batch_size
    check(size % count == 0, f"batch-size {size} does not divide over {count} devices; it does over "
          f"{', '.join(str(few) for few in range(1, size + 1) if size % few == 0 and few <= 2 * count)}")
    kept = cache_directory() / "plans" / f"{fingerprint(experiment, name, count, hosts)}.json"
    if not kept.is_file():
        plan = compile_plan(experiment, device, target_devices(device, count, hosts), hosts)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, plan)
    return read_json(kept)


def compile_plan(experiment: Experiment, device: Device, devices: Sequence[jax.Device], hosts: int) -> dict[str, Any]:
    """Compile a run's programs and read them. Raises BadInput where they do not fit into the device's memory."""
    found: dict[str, Figures] = {}
    try:
        for name, program in compile_run(experiment, devices):
            found[name] = figures(program, device, experiment.architecture.precision, len(devices), hosts)
            if found[name].peak_bytes > usable_memory(device):
                raise DoesNotFit(f"it needs {found[name].peak_bytes / GIB:.1f} GiB")
    except DoesNotFit as error:
        raise BadInput(too_large(experiment, device, devices, str(error))) from None
    return summary(experiment, device, len(devices), hosts, found) | {
        "batch_size": experiment.batch_size, "precision": experiment.architecture.precision,
        "versions": installed(), "programs": {name: asdict(program) for name, program in found.items()}}


def too_large(experiment: Experiment, device: Device, devices: Sequence[jax.Device], reason: str) -> str:
    """Say that a run does not fit, and which batch would."""
    unit = math.lcm(experiment.architecture.ghost_batch_size, len(devices))

    def fits(batch: int) -> bool:
        try:
            _, program = next(compile_run(replace(experiment, batch_size=batch), devices))
        except DoesNotFit:
            return False
        return program.peak_bytes <= usable_memory(device)

    largest = largest_batch(fits, unit, experiment.batch_size)
    advice = (f"the largest batch that does is {largest} (--batch-size {largest})" if largest else
              f"nor does a batch of {unit}, the smallest that {len(devices)} devices and architecture.ghost-batch-size "
              "allow")
    room = f"the {usable_memory(device) / GIB:.0f} GiB that JAX has of each {device.title}"
    return (f"{experiment.name} with batch-size {experiment.batch_size} does not fit into {room}: "
            f"{reason.splitlines()[0][:200]}; {advice}")


def fingerprint(experiment: Experiment, name: str, count: int, hosts: int) -> str:
    """Name a plan by all that it follows from: the run, the devices, the compilers and our own code."""
    code = hashlib.sha256()
    for file in sorted(Path(resjax.__file__).parent.rglob("*.py")):
        code.update(file.read_bytes())
    told = [repr(experiment), name, count, hosts, installed(), code.hexdigest()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]


def installed() -> dict[str, str]:
    """Return the versions of what compiles."""
    found = {}
    for package in COMPILERS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
