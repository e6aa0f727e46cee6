"""Writes files atomically, and caches arrays."""

import csv
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np

from resjax.system.errors import BadInput, check
from resjax.system.platform import cache_directory

LARGEST_JSON = 1 << 23  # bytes
CACHE_FORMAT = 2  # increased when the computation of cached arrays changes, so that they are rebuilt


def expanded(path: str | Path) -> Path:
    """Replace `~` by the home folder. Raises BadInput if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BadInput(f"{path}: the user does not exist or has no home folder") from None


def file_name(text: str) -> str:
    """Turn a name into a valid file or folder name without path separators.

    A simple name stays unchanged. If a character or the length has to change, a digest is appended to keep names
    distinct.
    """
    plain = re.sub(r"[^\w .+=,@-]", "-", text)[:60].lstrip(" .-")
    seal = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return plain if plain == text and plain else f"{plain or 'run'}-{seal}"


def regular(file: Path) -> Path:
    """Return a path to a regular file or to nothing. Raises BadInput for a folder, a device or a FIFO."""
    check(not file.exists() or file.is_file(), f"{file}: this is a folder, a device or a FIFO, not a file")
    return file


def write_aside(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new file in the same folder, then replace `file` with it atomically.

    Raises BadInput if `file` is a folder or a device, and OSError, naming the file, if the disk is full or cannot be
    written.
    """
    regular(file)
    remove_leftovers(file)
    aside = file.with_name(f".{file.name}.aside-{os.getpid()}{file.suffix}")
    with writing(file):
        try:
            aside.touch()
            with in_use(aside):
                write(aside)
                with aside.open("rb+") as written:
                    os.fsync(written.fileno())
                os.replace(aside, file)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert any OSError inside the block to one with a single line that names the file and the reason."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # this error already names the file
            raise
        said = error.strerror or ""
        why = said if said and said.isprintable() else os.strerror(error.errno)  # HDF5's message has many lines
        raise OSError(f"{path}: cannot be written ({why})") from None


@contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """Create a temporary folder next to `folder`, from which finished files are moved. Remove it at the end.

    Raises OSError, naming the folder, if the disk is full or cannot be written.
    """
    remove_leftovers(folder)
    beside, prefix = folder.absolute().parent, f".{folder.name}.aside-"
    with writing(folder), tempfile.TemporaryDirectory(dir=beside, prefix=prefix) as aside, in_use(Path(aside)):
        yield Path(aside)


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Lock a file or folder until the end of the block or of the process."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        hold(descriptor)
        yield
    finally:
        os.close(descriptor)


def hold(descriptor: int) -> bool:
    """Try to lock a file. Return whether the lock was acquired; False also if the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes have left next to a file or folder."""
    for left in path.parent.glob(f".{escape(path.name)}.aside-*"):
        with suppress(OSError):  # another process may have removed it
            descriptor = os.open(left, os.O_RDONLY)
            try:
                if hold(descriptor):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(descriptor)


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically."""
    write_aside(file, lambda aside: aside.write_text(text, "utf-8"))


def as_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Format a table as CSV."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerows([head, *rows])
    return text.getvalue()


def write_csv(file: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV, atomically."""
    write_text(file, as_csv(head, rows))


def read_json(file: Path, *keys: str) -> dict[str, Any]:
    """Read an object from a JSON file. Raises BadInput, naming the file, for other content or if one of `keys` is
    missing.
    """
    try:
        if regular(file).stat().st_size > LARGEST_JSON:
            raise ValueError("it is too large")
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not a readable JSON file ({error})") from None
    check(isinstance(content, dict), f"{file}: does not contain a JSON object")
    missing = [key for key in keys if key not in content]
    check(not missing, f"{file}: lacks {', '.join(missing)}")
    return dict(content)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_text(file, json.dumps(content, indent=2) + "\n")


def digest(file: Path) -> str:
    """Compute a file's SHA-256."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stamp(files: Iterable[Path]) -> bytes:
    """Hash the sizes and modification times of files. They change if a file is modified, but not if it is moved."""
    return hashlib.sha256(json.dumps([stamp_of(file) for file in files]).encode()).digest()


def stamp_of(file: Path | bytes) -> tuple[int, int]:
    """Return the size and the modification time, in nanoseconds, of a file; -1 for both if it cannot be read."""
    try:
        state = os.stat(file)
    except OSError:
        return -1, -1
    return state.st_size, state.st_mtime_ns


def cached(name: str, fingerprint: str, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return `build()`, or its cached copy with this fingerprint if the copy's size and digest are correct."""
    name = name.replace("/", "-").replace(":", "-")
    file = cache_directory() / "data" / f"{name}-{CACHE_FORMAT}-{fingerprint[:16]}.npz"
    seal = file.with_suffix(".json")
    if is_whole(file, seal):
        with np.load(file) as arrays:
            return dict(arrays)
    arrays = build()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_aside(file, lambda aside: np.savez(aside, **arrays))  # type: ignore[arg-type]
        write_json(seal, {"bytes": file.stat().st_size, "sha256": digest(file)})
    except OSError as error:
        warnings.warn(f"{file.parent}: cannot cache the decoded images of {name} ({error}); "
                      "set RESJAX_CACHE to another folder", stacklevel=2)
    return arrays


def is_whole(file: Path, seal: Path) -> bool:
    """Return whether the file exists with the recorded size and digest."""
    try:
        sealed = json.loads(seal.read_text("utf-8"))
        return bool(sealed == {"bytes": file.stat().st_size, "sha256": digest(file)})
    except (OSError, ValueError):
        return False
