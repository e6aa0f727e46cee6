"""Mutations of good annotations, with what is right of each: fields dropped, doubled, of other types and ranges."""

import json
import random
import xml.etree.ElementTree as ElementTree
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from annotation_kinds import healthy, write_coco, write_voc

from resjax.detection.coco import read_coco
from resjax.detection.voc import read_voc
from resjax.system.errors import BadInput

SIDES = ("xmin", "ymin", "xmax", "ymax")
NO = object()  # a field cannot mean this
# A value as it is written, and what it means: as a number, as a truth, as a text. NO: it has to be refused.
VALUES: list[tuple[Any, Any, Any, Any]] = [
    ("", None, False, NO), ("  ", None, False, NO), ("many", NO, NO, "many"), ("nan", NO, NO, "nan"),
    ("inf", NO, NO, "inf"), ("1e999", NO, NO, "1e999"), ("1_0", NO, NO, "1_0"), ("0x10", NO, NO, "0x10"),
    ("7", 7, NO, "7"), (" 7.5 ", 7.5, NO, "7.5"), ("-3", -3, NO, "-3"), ("0", 0, False, "0"), ("1", 1, True, "1"),
    ("True", NO, True, "True"), ("no", NO, False, "no"), ("Unspecified", NO, False, "Unspecified"),
    ("чай", NO, NO, "чай"),
    ("99999999999999999999", 1e20, NO, "99999999999999999999"), ("2e1", 20, NO, "2e1")]
OF_JSON: list[tuple[Any, Any, Any, Any]] = [
    (None, None, False, NO), (True, NO, True, NO), (False, NO, False, NO), ([], NO, NO, NO), ([7], NO, NO, NO),
    ({}, NO, NO, NO), ({"a": 1}, NO, NO, NO), (float("nan"), NO, NO, NO), (float("inf"), NO, NO, NO), (7, 7, NO, "7"),
    (7.5, 7.5, NO, NO), (-3, -3, NO, "-3"), (10**400, NO, NO, NO), ("\ud800", NO, NO, NO), ("a\0b", NO, NO, NO),
    (0, 0, False, "0"), (1.0, 1, True, NO)]


class Mutation(NamedTuple):
    """What was changed: the name of the image (None: of no one), the number of the object, the field, and the value.

    `op` is "set", "drop" or "double"; of a doubled field the second value is `value`.
    """

    layout: str
    op: str
    image: str | None
    thing: int | None
    field: str
    value: tuple[Any, Any, Any, Any] | None


def good(root, layout):
    """Write the healthy set with two objects in each image."""
    images = healthy()
    for i, image in enumerate(images):
        image["painted"] = []
        image["objects"].append({"name": "cell", "box": (2 + i, 40, 30 + i, 60), "flag": i % 2})
    (write_voc if layout == "voc" else write_coco)(Path(root), images, "utf-8")


def read(root, layout):
    """Read all four training images, each as its size and its objects: (class, flag, box)."""
    images = (read_voc if layout == "voc" else read_coco)(Path(root), ("train",), ("cell", "dot", "many"))
    flags = [record.difficult if layout == "voc" else record.crowd for record in images.records]
    return {file.name: (record.height, record.width, [
        (images.classes[label - 1], bool(flag), box) for label, flag, box in
        zip(record.labels, which, record.boxes.tolist(), strict=True)])
        for file, record, which in zip(images.files, images.records, flags, strict=True)}, images.remarks


def mutate(root, layout, source):
    """Change one field or element of the set's files; say which."""
    value = source.choice(VALUES if layout == "voc" else VALUES + OF_JSON)
    op = source.choices(("set", "drop", "double"), (6, 2, 2))[0]
    return (mutate_voc if layout == "voc" else mutate_coco)(root, op, value, source)


def mutate_voc(root, op, value, source):
    name, number = f"img{source.randrange(4):03d}", source.randrange(2)
    file = Path(root) / "Annotations" / f"{name}.xml"
    tree = ElementTree.parse(file)
    field = source.choice(("name", "difficult", *(f"bndbox/{side}" for side in SIDES), "bndbox", ".", "size/width",
                           "size/height", "size", "filename"))
    of_image = field.startswith(("size", "filename"))
    thing = tree.getroot() if of_image else tree.getroot().findall("object")[number]
    element = thing.find(field) if field != "." else thing
    parents = {child: parent for parent in tree.iter() for child in parent}
    if op == "set" and len(element):
        op = "drop"  # an element of others has no text that counts
    if op == "drop":
        parents[element].remove(element)
    elif op == "double":
        second = deepcopy(element)
        if not len(element):
            second.text = value[0]
        parents[element].append(second)
    else:
        element.text = value[0]
    tree.write(file, "utf-8")
    return Mutation("voc", op, f"{name}.jpg", None if of_image else number, field, value)


def mutate_coco(root, op, value, source):
    file = Path(root) / "annotations" / "instances_train.json"
    content = json.loads(file.read_text("utf-8"))
    part = source.choice(("annotations", "annotations", "annotations", "images", "categories"))
    entry = source.choice(content[part])
    field = source.choice([*entry, ".", *(["bbox/0", "bbox/1", "bbox/2", "bbox/3"] if part == "annotations" else [])])
    at = content["annotations"].index(entry) if part == "annotations" else None
    image = {"annotations": at is not None and f"img{entry.get('image_id'):03d}.jpg" if at is not None else None,
             "images": entry.get("file_name"), "categories": None}[part]
    number = None if at is None else [i for i, each in enumerate(content["annotations"])
                                      if each["image_id"] == entry["image_id"]].index(at)
    text = None
    if field == "." and op == "drop":
        content[part].remove(entry)
    elif field == ".":
        op = "double"
        content[part].append(deepcopy(entry))
    elif field.startswith("bbox/"):
        op = "set"
        entry["bbox"][int(field[-1])] = value[0]
    elif op == "drop":
        del entry[field]
    elif op == "double":
        entry["\1"] = value[0]
        text = json.dumps(content, ensure_ascii=True).replace('"\\u0001"', json.dumps(field))
    else:
        entry[field] = value[0]
    file.write_text(text or json.dumps(content, ensure_ascii=True), "utf-8")
    return Mutation("coco", op, image, number, f"{part[:-1]}/{field}", value)


