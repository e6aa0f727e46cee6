"""Images with COCO's annotations: `annotations/instances_SET.json`, and the images in the folder SET."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resjax.detection.annotations import AnnotatedFiles, Drawn, class_number
from resjax.system.errors import BadInput, check
from resjax.system.files import regular

FIELDS = {"images": ("id", "file_name", "height", "width"), "annotations": ("image_id", "category_id", "bbox"),
          "categories": ("id", "name")}
Entry = dict[str, Any]


def read_coco(path: Path, sets: Sequence[str], classes: Sequence[str] = ()) -> AnnotatedFiles:
    """Read the annotations of some sets. Without `classes`, all categories of the first count, by their id.

    Raises BadInput, naming file and value, for a missing, broken or empty file, an annotation of no image, a category
    that is not among `classes`, or a box outside its image. A box without area is left out, and named in
    `left_out`.
    """
    known, every, files = tuple(classes), [], []
    for name in sets:
        file = path / "annotations" / f"instances_{name}.json"
        content = read_json(file)
        known = known or tuple(entry["name"] for entry in sorted(content["categories"], key=lambda entry: entry["id"]))
        for entry, drawn in read_images(file, content, known):
            every.append(drawn)
            files.append(path / name / entry["file_name"])
    left_out = tuple(text for drawn in every for text in drawn.left_out)
    return AnnotatedFiles(known, tuple(drawn.record() for drawn in every), tuple(files), left_out)


def read_json(file: Path) -> dict[str, list[Entry]]:
    """Read a file of annotations. Raises BadInput where it is missing, or lacks something."""
    try:
        content = json.loads(regular(file).read_text())
    except OSError as error:
        raise BadInput(f"{file}: these annotations cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not a whole JSON file ({error})") from None
    for part, fields in FIELDS.items():
        entries = content.get(part) if isinstance(content, dict) else None
        check(isinstance(entries, list), f"{file}: it has no list {part!r}")
        for entry in entries or []:
            missing = [field for field in fields if not isinstance(entry, dict) or field not in entry]
            check(not missing, f"{file}: an entry of {part!r} has no {missing[:1]}: {entry}")
    check(bool(content["images"]), f"{file}: the list 'images' is empty")
    found: dict[str, list[Entry]] = content
    return found


def read_images(file: Path, content: dict[str, list[Entry]], classes: Sequence[str]) -> list[tuple[Entry, Drawn]]:
    """Gather the objects of every image."""
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    objects = defaultdict(list)
    for entry in content["annotations"]:
        objects[entry["image_id"]].append(entry)
    unknown = objects.keys() - {entry["id"] for entry in content["images"]}
    check(not unknown, f"{file}: annotations name image {sorted(unknown)[:1]}, which is not among the images")
    return [(entry, draw(file, entry, objects[entry["id"]], names, classes)) for entry in content["images"]]


def draw(file: Path, image: Entry, objects: list[Entry], names: dict[int, str], classes: Sequence[str]) -> Drawn:
    """Read the objects of an image; COCO's boxes are x, y, width, height from its upper left corner."""
    drawn = Drawn(f"{file}, {image['file_name']}", int(image["height"]), int(image["width"]))
    for entry in objects:
        box = entry["bbox"]
        check(isinstance(box, list) and len(box) == 4, f"{drawn.name}: bbox is {box}; it is four numbers")
        label = class_number(classes, names.get(entry["category_id"], f"number {entry['category_id']}"), drawn.name)
        x, y, width, height = map(float, box)
        drawn.add((x, y, x + width, y + height), label, crowd=bool(entry.get("iscrowd", 0)), area=entry.get("area"))
    return drawn
