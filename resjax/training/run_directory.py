"""Reads, writes and locks run directories. Each run directory belongs to one experiment."""

import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from resjax.data.index import BUT_TEST_SIZES
from resjax.experiment import Experiment
from resjax.models.convolutions import convolutions_of
from resjax.system.distributed import is_first, told_by_first
from resjax.system.errors import BadInput, check
from resjax.system.files import read_json, write_json
from resjax.system.serialization import check_value, convert, from_json, to_json
from resjax.system.terminal import tell
from resjax.system.version import __version__
from resjax.training.kinds import Run, kind_named, name_in

RESULT = {"name": str, "seed": int, "steps": int, "parameters": int, "test_top1_error": float, "test_top5_error": float,
          "mean_average_precision": float | None, "eleven_point": float | None,  # None if no test image has an object
          "train_seconds": float, "images_per_second": float, "state_digest": str}
ABOUT_IMAGES: dict[str, Any] = {"classes": tuple[str, ...], "image": tuple[int, int, int]}
WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


@contextmanager
def claimed(run_directory: Path, experiment: Run) -> Iterator[None]:
    """Lock the directory for this process. The system releases the lock when the process ends, for any reason.

    Raises BadInput if the directory cannot be written, is locked by another process, or belongs to another experiment.
    If several processes train together, the first process holds the lock, and all processes raise the error.
    """
    with ExitStack() as held:
        def claim() -> None:
            held.enter_context(locked(run_directory))
            if (run_directory / "experiment.json").exists():
                differences = changes(read_experiment(run_directory), experiment)
                check(not differences, f"{run_directory} contains a different experiment ({'; '.join(differences)}). "
                                       "Choose another --workdir, or delete this directory")

        told_by_first(claim)
        yield


def changes(before: Run, now: Run) -> list[str]:
    """List what affects the results and differs between two runs of any kind."""
    return before.differences(now) if before.kind == now.kind else [f"{before.title} -> {now.title}"]


@contextmanager
def locked(run_directory: Path) -> Iterator[None]:
    """Hold the lock of a directory. Raises BadInput if it cannot be written or another process holds the lock."""
    descriptor = -1
    try:
        run_directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run_directory / ".lock", os.O_RDWR | os.O_CREAT)
        lock(descriptor, run_directory)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    except OSError as error:
        holder = os.read(descriptor, 20).decode(errors="replace") if isinstance(error, BlockingIOError) else ""
        with suppress(OSError):
            os.close(descriptor)
        why = (f"process {holder or '(unknown)'} is using this directory for training; wait, stop that process, or "
               "choose another --workdir"
               if isinstance(error, BlockingIOError) else
               f"cannot write to this run directory ({error.strerror}); choose another --workdir")
        raise BadInput(f"{run_directory}: {why}") from None
    try:
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int, run_directory: Path) -> None:
    """Lock a directory's file. If the file system has no locks, as on some clusters, warn and continue."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        tell(f"{run_directory}: its file system does not support locks ({error.strerror}), so make sure that no other "
             "process trains there")


def read_experiment(run_directory: Path) -> Any:
    """Read the run, of any kind, that a run directory holds. Raises BadInput if there is none."""
    return read_described(run_directory, {})[0]


def read_run(run_directory: Path) -> tuple[Experiment, tuple[str, ...], tuple[int, ...]]:
    """Read a classifier's run, its classes and the shape of its images. Raises BadInput if there is none."""
    experiment, (classes, image) = read_described(run_directory, ABOUT_IMAGES, "classification")
    return experiment, classes, image


def read_described(run_directory: Path, about: dict[str, Any], kind: str | None = None) -> tuple[Any, list[Any]]:
    """Read a run, and the values that `about` lists by name and type. Raises BadInput if one is missing or wrong."""
    file = run_directory / "experiment.json"
    check(file.exists(), f"{run_directory}: contains no run (no {file.name})")
    stored_kind = name_in(file)
    check(kind in (None, stored_kind), f"{run_directory} contains a run of a {kind_named(stored_kind).NOUN}, not of a "
                                       f"{kind_named(kind or stored_kind).NOUN}")
    content = read_json(file, "experiment", *about)
    try:
        values = [convert(content[key], hint) for key, hint in about.items()]
        for (key, hint), value in zip(about.items(), values, strict=True):
            check_value(key, value, hint)
        return from_json(content["experiment"], kind_named(stored_kind).VALUE), values
    except BadInput as error:
        raise BadInput(f"{file}: not a run of this version of resjax ({error})") from None


