"""Plans a run, or reads its plan from the cache.

If the run does not fit into memory, an error states the largest batch that does.
"""

import hashlib
import json
import math
import os
import threading
import time
import warnings
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import resjax
from resjax.plan.compile import DoesNotFit, Job, Program, compile_apart, workload_of
from resjax.plan.devices import GIB, Device, Machine, find_device
from resjax.plan.figures import LIMITS, Figures, figures
from resjax.system.errors import BadInput, check
from resjax.system.files import read_json, write_json
from resjax.system.platform import cache_directory

TOGETHER = 2  # programs compiled at a time; more could exhaust a laptop's memory
TOO_LARGE = "too_large"  # key of an error message, stored in place of a plan
COMPILERS = ("jax", "jaxlib", "flax", "optax", "jax-cuda12-pjrt", "jax-cuda13-pjrt", "libtpu")
JAX_SHARE = 0.75  # fraction of GPU memory that JAX allocates by default


def plan_run(run: Any, name: str, count: int = 1, hosts: int = 1) -> dict[str, Any]:
    """Plan a run on `count` devices called `name`, on `hosts` machines. The plan may come from the cache.

    Raises BadInput for an unknown device, a missing plugin, and a number of devices that does not divide the batch.
    Also raises BadInput for a run that does not fit; the message states the largest batch that would fit.
    """
    job, size = Job(run, Machine(find_device(name), count, hosts)), run.batch_size
    check(count >= 1 and hosts >= 1, f"devices is {count} and hosts is {hosts}; both must be at least 1")
    check(size % count == 0, f"batch-size {size} is not divisible by {count} devices; use "
          f"{', '.join(str(few) for few in range(1, size + 1) if size % few == 0 and few <= 2 * count)}")
    file = cache_directory() / "plans" / f"{plan_key(job)}.json"
    plan = read_plan(file)
    if plan is None:
        try:
            plan = json.loads(json.dumps(compile_plan(job)))
        except DoesNotFit as error:  # finding this out takes as long as a plan, so it is cached too
            plan = {TOO_LARGE: too_large(job, str(error))}
        cache_plan(file, plan)
    check(TOO_LARGE not in plan, plan.get(TOO_LARGE, ""))
    return plan


def compile_plan(job: Job) -> dict[str, Any]:
    """Compile and analyse a run's programs. Raises DoesNotFit if one does not fit into the device's memory."""
    start, stop, pool = time.perf_counter(), threading.Event(), ThreadPoolExecutor(TOGETHER)
    try:
        waited = {name: pool.submit(compile_and_read, job, name, program, stop)
                  for name, program in job.programs().items()}
        programs = {name: future.result() for name, future in waited.items()}
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    run, machine, work, train = job.run, job.machine, workload_of(job.run), programs["train"]
    hours = {name: work.batches[name] * programs[name].seconds / 3600 for name in programs if name in work.batches}
    return {
        "experiment": run.name, "device": machine.device.title, "devices": machine.count, "hosts": machine.hosts,
        "batch_size": run.batch_size, "images_per_second": run.batch_size / train.seconds,
        "step_seconds": train.seconds, "limit": LIMITS[max(train.limits, key=train.limits.__getitem__)],
        "hours": hours, "run_hours": sum(hours.values()), "device_hours": sum(hours.values()) * machine.count,
        "memory_share": max(program.peak_bytes for program in programs.values()) / machine.device.memory,
        "compile_seconds": round(time.perf_counter() - start, 1), "precision": work.precision,
        "assumptions": work.assumptions, "versions": installed(),
        "programs": {name: asdict(program) for name, program in programs.items()}}


def compile_and_read(job: Job, name: str, program: Program, stop: threading.Event) -> Figures:
    """Compile and analyse one program. Raises DoesNotFit if it does not fit into the device's memory."""
    analysed = figures(program, compile_apart(job, name, stop), job.machine, workload_of(job.run).precision)
    if analysed.peak_bytes > usable_memory(job.machine.device):
        raise DoesNotFit(f"it needs {analysed.peak_bytes / GIB:.1f} GiB")
    return analysed


def usable_memory(device: Device) -> int:
    """Return the bytes of a device's memory that a program can use. On a GPU, JAX allocates these bytes at startup."""
    return int(device.memory * (JAX_SHARE if device.platform == "cuda" else 1))


def too_large(job: Job, reason: str) -> str:
    """Return an error message that says which batch would fit."""
    run, device = job.run, job.machine.device
    field, ghosts = workload_of(run).ghost_batch_size
    unit = math.lcm(ghosts, job.machine.count)

    def fits(batch: int) -> bool:
        smaller = Job(replace(run, batch_size=batch), job.machine)
        try:
            compile_and_read(smaller, "train", smaller.programs()["train"], threading.Event())
        except DoesNotFit:
            return False
        return True

    largest = largest_batch(fits, unit, run.batch_size)
    advice = (f"the largest batch that fits is {largest} (--batch-size {largest})" if largest else
              f"neither does a batch of {unit}, the smallest that {field} and the number of devices allow")
    return (f"{run.name} with batch-size {run.batch_size} does not fit into the {usable_memory(device) / GIB:.0f} GiB "
            f"that JAX can use on each {device.title}: {reason.splitlines()[0].partition('. ')[0]}; {advice}")


def largest_batch(fits: Callable[[int], bool], unit: int, batch: int) -> int:
    """Return the largest multiple of `unit` below `batch` that fits, by bisection; 0 if none does."""
    return unit * bisect_left(range(1, -(-batch // unit)), True, key=lambda units: not fits(units * unit))


def read_plan(file: Path) -> dict[str, Any] | None:
    """Return a cached plan. Return None if there is none or, with a warning, if the plan was modified."""
    try:
        sealed = read_json(file, "plan", "sha256")
        check(sealed["sha256"] == sha256_of(sealed["plan"]), f"{file}: has changed since it was written")
        return dict(sealed["plan"])
    except BadInput as error:
        if file.exists():
            warnings.warn(f"{error}; planning the run again", stacklevel=2)
        return None


def cache_plan(file: Path, plan: dict[str, Any]) -> None:
    """Cache a plan with its SHA-256. If the cache fails, only warn, because the plan took minutes."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"plan": plan, "sha256": sha256_of(plan)})
    except (BadInput, OSError) as error:  # BadInput: the path is not a file
        warnings.warn(f"cannot cache the plan ({error}); set RESJAX_CACHE to another folder", stacklevel=2)


def sha256_of(content: Any) -> str:
    """Compute the SHA-256 of a value that survives a JSON round trip."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def plan_key(job: Job) -> str:
    """Return the cache key of a plan: a digest of the job, its own objects, the compilers, their flags and our code."""
    code = b"".join(file.read_bytes() for file in sorted(Path(resjax.__file__).parent.rglob("*.py")))
    flags = [os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    parts = [repr(job), workload_of(job.run).objects(), installed(), flags, hashlib.sha256(code).hexdigest()]
    return sha256_of(parts)[:24]


def installed() -> dict[str, str]:
    """Return the versions of the compilers."""
    return {name: package.version for name in COMPILERS for package in list(distributions(name=name))[:1]}
