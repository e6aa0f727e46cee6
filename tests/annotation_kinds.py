"""Annotated images as tools write them, in VOC's layout and in COCO's: a box is the bright part of a picture."""

import json
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from resjax.detection import Scenery
from resjax.detection.images import open_annotated
from resjax.system.errors import BadInput

WIDTH, HEIGHT, BRIGHT = 96, 64, 230
LANDS, REFUSED = "boxes lie on the square", "refused in a line"


def healthy():
    """Describe six images, four of them to train on: with a square each, named and numbered."""
    return [{"name": f"img{i:03d}", "suffix": ".jpg", "size": (WIDTH, HEIGHT), "stated": (WIDTH, HEIGHT), "turn": 1,
             "objects": [{"name": ("dot", "cell")[i % 2], "box": (8 + 5 * i, 6 + 3 * i, 38 + 5 * i, 34 + 3 * i),
                          "flag": 0}]} for i in range(6)]


class Kind(NamedTuple):
    """A way in which sets are: what it changes of a healthy one, and what then is right; `encoding` is the files'."""

    right: str
    change: object = lambda images: None
    encoding: str = "utf-8"
    after: object = lambda root: None


def each(**values):
    """Change every image."""
    return lambda images: [image.update(values) for image in images]


def one(**values):
    """Change the third image."""
    return lambda images: images[2].update(values)


def thing(**values):
    """Change the object of the third image."""
    return lambda images: images[2]["objects"][0].update(values)


def every_thing(**values):
    """Change every object."""
    return lambda images: [part.update(values) for image in images for part in image["objects"]]


def renamed(pattern):
    """Name the images otherwise."""
    return lambda images: [image.update(name=pattern.format(i)) for i, image in enumerate(images)]


def squares(images):
    """Make the pictures squares, stored turned."""
    each(size=(WIDTH, WIDTH), stated=(WIDTH, WIDTH), turn=7)(images)


def without_picture(root):
    """Remove a picture of the test set."""
    next(root.rglob("img005.jpg")).unlink()


def cut_off(root):
    """Cut an annotation file off."""
    file = next(file for file in sorted(root.rglob("*")) if file.name in ("img001.xml", "instances_train.json"))
    file.write_bytes(file.read_bytes()[:90])


KINDS = {
    "healthy": Kind(LANDS),
    "PNG images": Kind(LANDS, each(suffix=".png")),
    ".JPG": Kind(LANDS, each(suffix=".JPG")),
    ".jpeg": Kind(LANDS, each(suffix=".jpeg")),
    "spaces in names": Kind(LANDS, renamed("photo ({})")),
    "dots in names": Kind(LANDS, renamed("scan.2024.{:02d}")),
    "folders in names": Kind(LANDS, renamed("a/img{:03d}")),
    "names in another script": Kind(LANDS, renamed("фото{:02d}")),
    "byte order mark": Kind(LANDS, encoding="utf-8-sig"),
    "UTF-16": Kind(LANDS, encoding="utf-16"),
    "size 0": Kind(LANDS, each(stated=(0, 0))),
    "no size": Kind(LANDS, one(stated=(None, None))),
    "sizes as strings": Kind(LANDS, each(stated=("96", "64.0"))),
    "width and height exchanged": Kind(REFUSED, one(stated=(HEIGHT, WIDTH))),
    "infinite size": Kind(REFUSED, one(stated=(float("inf"), HEIGHT))),
    "a size that is no number": Kind(REFUSED, one(stated=("wide", HEIGHT))),
    "a fractional size": Kind(REFUSED, one(stated=(96.5, HEIGHT))),
    "upside down by EXIF": Kind(LANDS, each(turn=3)),
    "mirrored by EXIF": Kind(LANDS, each(turn=2)),
    "on its side by EXIF, as stored": Kind(LANDS, each(turn=6)),
    "on its side by EXIF, as seen": Kind(LANDS, each(turn=8, seen=True)),
    "square, on its side by EXIF": Kind(LANDS, squares),
    "turned by EXIF, no size": Kind(LANDS, each(turn=5, stated=(None, None))),
    "from the lower right corner": Kind(LANDS, every_thing(turned=True)),
    "corners with decimals": Kind(LANDS, every_thing(written=lambda value: value + 0.25)),
    "numbers as strings": Kind(LANDS, every_thing(written=str)),
    "3 pixels outside": Kind(REFUSED, thing(box=(60, 20, 99, 40))),
    "parts of the image": Kind(REFUSED, every_thing(parts=True)),
    "a corner that is null": Kind(REFUSED, thing(put={1: None})),
    "a corner that is a word": Kind(REFUSED, thing(put={2: "wide"})),
    "an infinite corner": Kind(REFUSED, thing(put={2: float("inf")})),
    "flags as words": Kind(LANDS, every_thing(flag="True")),
    "flags as strings": Kind(LANDS, every_thing(flag="0")),
    "no flags": Kind(LANDS, every_thing(flag=None)),
    "a flag that says nothing": Kind(REFUSED, thing(flag="maybe")),
    "a class only in the test set": Kind(REFUSED, lambda images: images[4]["objects"][0].update(name="rare")),
    "a class in capitals in the test set": Kind(LANDS, lambda images: images[4]["objects"][0].update(name="DOT")),
    "no class": Kind(REFUSED, thing(name=None)),
    "numbers as classes": Kind(LANDS, lambda images: [image["objects"][0].update(name=i % 2)
                                                      for i, image in enumerate(images)]),
    "an image without objects": Kind(LANDS, one(objects=[])),
    "an object twice": Kind(LANDS, lambda images: images[2]["objects"].extend(deepcopy(images[2]["objects"]))),
    "a box without area": Kind(LANDS, lambda images: images[2]["objects"].append(
        {"name": "dot", "box": (9, 9, 9, 9), "flag": 0})),
    "an image is missing": Kind(REFUSED, after=without_picture),
    "a file is cut off": Kind(REFUSED, after=cut_off),
}


