"""Writes detections as COCO results in JSON, for pycocotools and COCO's evaluation server."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from resjax.detection.coco import Id, read_categories, read_entries
from resjax.system.errors import check
from resjax.system.files import write_text


class Numbers(NamedTuple):
    """COCO's ids of images, by file name, and of categories, by name."""

    images: dict[str, Id]
    categories: dict[str, Id]


def numbers_of(annotations: Path | None, images: Sequence[Path], classes: Sequence[str]) -> Numbers:
    """Read the ids of images and categories from a COCO annotation file. Without a file, both count from 1.

    Raises BadInput, naming the image or class, if it is not in the file.
    """
    if annotations is None:
        return Numbers({image.name: number for number, image in enumerate(images, 1)},
                       {name: number for number, name in enumerate(classes, 1)})
    content = read_entries(annotations)
    known = Numbers({Path(entry.text("file_name")).name: entry.id("id") for entry in content["images"]},
                    {name: number for number, name in read_categories(content["categories"]).items()})
    for what, names, numbers in (("image", [image.name for image in images], known.images),
                                 ("class", classes, known.categories)):
        missing = next((name for name in names if name not in numbers), None)
        check(missing is None, f"{annotations}: contains no {what} {missing!r}, so its results have no id")
    return known


def write_results(file: Path, detections: Iterable[tuple[Path, Sequence[tuple[Any, ...]]]], numbers: Numbers) -> None:
    """Write COCO results atomically. `detections` yields each image with its objects, as in `detectors.COLUMNS`.

    COCO's `bbox` is x, y, width, height in pixels.
    """
    results = [{"image_id": numbers.images[image.name], "category_id": numbers.categories[name],
                "bbox": [round(side, 2) for side in (x1, y1, x2 - x1, y2 - y1)], "score": round(score, 5)}
               for image, objects in detections for name, score, x1, y1, x2, y2 in objects]
    write_text(file, "[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n")
