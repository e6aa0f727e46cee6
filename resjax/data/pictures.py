"""Picture files that somebody names one by one, or by their folder."""

from collections.abc import Sequence
from pathlib import Path

from resjax.data.decode import EXTENSIONS
from resjax.data.folders import is_hidden
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded, regular


def find_pictures(places: Sequence[str | Path]) -> list[Path]:
    """List the files, with the images of each folder and of those within it in its place, sorted by name.

    What systems put there, such as `._photo.jpg`, is left out. Raises BadInput where a folder holds none, or nothing
    is named.
    """
    check(len(places) > 0, "name at least one image file, or a folder of them")
    files: list[Path] = []
    for place in map(expanded, places):
        inside = sorted(file for file in place.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file()
                        and not any(map(is_hidden, file.relative_to(place).parts)))
        check(bool(inside) or not place.is_dir(), f"{place}: no image lies there (of {', '.join(EXTENSIONS)})")
        files += inside if place.is_dir() else [place]
    return files


def read_picture(file: Path) -> bytes:
    """Read a file. Raises BadInput, naming it, where it cannot be read."""
    try:
        return regular(file).read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
