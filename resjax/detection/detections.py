"""Writes detections as COCO results in JSON, for pycocotools and COCO's evaluation server."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from resjax.detection.coco import Id, read_categories, read_entries
from resjax.detection.fields import AnnotationEntry
from resjax.system.errors import check
from resjax.system.files import write_text


class Numbers(NamedTuple):
    """COCO's ids of images, by path, and of categories, by name."""

    images: dict[Path, Id]
    categories: dict[str, Id]


def numbers_of(annotations: Path | None, images: Sequence[Path], classes: Sequence[str]) -> Numbers:
    """Read the ids of images and categories from a COCO annotation file. Without a file, both count from 1.

    If several images of the file have the same name, an image is the one whose folders match, too. Raises BadInput,
    naming the image or class, if it is not in the file, or if an image cannot be told from another.
    """
    if annotations is None:
        return Numbers({image: number for number, image in enumerate(images, 1)},
                       {name: number for number, name in enumerate(classes, 1)})
    content = read_entries(annotations)
    categories = {name: number for number, name in read_categories(content["categories"]).items()}
    missing = next((name for name in classes if name not in categories), None)
    check(missing is None, f"{annotations}: contains no class {missing!r}, so its results have no id")
    return Numbers(match_images(annotations, content["images"], images), categories)


def match_images(annotations: Path, entries: Sequence[AnnotationEntry], images: Sequence[Path]) -> dict[Path, Id]:
    """Map images to ids: each to the entry whose path has the longest end in common with the image's path."""
    listed = defaultdict[str, list[tuple[list[str], Id]]](list)
    for entry in entries:
        parts = reversed_parts(entry.text("file_name"))
        listed[parts[0]].append((parts, entry.id("id")))
    ids: dict[Path, Id] = {}
    owners: dict[Id, Path] = {}
    for image in images:
        own = reversed_parts(str(image.absolute()))
        lengths = {number: common_length(parts, own) for parts, number in listed[own[0]]}
        check(bool(lengths), f"{annotations}: contains no image {image.name!r}, so its results have no id")
        most = max(lengths.values())
        longest = [number for number, length in lengths.items() if length == most]
        check(len(longest) == 1, f"{annotations}: {image} could be any of its images {longest}; put the image into the "
                                 "folder that its file_name states")
        number = ids[image] = longest[0]
        other = owners.setdefault(number, image)
        check(other == image, f"{annotations}: {other} and {image} would both be its image {number!r}; give only one")
    return ids


def common_length(one: Sequence[str], other: Sequence[str]) -> int:
    """Count the equal parts at the start of two sequences."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def reversed_parts(path: str) -> list[str]:
    """Split a path, with slashes or backslashes, and return the name first."""
    return path.replace("\\", "/").split("/")[::-1]


def write_results(file: Path, detections: Iterable[tuple[Path, Sequence[tuple[Any, ...]]]], numbers: Numbers) -> None:
    """Write COCO results atomically. `detections` yields each image with its objects, as in `detectors.COLUMNS`.

    COCO's `bbox` is x, y, width, height in pixels.
    """
    results = [{"image_id": numbers.images[image], "category_id": numbers.categories[name],
                "bbox": [round(side, 2) for side in (x1, y1, x2 - x1, y2 - y1)], "score": round(score, 5)}
               for image, objects in detections for name, score, x1, y1, x2, y2 in objects]
    write_text(file, "[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n")
