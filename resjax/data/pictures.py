"""Finds and reads image files that the user names directly or by their folder."""

from collections.abc import Sequence
from pathlib import Path

from resjax.data.decode import EXTENSIONS
from resjax.data.folders import is_hidden
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded, regular


def find_pictures(places: Sequence[str | Path]) -> list[Path]:
    """List the given image files; a folder is replaced by the images in it and its subfolders, sorted by name.

    Files that operating systems add, such as `._photo.jpg`, are skipped. Raises BadInput if a folder has no images, or
    if nothing is given.
    """
    check(len(places) > 0, "give at least one image file or a folder of images")
    files: list[Path] = []
    for place in map(expanded, places):
        inside = sorted(file for file in place.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file()
                        and not any(map(is_hidden, file.relative_to(place).parts)))
        check(bool(inside) or not place.is_dir(), f"{place}: contains no images ({', '.join(EXTENSIONS)})")
        files += inside if place.is_dir() else [place]
    return files


def read_picture(file: Path) -> bytes:
    """Read an image file, without decoding it. Raises BadInput, naming the file, if it cannot be read."""
    try:
        return regular(file).read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot read this image ({error.strerror})") from None
