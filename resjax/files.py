"""Files that are whole or not there."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


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


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_aside(file, lambda aside: aside.write_text(json.dumps(content, indent=2) + "\n"))


def digest(file: Path) -> str:
    """Compute a file's SHA-256."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
