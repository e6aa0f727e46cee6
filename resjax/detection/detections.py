"""Detections as others read them: COCO's results in JSON, as pycocotools takes them, and a table in CSV."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from resjax.detection.average_precision import Found
from resjax.detection.coco import Id, read_categories, read_json
from resjax.system.errors import BadInput, check
from resjax.system.files import write_aside

COLUMNS = ("file", "class", "score", "x1", "y1", "x2", "y2")


class Numbers(NamedTuple):
    """COCO's numbers of images, by file name, and of categories, by name."""

    images: dict[str, Id]
    categories: dict[str, Id]


def numbers_of(annotations: Path | None, images: Sequence[Path], classes: Sequence[str]) -> Numbers:
    """Read the numbers of images and classes in a file of COCO's annotations; without one both count from 1.

    Raises BadInput, naming it, for an image or a class that the file does not have.
    """
    if annotations is None:
        return Numbers({image.name: number for number, image in enumerate(images, 1)},
                       {name: number for number, name in enumerate(classes, 1)})
    content = read_json(annotations)
    known = Numbers({Path(entry.text("file_name")).name: entry.id("id") for entry in content["images"]},
                    {name: number for number, name in read_categories(content["categories"]).items()})
    for what, names, found in (("image", [image.name for image in images], known.images),
                               ("class", classes, known.categories)):
        missing = next((name for name in names if name not in found), None)
        check(missing is None, f"{annotations}: it has no {what} {missing!r}, so its results would have no number")
    return known


def coco_results(images: Sequence[Path], found: Sequence[Found], classes: Sequence[str],
                 numbers: Numbers) -> list[dict[str, object]]:
    """List detections as COCO does: `bbox` is x, y, width and height in pixels."""
    return [{"image_id": numbers.images[image.name], "category_id": numbers.categories[classes[label - 1]],
             "bbox": [round(float(side), 2) for side in (x1, y1, x2 - x1, y2 - y1)], "score": round(float(score), 5)}
            for image, each in zip(images, found, strict=True)
            for (x1, y1, x2, y2), score, label in zip(each.boxes, each.scores, each.labels, strict=True)]


def table_of(images: Sequence[Path], found: Sequence[Found], classes: Sequence[str]) -> str:
    """Write detections as a table: corners in pixels, from the upper left."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for image, each in zip(images, found, strict=True):
        for box, score, label in zip(each.boxes, each.scores, each.labels, strict=True):
            writer.writerow((image, classes[label - 1], f"{score:.5f}", *(f"{float(side):.2f}" for side in box)))
    return out.getvalue()


def write_detections(file: Path, images: Sequence[Path], found: Sequence[Found], classes: Sequence[str],
                     annotations: Path | None = None) -> None:
    """Write the detections in some images into `NAME.json`, COCO's results, or `NAME.csv`, whole or not at all.

    `annotations` is a file of COCO's whose numbers of images and categories are used, as a submission needs them.
    Raises BadInput for another ending, or an image or class that `annotations` does not have.
    """
    if file.suffix not in (".json", ".csv"):
        raise BadInput(f"{file}: detections are written as NAME.json (COCO's results) or NAME.csv")
    if file.suffix == ".json":
        results = coco_results(images, found, classes, numbers_of(annotations, images, classes))
        text = "[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n"
    else:
        text = table_of(images, found, classes)
    write_aside(file, lambda aside: aside.write_text(text))