def picture(file, image):
    """Write a noisy picture, whose objects are bright, as it is stored."""
    width, height = image["size"]
    pixels = np.random.default_rng(len(image["name"])).integers(0, 90, (height, width, 3), dtype=np.uint8)
    for part in image.get("painted", ()):
        x1, y1, x2, y2 = part
        pixels[y1:y2, x1:x2] = BRIGHT
    picture = Image.fromarray(pixels)
    if image.get("seen"):  # boxes are of the upright picture: store it turned back
        picture = picture.transpose({8: Image.Transpose.ROTATE_270}[image["turn"]])
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = picture.getexif()
    exif[0x0112] = image["turn"]
    kind = "PNG" if file.suffix == ".png" else "JPEG"
    picture.save(file, kind, exif=exif, quality=95)


def described(kind):
    """Describe a set of a kind."""
    images = healthy()
    for image in images:
        image["painted"] = [part["box"] for part in image["objects"]]
    KINDS[kind].change(images)
    return images


def write(root, layout, kind):
    """Write a set of a kind in a layout, "voc" or "coco"; return what is read of it: source, training and test sets."""
    root, images = Path(root), described(kind)
    (write_voc if layout == "voc" else write_coco)(root, images, KINDS[kind].encoding)
    KINDS[kind].after(root)
    return f"{layout}:{root}", ("train",), ("test" if layout == "voc" else "val",)


def tag(name, value):
    """Write an element, or none of nothing."""
    return "" if value is None else f"<{name}>{escape(str(value))}</{name}>"


def write_voc(root, images, encoding):
    """Write XML for each image, and two lists."""
    for image in images:
        picture(root / "JPEGImages" / f"{image['name']}{image['suffix']}", image)
        things = "".join("<object>" + tag("name", part["name"]) + tag("difficult", part["flag"]) + "<bndbox>" + "".join(
            map(tag, ("xmin", "ymin", "xmax", "ymax"), numbers(part, "voc"))) + "</bndbox></object>"
            for part in image["objects"])
        size = "".join(map(tag, ("width", "height"), image["stated"]))
        file = root / "Annotations" / f"{image['name']}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        text = f"<annotation>{tag('filename', Path(image['name']).name + image['suffix'])}<size>{size}</size>{things}"
        file.write_text(f"{text}</annotation>", encoding)
    folder = root / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    for name, part in (("train", images[:4]), ("test", images[4:])):
        (folder / f"{name}.txt").write_text("".join(f"{image['name']}\n" for image in part), encoding)


def numbers(part, layout):
    """Write a box: VOC's corners count from 1 on, with the last pixel; COCO has a corner and sides."""
    x1, y1, x2, y2 = part["box"]
    if layout == "voc":
        found = [x1 + (x1 < x2), y1 + (y1 < y2), x2, y2]
        found = [*found[2:], *found[:2]] if part.get("turned") else found
    else:
        found = [x2, y2, x1 - x2, y1 - y2] if part.get("turned") else [x1, y1, x2 - x1, y2 - y1]
    if part.get("parts"):
        found = [value / side for value, side in zip(found, (WIDTH, HEIGHT) * 2, strict=True)]
    put, written = part.get("put", {}), part.get("written", lambda value: value)
    return [put.get(i, written(value)) for i, value in enumerate(found)]


def write_coco(root, images, encoding):
    """Write one JSON for each of two sets."""
    for name, part in (("train", images[:4]), ("val", images[4:])):
        content = coco_content(part)
        for image in part:
            picture(root / name / f"{image['name']}{image['suffix']}", image)
        file = root / "annotations" / f"instances_{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content, ensure_ascii=False), encoding)


def coco_content(images):
    """Describe images as COCO does."""
    names = sorted({part["name"] for image in images for part in image["objects"]} | {"dot", "cell"}, key=str)
    objects = [(i, part) for i, image in enumerate(images) for part in image["objects"]]
    flags = [{} if part["flag"] is None else {"iscrowd": part["flag"]} for _, part in objects]
    return {"images": [{"id": i, "file_name": f"{image['name']}{image['suffix']}", "width": image["stated"][0],
                        "height": image["stated"][1]} for i, image in enumerate(images)],
            "annotations": [{"id": 100 + k, "image_id": i, "category_id": names.index(part["name"]), "area": 840,
                             "bbox": numbers(part, "coco"), **flags[k]} for k, (i, part) in enumerate(objects)],
            "categories": [{"id": k, "name": name} for k, name in enumerate(names)]}


def outcome(root, layout, kind):
    """Write a set and read it: what came of it, and how many boxes there are; any exception but BadInput passes."""
    source, train, test = write(root, layout, kind)
    data = Scenery(source=source, train=train, test=test)
    try:
        learnt = open_annotated(data, train=True)
        sets = (learnt, open_annotated(data, train=False, classes=learnt.classes))
        pairs = [(images.pixels(i), box) for images in sets for i, record in enumerate(images.records)
                 for box in record.boxes.round().astype(int)]
    except BadInput as error:
        return (REFUSED if "\n" not in str(error) and str(root) in str(error) else f"unclear: {error}"), 0
    dark = min(pixels[y1:y2, x1:x2].mean() for pixels, (x1, y1, x2, y2) in pairs)
    return (LANDS if dark > 200 else f"brightness {dark:.0f}"), len(pairs)
