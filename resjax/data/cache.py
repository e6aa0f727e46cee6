"""Decoded arrays kept between runs: written aside and renamed, checked by size and digest, rebuilt on mismatch."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from resjax.files import digest, write_aside
from resjax.platform import cache_directory


def cached(name: str, fingerprint: str, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return `build()`, from the cache where a whole copy with this fingerprint is there."""
    file = cache_directory() / "data" / f"{name}-{fingerprint[:16]}.npz"
    seal = file.with_suffix(".json")
    if is_whole(file, seal):
        with np.load(file) as arrays:
            return dict(arrays)
    arrays = build()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_aside(file, lambda aside: np.savez(aside, **arrays))  # type: ignore[arg-type]
        content = json.dumps({"bytes": file.stat().st_size, "sha256": digest(file)})
        write_aside(seal, lambda aside: aside.write_text(content))
    except OSError as error:
        warnings.warn(f"{file.parent}: the decoded images of {name} are not kept for the next run ({error}); "
                      "RESJAX_CACHE names another folder", stacklevel=2)
    return arrays


def is_whole(file: Path, seal: Path) -> bool:
    """Say whether the file is there with the size and digest that were sealed."""
    try:
        sealed = json.loads(seal.read_text())
        return sealed == {"bytes": file.stat().st_size, "sha256": digest(file)}
    except (OSError, ValueError):
        return False