def judge(mutation, before, root):
    """Read what was mutated; return "refused" or "read", and whatever else is wrong: a traceback passes."""
    try:
        after, remarks = read(root, mutation.layout)
    except BadInput as error:
        named = str(root) in str(error) and "\n" not in str(error)
        needless = reading(mutation) == "the same"
        return "unclear" if not named else "needless" if needless else "refused"
    if mutation.field == "annotation/image_id":  # an object of another image that there is
        every, now = (sorted(thing for image in images.values() for thing in image[2]) for images in (before, after))
        return "read" if every == now else f"objects have changed, by {mutation}"
    for name, image in before.items():
        if mutation.field.startswith("categor") or (name == mutation.image and name not in after):
            continue  # an image that is dropped, or renamed, or classes that are
        if name != mutation.image and after.get(name) != image:
            return f"{name} has changed, by {mutation}"
    if mutation.image in after and mutation.thing is not None:
        return judge_object(mutation, before[mutation.image][2], after[mutation.image][2], remarks)
    if mutation.image in after and after[mutation.image] != before[mutation.image] and not remarks:
        return f"{mutation.image} has changed, by {mutation}"
    return "read"


def judge_object(mutation, before, after, remarks):
    """Compare the objects of the image that holds the mutated one."""
    others = [thing for i, thing in enumerate(before) if i != mutation.thing]
    if not all(thing in after for thing in others):
        return f"another object has changed, by {mutation}"
    mine = [thing for thing in after if thing not in others]
    wanted = reading(mutation)
    if wanted == "refused":
        return f"it should have been refused: {mutation}"
    old = before[mutation.thing]
    if not mine:
        return "read" if mutation.op == "drop" or remarks else f"the object is lost, by {mutation}"
    name, flag, box = mine[0]
    field = mutation.field.rsplit("/", 1)[-1]
    meaning = dict(zip(("number", "truth", "text"), mutation.value[1:], strict=True))
    kept = {"name": name == old[0], "flag": flag == old[1], "box": box == old[2]}
    if field in ("difficult", "iscrowd"):
        kept["flag"] = flag == {"drop": False, "set": meaning["truth"], "double": old[1]}[mutation.op]
    elif field in ("name", "category_id"):
        kept["name"] = True  # another class that there is
    elif mutation.op == "set" and field in (*SIDES, *"0123"):
        kept["box"] = np.allclose(box, box_with(mutation.layout, old[2], field, meaning["number"]))
    return "read" if all(kept.values()) else f"{mine[0]} from {old}, by {mutation}"


def box_with(layout, box, field, number):
    """Compute the box in which one of the written numbers is another."""
    x1, y1, x2, y2 = box
    if layout == "voc":
        written = [x1 + 1, y1 + 1, x2, y2]
        written[SIDES.index(field)] = number
        (x1, x2), (y1, y2) = sorted(written[::2]), sorted(written[1::2])
        x1, y1 = x1 - 1, y1 - 1
    else:
        written = [x1, y1, x2 - x1, y2 - y1]
        written[int(field)] = number
        (x1, x2), (y1, y2) = (sorted((a, a + side)) for a, side in zip(written[:2], written[2:], strict=True))
    return max(x1, 0), max(y1, 0), min(x2, 96), min(y2, 64)


def reading(mutation):
    """Say what is right of a mutated field, as far as it is sure: "refused", "the same", or None."""
    field = mutation.field.rsplit("/", 1)[-1]
    _, number, truth, _ = mutation.value
    if mutation.op == "set" and field in ("difficult", "iscrowd"):
        return "refused" if truth is NO else None
    if mutation.op == "set" and field in (*SIDES, *"0123"):
        return "refused" if number is NO or number is None else None
    if mutation.field in ("annotation/id", "annotation/area") and mutation.op == "drop":
        return "the same"
    return None


def tried(root, count, seed):
    """Mutate good sets so many times; count what came of them, and list the faults."""
    source, counts, faults = random.Random(seed), {"refused": 0, "read": 0}, []
    for layout in ("voc", "coco"):
        good(Path(root) / layout, layout)
    before = {layout: read(Path(root) / layout, layout)[0] for layout in ("voc", "coco")}
    for number in range(count):
        layout = source.choice(("voc", "coco"))
        place = Path(root) / layout
        files = [*(place / "Annotations").glob("*.xml"), *(place / "annotations").glob("*.json")]
        saved = {file: file.read_bytes() for file in files}
        mutation = mutate(place, layout, source)
        try:
            came = judge(mutation, before[layout], place)
        except Exception as error:
            came = f"{type(error).__name__}: {error}, by {mutation}"
        if came in counts:
            counts[came] += 1
        else:
            faults.append(f"mutation {number}: {came}" + f", by {mutation}" * (came in ("unclear", "needless")))
        for file, content in saved.items():
            file.write_bytes(content)
    return counts, faults
