"""Compiled programs kept on disk, each with its SHA-256: a damaged one counts as none, and a new one takes its place.

JAX writes them without one, in place, and never again: a program that is cut off by a kill is compiled anew at every
start with a warning, and one with a flipped byte may run.
"""

from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

SEAL = sha256().digest_size


class SealedPrograms:
    """Seals what another cache of JAX's keeps in files."""

    def __init__(self, kept: Any) -> None:
        self.kept = kept

    def get(self, key: str) -> bytes | None:
        """Return a program; None where it is not there, or is not the one that was put."""
        content = self.kept.get(key)
        if content is None or sha256(content[SEAL:]).digest() == content[:SEAL]:
            return content and bytes(content[SEAL:])
        for damaged in Path(self.kept.path).glob(f"{key}-cache"):  # else JAX would leave it there
            damaged.unlink(missing_ok=True)
        return None

    def put(self, key: str, program: bytes) -> None:
        """Keep a program; none where the disk is full or cannot be written, of which `resjax doctor` tells."""
        with suppress(OSError):
            self.kept.put(key, sha256(program).digest() + program)


def seal_programs() -> None:
    """Let JAX seal the programs that it keeps from now on. Call it before the first is compiled."""
    from jax._src import compilation_cache  # JAX has no public way to say how they are kept

    plain = getattr(compilation_cache, "get_file_cache", None)
    if plain is None or hasattr(plain, "sealed"):
        return

    def sealed(path: str) -> Any:
        found = plain(path)
        return found and (SealedPrograms(found[0]), found[1])

    sealed.sealed = True  # type: ignore[attr-defined]
    compilation_cache.get_file_cache = sealed
