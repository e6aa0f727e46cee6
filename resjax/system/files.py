"""Files that are whole or not there, and arrays that are kept between runs."""

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
CACHE_FORMAT = 2  # counts up when what is kept would be computed in another way: older arrays are then built anew


def expanded(path: str | Path) -> Path:
    """Put the home folder in place of `~`. Raises BadInput where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise BadInput(f"{path}: there is no such user, or no home folder is known") from None


def file_name(text: str) -> str:
    """Turn what something is called into the name of a file or folder, which stays in the folder that it is put into.

    A plain name stays as it is; where a sign or the length is changed, a digest tells it from others.
    """
    plain = re.sub(r"[^\w .+=,@-]", "-", text)[:60].lstrip(" .-")
    seal = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return plain if plain == text and plain else f"{plain or 'run'}-{seal}"


def regular(file: Path) -> Path:
    """Return what is a file or not there. Raises BadInput for a folder, a device or a FIFO, which may have no end."""
    check(not file.exists() or file.is_file(), f"{file}: it is no file, but a folder, a device or a FIFO")
    return file


def write_aside(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new file in the same folder, then put it in place of `file` at once.

    Raises BadInput where a folder or a device, which is not to be replaced, has that name; OSError, naming the file,
    where the disk is full or cannot be written.
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
    """Let an OSError within the block say, in one line, that this is what cannot be written, and why."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # it says what it is of already
            raise
        said = error.strerror or ""
        why = said if said and said.isprintable() else os.strerror(error.errno)  # HDF5 says it in many lines
        raise OSError(f"{path}: it cannot be written ({why})") from None


@contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """Give a new folder beside `folder`, removed at the end of the block: what is made whole in it is moved there.

    OSError, naming the folder, where the disk is full or cannot be written.
    """
    remove_leftovers(folder)
    beside, prefix = folder.absolute().parent, f".{folder.name}.aside-"
    with writing(folder), tempfile.TemporaryDirectory(dir=beside, prefix=prefix) as aside, in_use(Path(aside)):
        yield Path(aside)


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Hold a file or folder until the end of the block, or of the process, however it ends."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        hold(descriptor)
        yield
    finally:
        os.close(descriptor)


def hold(descriptor: int) -> bool:
    """Lock what nobody holds; say whether that was so, and not where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote a file or folder have left beside it."""
    for left in path.parent.glob(f".{escape(path.name)}.aside-*"):
        with suppress(OSError):  # another process may be removing it
            descriptor = os.open(left, os.O_RDONLY)
            try:
                if hold(descriptor):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            finally:
                os.close(descriptor)


def write_text(file: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_aside(file, lambda aside: aside.write_text(text, "utf-8"))


def as_csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a table as CSV."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerows([head, *rows])
    return text.getvalue()


def write_csv(file: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV, whole or not at all."""
    write_text(file, as_csv(head, rows))


def read_json(file: Path, *keys: str) -> dict[str, Any]:
    """Read an object from a JSON file. Raises BadInput, naming it, where it is none, or lacks one of `keys`."""
    try:
        if regular(file).stat().st_size > LARGEST_JSON:
            raise ValueError("it is too large")
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not a readable JSON file ({error})") from None
    check(isinstance(content, dict), f"{file}: it holds no JSON object")
    missing = [key for key in keys if key not in content]
    check(not missing, f"{file}: it says nothing of {', '.join(missing)}")
    return dict(content)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(file, json.dumps(content, indent=2) + "\n")


def digest(file: Path) -> str:
    """Compute a file's SHA-256."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stamp(files: Iterable[Path]) -> bytes:
    """Digest the sizes of files and when each was last written: what a change in place changes, and a move does not."""
    states = (file.stat() for file in files)
    return hashlib.sha256(json.dumps([(state.st_size, state.st_mtime_ns) for state in states]).encode()).digest()


def cached(name: str, fingerprint: str, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return `build()`, from the cache where a copy with this fingerprint is there, whole by size and digest."""
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
        warnings.warn(f"{file.parent}: the decoded images of {name} are not kept for the next run ({error}); "
                      "RESJAX_CACHE names another folder", stacklevel=2)
    return arrays


def is_whole(file: Path, seal: Path) -> bool:
    """Say whether the file is there with the size and digest that were sealed."""
    try:
        sealed = json.loads(seal.read_text())
        return bool(sealed == {"bytes": file.stat().st_size, "sha256": digest(file)})
    except (OSError, ValueError):
        return False
