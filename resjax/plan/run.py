"""The plan of a run: compiled, or read from the cache, and what stands in its way told with what would be right."""

import hashlib
import json
import math
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

import resjax
from resjax.experiment import Experiment
from resjax.plan.apart import Job, compile_apart
from resjax.plan.compile import (
    SETS,
    DoesNotFit,
    Program,
    Programs,
    image_set,
    largest_batch,
    programs_of_run,
)
from resjax.plan.devices import GIB, find_device
from resjax.plan.plan import Figures, figures, hours, summary, usable_memory
from resjax.system.errors import BadInput, check
from resjax.system.files import read_json, write_json
from resjax.system.platform import cache_directory

TOGETHER = 2  # programs that are compiled at a time: more would be short of memory on a laptop
TOO_LARGE = "too_large"  # in place of a plan: the message that says so
COMPILERS = ("jax", "jaxlib", "flax", "optax", "jax-cuda12-pjrt", "jax-cuda13-pjrt", "libtpu")


@dataclass(frozen=True)
class Workload:
    """A run of any kind, as a plan sees it."""

    run: Any
    """A `training.kinds.Run`."""
    precision: str
    ghost_batch_size: tuple[str, int]
    """The images that a batch is made of in groups, after the name of the field that says so."""
    programs: Callable[[Any, Sequence[jax.Device]], Programs]
    """The programs of such a run for devices, "train" first; a function of a module, as other processes call it."""
    hours: Callable[[dict[str, Figures]], dict[str, float]]
    assumptions: tuple[str, ...]


def workload_of(experiment: Experiment) -> Workload:
    """See a classifier's run as a plan does."""
    counts, source = image_set(experiment.data), experiment.data.source
    assumed = "" if source in SETS else (f"Assumed: {source} holds {counts.train:,} training and {counts.test:,} test "
                                         f"images of {counts.classes} classes.")
    architecture = experiment.architecture
    return Workload(experiment, architecture.precision,
                    ("architecture.ghost-batch-size", architecture.ghost_batch_size), programs_of_run,
                    lambda programs: hours(experiment, programs), tuple(filter(None, [assumed])))


def plan_workload(work: Workload, name: str, count: int = 1, hosts: int = 1) -> dict[str, Any]:
    """Plan a run on `count` devices called `name`, on `hosts` machines: the same run, compiled before or now.

    Raises BadInput for a device that is not in the table, a plugin that is missing, devices that do not divide the
    batch, and a run that does not fit, with the largest batch that does.
    """
    device = find_device(name)
    check(count >= 1 and hosts >= 1, f"devices is {count} and hosts {hosts}; both are at least 1")
    size = work.run.batch_size
    check(size % count == 0, f"batch-size {size} does not divide over {count} devices; it does over "
          f"{', '.join(str(few) for few in range(1, size + 1) if size % few == 0 and few <= 2 * count)}")
    kept = cache_directory() / "plans" / f"{fingerprint(work.run, name, count, hosts)}.json"
    plan = read_kept(kept)
    if plan is None:
        plan = json.loads(json.dumps(answer(work, Job(work.programs, work.run, device, count, hosts))))
        keep(kept, plan)
    check(TOO_LARGE not in plan, plan.get(TOO_LARGE, ""))
    return plan


def answer(work: Workload, job: Job) -> dict[str, Any]:
    """Plan a run, or say that it does not fit and what does: to find that out takes as long, so it is kept too."""
    try:
        return compile_plan(work, job)
    except DoesNotFit as error:
        return {TOO_LARGE: too_large(work, job, str(error))}


def read_kept(file: Path) -> dict[str, Any] | None:
    """Return a plan that was kept; None where there is none, and with a warning where it is not what was kept."""
    if not file.exists():
        return None
    try:
        kept = read_json(file, "plan", "sha256")
        check(kept["sha256"] == seal(kept["plan"]), f"{file}: it is not what was kept")
    except BadInput as error:
        warnings.warn(f"{error}; the run is planned again", stacklevel=2)
        return None
    return dict(kept["plan"])


def keep(file: Path, plan: dict[str, Any]) -> None:
    """Keep a plan with its SHA-256; where that cannot be done, warn: it took minutes, and is told all the same."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"plan": plan, "sha256": seal(plan)})
    except (BadInput, OSError) as error:  # BadInput: what lies there is no file
        warnings.warn(f"the plan is not kept ({error}); RESJAX_CACHE names another folder", stacklevel=2)


def seal(plan: Any) -> str:
    """Compute the SHA-256 of a plan, as JSON gives it back."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


def compile_plan(work: Workload, job: Job) -> dict[str, Any]:
    """Compile a run's programs and read them. Raises DoesNotFit where the device's memory is too small for one."""
    start, stop, pool = time.perf_counter(), threading.Event(), ThreadPoolExecutor(TOGETHER)
    try:
        waited = {name: pool.submit(read, work, job, name, program, stop) for name, program in job.all().items()}
        found = {name: future.result() for name, future in waited.items()}
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
    return summary(work.run, job.device, job.count, job.hosts, found, work.hours(found)) | {
        "compile_seconds": round(time.perf_counter() - start, 1), "precision": work.precision,
        "assumptions": list(work.assumptions), "versions": installed(),
        "programs": {name: asdict(program) for name, program in found.items()}}


def read(work: Workload, job: Job, name: str, program: Program, stop: threading.Event) -> Figures:
    """Compile one program and read it. Raises DoesNotFit where the device's memory is too small for it."""
    found = figures(compile_apart(job, name, program, stop), job.device, work.precision, job.count, job.hosts)
    if found.peak_bytes > usable_memory(job.device):
        raise DoesNotFit(f"it needs {found.peak_bytes / GIB:.1f} GiB")
    return found


def too_large(work: Workload, job: Job, reason: str) -> str:
    """Say that a run does not fit, and which batch would."""
    field, ghosts = work.ghost_batch_size
    unit = math.lcm(ghosts, job.count)

    def fits(batch: int) -> bool:
        smaller = replace(job, run=replace(work.run, batch_size=batch))
        try:
            read(work, smaller, "train", smaller.all()["train"], threading.Event())
        except DoesNotFit:
            return False
        return True

    largest = largest_batch(fits, unit, work.run.batch_size)
    advice = (f"the largest batch that does is {largest} (--batch-size {largest})" if largest else
              f"nor does a batch of {unit}, the smallest that {field} and the number of devices allow")
    room = f"the {usable_memory(job.device) / GIB:.0f} GiB that JAX has of each {job.device.title}"
    return (f"{work.run.name} with batch-size {work.run.batch_size} does not fit into {room}: "
            f"{reason.splitlines()[0].partition('. ')[0]}; {advice}")


def fingerprint(run: Any, name: str, count: int, hosts: int) -> str:
    """Name a plan by all that it follows from: the run, the devices, the compilers and our own code."""
    code = hashlib.sha256()
    for file in sorted(Path(resjax.__file__).parent.rglob("*.py")):
        code.update(file.read_bytes())
    told = [repr(run), name, count, hosts, installed(), code.hexdigest()]
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
