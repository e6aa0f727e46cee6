"""Annotated images in COCO's layout, with `annotations/instances_SET.json` and the images in the folder SET."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resjax.detection.annotations import AnnotatedFiles, Stated
from resjax.detection.fields import AnnotationEntry
from resjax.detection.stated import (
    StatedImage,
    annotate_images,
    check_in_pixels,
    class_number,
    otherwise_spelled,
    remark_on,
)
from resjax.system.errors import BadInput, check
from resjax.system.files import regular
from resjax.system.serialization import brief

PARTS = {"images": "image", "annotations": "annotation", "categories": "category"}
Id = int | str


def read_coco(path: Path, sets: Sequence[str], classes: Sequence[str] = ()) -> AnnotatedFiles:
    """Read the annotations of some sets. Without `classes`, the categories of the first set are used, sorted by id.

    Raises BadInput, naming file, entry and field, for a missing, invalid or empty file, a missing or duplicate id, an
    image that is missing or whose size differs from the stated one, a category that is not in `classes`, or a box
    outside of its image. `remarks` mention annotations that are left out, such as boxes without area, or ambiguous.
    """
    known, images, remarks = tuple(classes), list[StatedImage](), list[str]()
    for name in sets:
        file = path / "annotations" / f"instances_{name}.json"
        content = read_entries(file)
        categories = read_categories(content["categories"])
        known = known or tuple(categories.values())
        pictures = by_id(content["images"])
        ids = Counter(entry.id("id") for entry in content["images"])
        remarks.append(remark_on("image", "listed more than once, identically; each counts once",
                                 [f"{file}, image {i}" for i in ids if ids[i] > 1]))
        objects, used = read_objects(content["annotations"], pictures, categories, known)
        empty = [f"{file}, {thing.called}" for things in objects.values() for thing in things
                 if thing.area == 0 and thing.box[0] != thing.box[2] and thing.box[1] != thing.box[3]]
        remarks += [otherwise_spelled(used, known),
                    remark_on("object", "with an area of 0, which COCO counts as small", empty)]
        images += [stated_image(path, name, entry, objects[i]) for i, entry in pictures.items()]
    return annotate_images(known, images, remarks)


def read_entries(file: Path) -> dict[str, list[AnnotationEntry]]:
    """Read the entries of a file. Raises BadInput if it is missing or incomplete."""
    try:
        content = json.loads(regular(file).read_bytes(), object_pairs_hook=merge_pairs)
    except OSError as error:
        raise BadInput(f"{file}: cannot read these annotations ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: incomplete or invalid JSON ({error})") from None
    entries_by_part = {}
    for part, called in PARTS.items():
        entries = content.get(part) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise BadInput(f"{file}: has no list {part!r}")
        odd = next((i for i, entry in enumerate(entries, 1) if not isinstance(entry, dict)), 0)
        check(not odd, f"{file}, entry {odd} of {part}: must be a JSON object")
        entries_by_part[part] = [AnnotationEntry(
            file, f"{called} {entry['id'] if type(entry.get('id')) is int else f'number {i}'}", entry)
            for i, entry in enumerate(entries, 1)]
    check(bool(entries_by_part["images"]), f"{file}: the list 'images' is empty")
    return entries_by_part


def merge_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Collect the fields of a JSON object. A field that is repeated with different values becomes a list."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        for key in fields:
            values = [value for name, value in pairs if name == key]
            fields[key] = values if any(value != values[0] for value in values) else values[0]
    return fields


def by_id(entries: Sequence[AnnotationEntry]) -> dict[Id, AnnotationEntry]:
    """Map ids to entries. Raises BadInput if different entries have the same id."""
    unique: dict[Id, AnnotationEntry] = {}
    for entry in entries:
        same = unique.setdefault(entry.id("id"), entry)
        if same.fields != entry.fields:
            raise BadInput(f"{entry.file}: two entries have the id {entry.id('id')!r}, {brief(same.fields)} and "
                           f"{brief(entry.fields)}; ids must be unique")
    return unique


def read_categories(entries: Sequence[AnnotationEntry]) -> dict[Id, str]:
    """List the names of categories, sorted by id. Raises BadInput if two have the same name."""
    categories = by_id(entries)
    odd = next((i for i in categories if type(i) is not type(next(iter(categories)))), None)
    check(odd is None, f"{entries[0].file if entries else ''}: ids of categories must be all numbers or all strings: "
                       f"{odd!r} and {next(iter(categories), None)!r}")
    names = {i: categories[i].name("name") for i in sorted(categories)}
    ids: dict[str, Id] = {}
    for i, name in names.items():
        check(ids.setdefault(name, i) == i, f"{categories[i].file}: the categories {ids[name]!r} and {i!r} have the "
                                            f"same name, {name!r}; names must be unique")
    return names


def read_objects(entries: Sequence[AnnotationEntry], pictures: dict[Id, AnnotationEntry], categories: dict[Id, str],
                 classes: Sequence[str]) -> tuple[dict[Id, list[Stated]], set[str]]:
    """Collect the objects of every image, and the names of their categories."""
    objects: dict[Id, list[Stated]] = defaultdict(list)
    labels: dict[Id, int] = {}
    for entry in entries:
        image, category = entry.id("image_id"), entry.id("category_id")
        if image not in pictures:
            raise BadInput(f"{entry.file}, {entry.called}: image_id is {image!r}, but no image has this id; the first "
                           f"image has {next(iter(pictures))!r}")
        if category not in labels:
            name = categories.get(category, f"number {category}")
            labels[category] = class_number(entry, "category_id", name, classes)
        objects[image].append(stated_object(entry, labels[category]))
    return objects, {categories[category] for category in labels if category in categories}


def stated_object(entry: AnnotationEntry, label: int) -> Stated:
    """Read the fields of an object. COCO's boxes are x, y, width and height, from the image's upper left corner."""
    x, y, width, height = box = entry.numbers("bbox", 4)
    check_in_pixels(box, entry, "bbox")
    area = None if entry.said("area") is None else entry.number("area")
    if area is not None and area < 0:
        raise entry.wrong("area", "at least 0")
    return Stated(entry.called, (x, y, x + width, y + height), label, crowd=entry.truth("iscrowd"), area=area)


def stated_image(path: Path, name: str, entry: AnnotationEntry, objects: list[Stated]) -> StatedImage:
    """Read the fields of an image. Its file is in the set's folder or, in some exports, relative to the path."""
    size = entry.pixels("height"), entry.pixels("width")
    height, width = size if all(size) else (0, 0)
    if not isinstance(entry.said("file_name"), str):
        raise entry.wrong("file_name", "the name of a file")
    named = entry.text("file_name")
    places = [root / each for each in dict.fromkeys((named, named.replace("\\", "/"))) for root in (path / name, path)]
    file = next((place for place in places if place.is_file()), places[0])
    return StatedImage(f"{entry.file}, {named}", file, height, width, objects)
