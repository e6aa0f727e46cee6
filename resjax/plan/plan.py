"""Plans a run, by compiling it or from the cache; an error for a run that does not fit says what would."""

import hashlib
import json
import math
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

import resjax
from resjax.plan.compile import DoesNotFit, Job, Program, Programs
from resjax.plan.devices import GIB, Device, find_device
from resjax.plan.figures import Figures, figures
from resjax.plan.process import compile_apart
from resjax.system.errors import BadInput, check
from resjax.system.files import read_json, write_json
from resjax.system.platform import cache_directory

TOGETHER = 2  # programs compiled at a time; more could exhaust a laptop's memory
TOO_LARGE = "too_large"  # stored in place of a plan: its error message
COMPILERS = ("jax", "jaxlib", "flax", "optax", "jax-cuda12-pjrt", "jax-cuda13-pjrt", "libtpu")
JAX_SHARE = 0.75  # fraction of GPU memory that JAX allocates, unless XLA_PYTHON_CLIENT_MEM_FRACTION is set


@dataclass(frozen=True)
class Workload:
    """A run of any kind, described for a plan."""

    run: Any
    precision: str
    ghost_batch_size: tuple[str, int]
    """The field that sets the group size of a batch, and the number of images per group."""
    programs: Callable[[Any, Sequence[jax.Device]], Programs]
    """The programs of the run, "train" first. Must be a module-level function, because other processes call it."""
    hours: Callable[[dict[str, Figures]], dict[str, float]]
    """The minimum hours of the run, by activity, from the figures of its programs."""
    assumptions: tuple[str, ...]


def plan_workload(work: Workload, name: str, count: int = 1, hosts: int = 1) -> dict[str, Any]:
    """Plan a run on `count` devices called `name`, on `hosts` machines; the plan may come from the cache.

    Raises BadInput for an unknown device, a missing plugin, devices that do not divide the batch, and a run that does
    not fit; the message then states the largest batch that would.
    """
    device, size = find_device(name), work.run.batch_size
    check(count >= 1 and hosts >= 1, f"devices is {count} and hosts is {hosts}; both must be at least 1")
    check(size % count == 0, f"batch-size {size} is not divisible by {count} devices; use "
          f"{', '.join(str(few) for few in range(1, size + 1) if size % few == 0 and few <= 2 * count)}")
    kept = cache_directory() / "plans" / f"{plan_key(work.run, name, count, hosts)}.json"
    plan = read_plan(kept)
    if plan is None:
        job = Job(work.programs, work.run, device, count, hosts)
        try:
            made = compile_plan(work, job)
        except DoesNotFit as error:  # this takes as long as a plan, so it is cached too
            made = {TOO_LARGE: too_large(work, job, str(error))}
        plan = json.loads(json.dumps(made))
        keep_plan(kept, plan)
    check(TOO_LARGE not in plan, plan.get(TOO_LARGE, ""))
    return plan


def compile_plan(work: Workload, job: Job) -> dict[str, Any]:
    """Compile and analyse a run's programs. Raises DoesNotFit if one does not fit into the device's memory."""
    start, stop, pool = time.perf_counter(), threading.Event(), ThreadPoolExecutor(TOGETHER)
    try:
        waited = {name: pool.submit(compile_and_read, work, job, name, program, stop)
                  for name, program in job.all().items()}
        found = {name: future.result() for name, future in waited.items()}
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    train, hours, run = found["train"], work.hours(found), work.run
    return {
        "experiment": run.name, "device": job.device.title, "devices": job.count, "hosts": job.hosts,
        "batch_size": run.batch_size, "images_per_second": run.batch_size / train.seconds,
        "step_seconds": train.seconds, "limit": train.limit, "hours": hours, "run_hours": sum(hours.values()),
        "device_hours": sum(hours.values()) * job.count,
        "memory_share": max(program.peak_bytes for program in found.values()) / job.device.memory,
        "compile_seconds": round(time.perf_counter() - start, 1), "precision": work.precision,
        "assumptions": list(work.assumptions), "versions": installed(),
        "programs": {name: asdict(program) for name, program in found.items()}}


def compile_and_read(work: Workload, job: Job, name: str, program: Program, stop: threading.Event) -> Figures:
    """Compile and analyse one program. Raises DoesNotFit if it does not fit into the device's memory."""
    found = figures(compile_apart(job, name, program, stop), job.device, work.precision, job.count, job.hosts)
    if found.peak_bytes > usable_memory(job.device):
        raise DoesNotFit(f"it needs {found.peak_bytes / GIB:.1f} GiB")
    return found


def usable_memory(device: Device) -> int:
    """Return the bytes of a device's memory available to a program; on a GPU, what JAX allocates at startup."""
    return int(device.memory * (JAX_SHARE if device.platform == "cuda" else 1))


def too_large(work: Workload, job: Job, reason: str) -> str:
    """Return an error that says which batch would fit."""
    field, ghosts = work.ghost_batch_size
    unit = math.lcm(ghosts, job.count)

    def fits(batch: int) -> bool:
        smaller = replace(job, run=replace(work.run, batch_size=batch))
        try:
            compile_and_read(work, smaller, "train", smaller.all()["train"], threading.Event())
        except DoesNotFit:
            return False
        return True

    largest = largest_batch(fits, unit, work.run.batch_size)
    advice = (f"the largest batch that fits is {largest} (--batch-size {largest})" if largest else
              f"neither does a batch of {unit}, the smallest that {field} and the number of devices allow")
    return (f"{work.run.name} with batch-size {work.run.batch_size} does not fit into the "
            f"{usable_memory(job.device) / GIB:.0f} GiB that JAX can use on each {job.device.title}: "
            f"{reason.splitlines()[0].partition('. ')[0]}; {advice}")


def largest_batch(fits: Callable[[int], bool], unit: int, batch: int) -> int:
    """Return the largest multiple of `unit` below `batch` that fits, by bisection; 0 if none does."""
    low, high = 0, -(-batch // unit)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * unit) else (low, middle)
    return low * unit


def read_plan(file: Path) -> dict[str, Any] | None:
    """Return a cached plan; None if there is none or, with a warning, if it was modified."""
    if not file.exists():
        return None
    try:
        kept = read_json(file, "plan", "sha256")
        check(kept["sha256"] == sha256_of(kept["plan"]), f"{file}: has changed since it was written")
    except BadInput as error:
        warnings.warn(f"{error}; planning the run again", stacklevel=2)
        return None
    return dict(kept["plan"])


def keep_plan(file: Path, plan: dict[str, Any]) -> None:
    """Cache a plan with its SHA-256; if that fails, only warn, since the plan took minutes."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"plan": plan, "sha256": sha256_of(plan)})
    except (BadInput, OSError) as error:  # BadInput: the path is not a file
        warnings.warn(f"cannot cache the plan ({error}); set RESJAX_CACHE to another folder", stacklevel=2)


def sha256_of(content: Any) -> str:
    """Compute the SHA-256 of a value that survives a JSON round trip."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def plan_key(run: Any, name: str, count: int, hosts: int) -> str:
    """Return the cache key of a plan: a digest of the run, the devices, the compilers and our own code."""
    code = b"".join(file.read_bytes() for file in sorted(Path(resjax.__file__).parent.rglob("*.py")))
    return sha256_of([repr(run), name, count, hosts, installed(), hashlib.sha256(code).hexdigest()])[:24]


def installed() -> dict[str, str]:
    """Return the versions of the compilers."""
    found = {}
    for package in COMPILERS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
