"""Saves checkpoints with Orbax, asynchronously and atomically, each with the digests of its files.

Orbax has no checksums, so it restores a flipped byte without an error. If files are missing, Orbax's threads fail one
after another. The digests are therefore verified before Orbax reads anything.
"""

import dataclasses
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from resjax.system.chatter import without_chatter
from resjax.system.distributed import broadcast_from_first, is_first, wait_for_all
from resjax.system.errors import BadInput, Diverged, Interrupted
from resjax.system.files import digest
from resjax.system.interrupt import heed, requests
from resjax.system.serialization import brief
from resjax.training.step import TrainState, named_leaves, with_key_data

MAX_TO_KEEP = 3
SEAL, REPLACED = "digests.json", "replaced-checkpoint-"


@contextmanager
def checkpoints(run_directory: Path, *, clear: bool) -> Iterator[ocp.CheckpointManager]:
    """Open `run_directory/checkpoints`, which keeps the last few checkpoints. Pending saves are awaited at the end.

    `clear` removes checkpoints that a killed process has only partly removed and, in the background, checkpoints that
    it has only partly saved. Only the process that trains may pass `clear`, because a partly saved checkpoint may be a
    save in progress. That process may pass `clear` only once, because two removals at a time fail.
    """
    folder = (run_directory / "checkpoints").absolute()
    if clear:
        settle_replaced(folder)
        remove_old(folder)

    def seal() -> None:  # a pending save writes to such a folder and renames it at the end
        for unfinished in folder.glob("*.orbax-checkpoint-tmp"):
            (unfinished / SEAL).write_text(json.dumps(digests(unfinished)), "utf-8")

    with without_chatter():
        with requests(held=True):  # here and below: if interrupted, Orbax's threads print errors
            manager = ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(
                max_to_keep=MAX_TO_KEEP, cleanup_tmp_directories=clear,
                async_options=ocp.AsyncOptions(post_finalization_callback=seal)))
        try:
            yield manager
            finish_saves(manager)
            if clear:
                settle_replaced(folder)
        finally:
            with suppress(Exception, Interrupted), requests(held=True):  # already raised
                manager.close()
    heed()


def remove_old(folder: Path) -> None:
    """Remove all checkpoints except the last few. One may be incomplete, if a process was killed while removing it."""
    if is_first():
        steps = sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal())
        for step in steps[:-MAX_TO_KEEP]:
            shutil.rmtree(folder / str(step), ignore_errors=True)
    wait_for_all("old checkpoints")


def put_aside(folder: Path, step: int) -> None:
    """Move a checkpoint out of the folder of checkpoints until another of the same step is saved."""
    if is_first():
        (folder / str(step)).rename(folder.parent / f"{REPLACED}{step}")
    wait_for_all("aside")


def settle_replaced(folder: Path) -> None:
    """Remove the checkpoints that `put_aside` has moved. Move those back whose replacement was never saved."""
    for aside in folder.parent.glob(f"{REPLACED}*") if is_first() else ():
        place = folder / aside.name.removeprefix(REPLACED)
        if place.exists():
            shutil.rmtree(aside)
        else:
            aside.rename(place)
    wait_for_all("replaced checkpoints")


def save_checkpoint(manager: ocp.CheckpointManager, state: TrainState, meta: dict[str, Any]) -> None:
    """Start a save. The arrays are copied before this function returns. `meta` is small and is stored as JSON.

    An existing checkpoint of the same step is replaced. If a parameter is not finite, raises Diverged and saves
    nothing. Raises OSError if the previous save failed.
    """
    step = int(state.step)
    leaves = named_leaves(state)
    broken = [name for name, leaf in leaves if name.startswith((".params", ".batch_stats"))
              and not np.all(np.isfinite(leaf))]  # except the plateau rule's error, which starts at infinity
    if broken:
        raise Diverged(f"{broken[0]} is no longer finite after step {step}")
    meta = meta | {"shapes": {name: leaf.shape for name, leaf in leaves}}
    with requests(held=True), failures_as_os_error(manager):
        if step in manager.all_steps():
            manager.wait_until_finished()
            put_aside(Path(manager.directory), step)
            manager.reload()
        manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state),
                                                   meta=ocp.args.JsonSave(meta)))


def finish_saves(manager: ocp.CheckpointManager) -> None:
    """Wait until all saves are on disk. Raises OSError if a save failed."""
    with requests(held=True), failures_as_os_error(manager):
        manager.wait_until_finished()


