"""Images in PASCAL VOC's layout: `JPEGImages`, `Annotations`, `ImageSets/Main`.

A folder of sets such as VOC2007 may lie in the path; then a set is FOLDER/SET, and several can be named (07+12).
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from resjax.detection.annotations import AnnotatedFiles, Drawn, class_number
from resjax.system.errors import BadInput, check
from resjax.system.files import regular

VOC_CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
               "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")


def read_voc(path: Path, sets: Sequence[str], classes: Sequence[str] = ()) -> AnnotatedFiles:
    """Read the annotations of some sets. Without `classes`, all those that are annotated count, by the alphabet.

    Raises BadInput, naming file and value, for a missing or empty list, a missing or broken annotation, a class that is
    not among `classes`, or a box outside its image. A box without area is left out, and named in `left_out`.
    """
    listed = [(path / name).parent / image for name in sets for image in read_list(path, name)]
    annotations = [read_xml(place.parent / "Annotations" / f"{place.name}.xml") for place in listed]
    names = {text(thing, "name", str(file)) for file, root in annotations for thing in root.iter("object")}
    known = tuple(classes) or (VOC_CLASSES if names <= set(VOC_CLASSES) else tuple(sorted(names)))
    drawn = [read_annotation(file, root, known) for file, root in annotations]
    files = tuple(place.parent / "JPEGImages" / f"{place.name}.jpg" for place in listed)
    left_out = tuple(text for image in drawn for text in image.left_out)
    return AnnotatedFiles(known, tuple(image.record() for image in drawn), files, left_out)


def read_list(path: Path, name: str) -> list[str]:
    """Read the names of a set's images. Raises BadInput where there is no such list, or nothing in it."""
    file = (path / name).parent / "ImageSets" / "Main" / f"{Path(name).name}.txt"
    try:
        images = [line.split()[0] for line in regular(file).read_text(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        raise BadInput(f"{file}: this list of images cannot be read ({error.strerror}); a set is named FOLDER/SET, or "
                       "SET where ImageSets lies in the path itself") from None
    check(bool(images), f"{file}: this list names no images")
    odd = next((image for image in images if not image.isprintable()), None)
    check(odd is None, f"{file}: {odd!r} is no name of an image")
    return images


def read_xml(file: Path) -> tuple[Path, ElementTree.Element]:
    """Parse an annotation. Raises BadInput where it is missing or no XML."""
    try:
        return file, ElementTree.parse(file).getroot()
    except OSError as error:
        raise BadInput(f"{file}: this annotation cannot be read ({error.strerror}), and a list names it") from None
    except ElementTree.ParseError as error:
        raise BadInput(f"{file}: not a whole annotation ({error})") from None


def read_annotation(file: Path, root: ElementTree.Element, classes: Sequence[str]) -> Drawn:
    """Read the objects of one annotation."""
    name = str(file)
    drawn = Drawn(name, int(value(root, "size/height", name)), int(value(root, "size/width", name)))
    check(drawn.height > 0 and drawn.width > 0, f"{name}: size is {drawn.width}x{drawn.height}; it must be above 0")
    for thing in root.iter("object"):
        x1, y1, x2, y2 = (value(thing, f"bndbox/{side}", name) for side in ("xmin", "ymin", "xmax", "ymax"))
        point = x1 >= x2 or y1 >= y2  # one pixel wide, or turned around: nothing that anyone drew
        box = (x1, y1, x2, y2) if point else (x1 - 1, y1 - 1, x2, y2)
        difficult = thing.findtext("difficult", "0").strip() == "1"
        label = class_number(classes, text(thing, "name", name), name)
        drawn.add(box, label, difficult=difficult)
    return drawn


def text(element: ElementTree.Element, tag: str, name: str) -> str:
    """Return what stands in a tag. Raises BadInput where it is missing."""
    found = element.findtext(tag)
    if found is None or not found.strip():
        raise BadInput(f"{name}: <{element.tag}> has no <{tag}>")
    return found.strip()


def value(element: ElementTree.Element, tag: str, name: str) -> float:
    """Return the number in a tag. Raises BadInput where there is none."""
    try:
        return float(text(element, tag, name))
    except ValueError as error:
        raise BadInput(f"{name}: <{tag}> is no number ({error})") from None