def read_descriptions(run_directory: Path) -> dict[str, str] | None:
    """Read the descriptions of a run's Python objects ("model", "optimizer", ...); None without a run."""
    file = run_directory / "experiment.json"
    if not file.exists():
        return None
    descriptions = read_json(file).get("given", {})
    check(isinstance(descriptions, dict) and all(isinstance(text, str) for text in descriptions.values()),
          f"{file}: 'given' is {descriptions!r}; it must be an object of strings")
    return dict(descriptions)


def write_run(run_directory: Path, experiment: Run, about: dict[str, Any], devices: Any) -> None:
    """Write a run's experiment, a description of its images, and its environment."""
    if is_first():
        now = environment(devices)
        write_json(run_directory / "experiment.json", {
            "kind": experiment.kind, "experiment": to_json(experiment), **about, **now,
            "earlier": earlier_environments(run_directory, now)})


def earlier_environments(run_directory: Path, now: dict[str, Any]) -> list[dict[str, Any]]:
    """List the earlier environments of a run that differ from the current one in JAX, devices or convolutions."""
    file = run_directory / "experiment.json"
    if not file.exists():
        return []
    content = read_json(file)
    before = {key: content[key] for key in now if key in content}
    known: list[dict[str, Any]] = content.get("earlier", [])
    return known if computing(before) == computing(now) else [*known, before]


def computing(environment: dict[str, Any]) -> str:
    """Describe what affects the bits of results, as in "jax 0.10.2 on cpu, convolutions by oneDNN 3.2.0"."""
    versions, devices = environment.get("versions", {}), environment.get("devices", {})
    count = devices.get("count", 1)
    return (f"jax {versions.get('jax')} on {f'{count} x ' if count > 1 else ''}{devices.get('kind')}, "
            f"convolutions by {environment.get('convolutions', 'XLA')}")


def check_images(run_directory: Path, images: dict[str, Any]) -> None:
    """Raise BadInput, naming the change, if the images differ from those with which the run began.

    Test images may have been repaired in the meantime, in which case a message reports the change.
    """
    file = run_directory / "experiment.json"
    before = read_json(file).get("images") if file.exists() else None
    if not isinstance(before, dict) or before == {key: images.get(key) for key in before}:
        return
    if before | {"digest": ""} == images | {"digest": ""} and BUT_TEST_SIZES in images:
        tell(f"{run_directory}: test image files have changed in size since this run began; it is evaluated on the "
             "current files")
        return
    changed = [f"{key}: {before.get(key)} -> {value}" for key, value in images.items()
               if "digest" not in key and before.get(key) != value]
    raise BadInput(f"{run_directory}: the images have changed since this run began: "
                   + ("; ".join(changed) or "names, sizes or labels have changed")
                   + ". Restore them, or choose another --workdir")


def read_result(run_directory: Path) -> dict[str, Any] | None:
    """Read a finished run's result; None if it is not finished. Raises BadInput if the file is damaged."""
    file = run_directory / "result.json"
    if not file.exists():
        return None
    result = read_json(file, "name", "steps", "state_digest", "train_seconds")
    for key in result.keys() & RESULT.keys():
        check_value(f"{file}: {key}", result[key], RESULT[key])
    return result


def has_checkpoint(run_directory: Path) -> bool:
    """Return whether a run has a checkpoint, so that it no longer needs the weights that it started from."""
    return any((run_directory / "checkpoints").glob("[0-9]*"))


def finished_result(run_directory: Path, experiment: Run) -> dict[str, Any] | None:
    """Read the result of a run. Return None if steps are left, for example after a shorter run."""
    return None if unfinished(run_directory, experiment) else read_result(run_directory)


def unfinished(run_directory: Path, experiment: Run) -> bool:
    """Return whether steps are left, because there is no result or only that of a shorter run."""
    result = read_result(run_directory)
    return result is None or bool(result["steps"] < experiment.steps)


def environment(devices: Any) -> dict[str, Any]:
    """Describe versions, devices, and the library that computes convolutions."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "versions": {"python": sys.version.split()[0], "resjax": __version__} | {
            name: version(name) for name in packages},
        "devices": {"platform": jax.default_backend(), "kind": devices[0].device_kind, "count": len(devices),
                    "processes": jax.process_count()},
        "convolutions": convolutions_of(jax.default_backend()),
    }
