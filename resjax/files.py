"""Files that are whole or not there, and arrays that are kept between runs."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from resjax.errors import BadInput, check
from resjax.platform import cache_directory

CACHE_FORMAT = 2  # counts up when what is kept would be computed in another way: older arrays are then built anew


def write_aside(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a new file in the same folder, then put it in place of `file` at once."""
    aside = file.with_name(f".{file.stem}-{os.getpid()}{file.suffix}")
    try:
        write(aside)
        with aside.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(aside, file)
    finally:
        aside.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_aside(file, lambda aside: aside.write_text(text))


def read_json(file: Path, *keys: str) -> dict[str, Any]:
    """Read an object from a JSON file. Raises BadInput, naming it, where it is none, or lacks one of `keys`."""
    try:
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