@contextmanager
def failures_as_os_error(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Convert Orbax's exceptions, which have many types and lengths, to an OSError with one line."""
    try:
        yield
    except Exception as error:
        cause = re.search(r"[^:]*(?= \[os_error_code=)", str(error))  # TensorStore quotes the system's error
        why = error.strerror if isinstance(error, OSError) else cause[0].strip() if cause else brief(error)
        raise OSError(f"{manager.directory}: cannot write a checkpoint ({why}); run the same command to resume from "
                      "the previous one") from None


def restore_latest(manager: ocp.CheckpointManager, template: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
    """Restore the newest intact checkpoint and its metadata to the devices of `template`; None if there is none.

    A damaged checkpoint is reported in a warning and moved aside, and the previous one is used. Raises BadInput if the
    checkpoint has another architecture.
    """
    directory = Path(manager.directory)
    for step in sorted(manager.all_steps(), reverse=True):
        folder = directory / str(step)
        wrong = damage(folder) if is_first() else None
        if broadcast_from_first([wrong is not None]).any():
            if wrong:
                set_aside(folder, directory.parent / f"damaged-checkpoint-{step}", wrong)
            wait_for_all("set aside")
            manager.reload()
            continue
        with requests(held=True):
            return restore_step(manager, template, step)
    return None


def restore_step(manager: ocp.CheckpointManager, template: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
    """Restore an intact checkpoint and its metadata to the devices of `template`, a state or shapes with shardings.

    If the template has no optimizer state, none is restored.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), template)
    meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
    saved = {name: shape for name, shape in meta["shapes"].items()
             if template.opt_state is not None or not name.startswith(".opt_state")}
    check_architecture(saved, with_key_data(template), f"{manager.directory}/{step}")
    if template.opt_state is not None:
        return manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes))).state, meta
    parts = {f.name: getattr(shapes, f.name) for f in dataclasses.fields(shapes) if f.name != "opt_state"}
    restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.PyTreeRestore(
        parts, restore_args=ocp.checkpoint_utils.construct_restore_args(parts), partial_restore=True))).state
    return template.replace(**restored), meta


def read_latest(run_directory: Path, template: TrainState, step: int | None
                ) -> tuple[TrainState, dict[str, Any]] | None:
    """Read the newest intact checkpoint, or the one of `step`, and its metadata, without changing anything.

    Returns None if there is none. If a training run in progress removes the checkpoint during the read, the next
    checkpoint is read instead. Raises BadInput if the checkpoint of `step` is damaged or missing.
    """
    with checkpoints(run_directory, clear=False) as manager:
        for _ in range(3):
            manager.reload()
            steps = sorted(manager.all_steps(), reverse=True) if step is None else [step]
            wrong: dict[int, str | None] = {}
            for number in steps:
                wrong[number] = damage(Path(manager.directory) / str(number))
                if wrong[number] is not None:
                    continue
                try:
                    restored = restore_step(manager, template, number)
                    warn_of_damage(run_directory, number, wrong)
                    return restored
                except BadInput:
                    raise
                except Exception as error:  # Orbax raises many types if files disappear
                    wrong[number] = f"it disappeared: {error}"
            if step is not None:
                raise BadInput(f"{run_directory}: the checkpoint of step {step}, to which result.json belongs, is "
                               f"damaged ({wrong[step]}); delete result.json and run the same command to resume from "
                               "the previous checkpoint")
            if not steps:
                return None
    raise BadInput(f"{run_directory}: every checkpoint is damaged ({'; '.join(f'{n}: {w}' for n, w in wrong.items())})")


def warn_of_damage(run_directory: Path, step: int, wrong: dict[int, str | None]) -> None:
    """Warn that an older checkpoint is read because a newer one is damaged."""
    for number, reason in wrong.items():
        if number > step and reason:
            warnings.warn(f"{run_directory}: the checkpoint of step {number} is damaged ({reason}); using the one "
                          f"of step {step} instead", stacklevel=4)


def set_aside(folder: Path, aside: Path, wrong: str) -> None:
    """Move a damaged checkpoint aside and report it."""
    warnings.warn(f"{folder} is damaged ({wrong}); moved it to {aside.name} and "
                  "used the previous checkpoint instead", stacklevel=3)
    shutil.rmtree(aside, ignore_errors=True)  # an earlier checkpoint of this step that was damaged
    folder.rename(aside)


def digests(folder: Path) -> dict[str, str]:
    """Map the files of a checkpoint's arrays and metadata to their SHA-256."""
    files = [file for part in ("state", "meta") for file in (folder / part).rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): digest(file) for file in sorted(files)}


def damage(folder: Path) -> str | None:
    """Describe what is wrong with the files of a checkpoint; None if all match their digests."""
    try:
        sealed = json.loads((folder / SEAL).read_text("utf-8"))
    except (OSError, ValueError) as error:
        return f"{SEAL} cannot be read: {error}"
    actual = digests(folder)
    for file in sealed:
        if file not in actual:
            return f"{file} is missing"
        if actual[file] != sealed[file]:
            return f"{file} has changed"
    return None


def check_architecture(saved: dict[str, list[int]], template: TrainState, name: str) -> None:
    """Raise BadInput if the names or shapes of the saved arrays differ from the template's."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(template)
    wanted = {jax.tree_util.keystr(path): list(leaf.shape) for path, leaf in leaves}
    for leaf in sorted(saved.keys() | wanted.keys()):
        if saved.get(leaf) != wanted.get(leaf):
            raise BadInput(f"{name} contains another architecture: {leaf} has shape {saved.get(leaf, 'none')} instead "
                           f"of {wanted.get(leaf, 'none')}")
