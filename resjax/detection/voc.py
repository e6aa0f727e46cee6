"""Annotated images in PASCAL VOC's layout, with `JPEGImages`, `Annotations` and `ImageSets/Main`.

These three may also be in subfolders of the given path, such as VOC2007 and VOC2012. The name of a set is then
FOLDER/SET. Several sets can be combined, as in the paper's 07+12.
"""

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from resjax.data.decode import EXTENSIONS
from resjax.detection.annotations import AnnotatedFiles, Stated
from resjax.detection.fields import CONTROL, AnnotationEntry
from resjax.detection.stated import StatedImage, annotate_images, check_in_pixels, class_number, otherwise_spelled
from resjax.system.errors import BadInput, check
from resjax.system.files import regular

VOC_CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
               "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
SIDES = tuple(f"bndbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax"))
DECLARED = re.compile(r"""<\?xml[^>]*?\sencoding\s*=\s*["']([\w.:-]+)["']""", re.ASCII)


class Note(NamedTuple):
    """An annotation, with the root of its set, its name in the list, and its entries for the image and each object."""

    base: Path
    name: str
    image: AnnotationEntry
    objects: list[AnnotationEntry]


def read_voc(path: Path, sets: Sequence[str], classes: Sequence[str] = ()) -> AnnotatedFiles:
    """Read the annotations of the named sets.

    Without `classes`, VOC's 20 classes are used or, if other classes occur, the classes that occur. Raises BadInput,
    naming file, entry and field, for a missing or empty list, a missing or invalid annotation, an image that is missing
    or whose size differs from the stated one, a class that is not in `classes`, or a box outside of its image.
    `remarks` mention annotations that are left out, such as boxes without area, or ambiguous.
    """
    notes = [read_note(base, name) for each in sets for base, name in read_list(path, each)]
    names = {thing.name("name") for note in notes for thing in note.objects}
    known = tuple(classes) or (VOC_CLASSES if names <= set(VOC_CLASSES) else tuple(sorted(names)))
    find = cache(images_by_stem)  # for this call only, because images may be added later
    return annotate_images(known, [stated_image(note, picture_of(note, find), known) for note in notes],
                           [otherwise_spelled(names, known)])


def read_list(path: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Read a list of images. Yield the root of its set with each name. Raises BadInput if the list is missing or empty.

    A line is a name, followed by a flag in lists for a single class. A name may contain spaces or a file extension.
    """
    base = (path / name).parent
    file = base / "ImageSets" / "Main" / f"{Path(name).name}.txt"
    try:
        content = regular(file).read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot read this list of images ({error.strerror}); {sets_of(path)}") from None
    lines = [line.strip() for line in content.decode(json.detect_encoding(content), "replace").splitlines()]
    check(any(lines), f"{file}: this list names no images")
    for line in filter(None, lines):
        check(not CONTROL.search(line), f"{file}: {line!r} is not the name of an image")
        first = line.split()[0]
        words = [line, re.sub(r"\s+(-1|0|1)$", "", line), first]
        names = [*words, *(word[:-len(Path(word).suffix)] for word in words if word.lower().endswith(EXTENSIONS))]
        yield base, next((each for each in names if annotation_of(base, each).exists()), first)


def sets_of(path: Path) -> str:
    """Describe which sets a folder contains, or what such a folder should contain."""
    lists = sorted(file.relative_to(path) for base in ("", "*/") for file in path.glob(f"{base}ImageSets/Main/*.txt"))
    names = ", ".join(str(file.parents[2] / file.stem) for file in lists[:8])
    if names:
        return f"the available sets are {names}; choose them with --data.train and --data.test"
    coco = "; for COCO's annotations, use coco:PATH" if (path / "annotations").is_dir() else ""
    return ("VOC's layout has JPEGImages, Annotations and ImageSets/Main in PATH, or in folders of PATH such as VOC2007"
            f"{coco}")


def annotation_of(base: Path, name: str) -> Path:
    """Return the path of an image's annotation."""
    return base / "Annotations" / f"{name}.xml"


def read_note(base: Path, name: str) -> Note:
    """Read an annotation. Raises BadInput if it is missing or not XML."""
    file = annotation_of(base, name)
    try:
        root = ElementTree.fromstring(decoded(file))
    except OSError as error:
        raise BadInput(f"{file}: cannot read this annotation ({error.strerror}), "
                       "although an image list names it") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise BadInput(f"{file}: incomplete or invalid annotation ({error})") from None
    objects = [AnnotationEntry(file, f"object {i}", dict(texts_of(thing)))
               for i, thing in enumerate(root.iter("object"), 1)]
    return Note(base, name, AnnotationEntry(file, "its head", dict(texts_of(root))), objects)


def decoded(file: Path) -> str:
    """Decode XML in its declared or detected encoding. Raises ValueError if the bytes do not match the encoding."""
    content = file.read_bytes()
    if content.startswith("<?xml".encode("cp037")):
        encoding, start = "cp037", content[:200].decode("cp037")
    else:
        encoding = json.detect_encoding(content)  # from the byte order mark or the position of the first zeros
        start = content[:200].decode(encoding, "replace")
    declared = DECLARED.match(start)
    if declared and encoding in ("utf-8", "cp037"):
        encoding = declared[1]
    try:
        return content.decode(encoding)
    except LookupError as error:
        raise ValueError(error) from None


def texts_of(element: ElementTree.Element, path: str = "") -> dict[str, Any]:
    """Collect the strings inside an element by tag path, except those of objects."""
    merged: dict[str, Any] = {}
    for part in element:
        if part.tag != "object":
            texts = {path + part.tag: (part.text or "").strip(), **texts_of(part, f"{path}{part.tag}/")}
            merged |= {tag: text if merged.get(tag, text) == text else [merged[tag], text]
                       for tag, text in texts.items()}
    return merged


def stated_image(note: Note, picture: Path, classes: Sequence[str]) -> StatedImage:
    """Read the fields of an annotation."""
    size = note.image.pixels("size/height"), note.image.pixels("size/width")
    return StatedImage(str(note.image.file), picture, *(size if all(size) else (0, 0)),
                       [stated_object(thing, classes) for thing in note.objects])


def stated_object(thing: AnnotationEntry, classes: Sequence[str]) -> Stated:
    """Read the fields of an object. VOC counts pixels from 1, and the last pixel belongs to the box."""
    label = class_number(thing, "name", thing.name("name"), classes)
    x1, y1, x2, y2 = (thing.number(side) for side in SIDES)
    check_in_pixels((x1, y1, x2, y2), thing, "bndbox")
    (left, right), (top, bottom) = widened(x1, x2), widened(y1, y2)
    return Stated(thing.called, (left, top, right, bottom), label, difficult=thing.truth("difficult"))


def widened(one: float, other: float) -> tuple[float, float]:
    """Subtract one pixel from the lower of two coordinates. Equal coordinates stay, because their box is empty."""
    return one - 1 if one < other else one, other - 1 if other < one else other


def picture_of(note: Note, find: Callable[[Path], dict[str, tuple[str, ...]]]) -> Path:
    """Find the file of an image by its name in the list, with any image extension, or in the annotation."""
    usual = note.base / "JPEGImages" / f"{note.name}.jpg"
    if usual.exists():
        return usual
    stated = note.image.said("filename")
    stated = Path(stated.replace("\\", "/")).name if isinstance(stated, str) and not CONTROL.search(stated) else ""
    names = find(usual.parent)
    same = names.get(usual.stem, ())
    chosen = stated if stated in same or not same else same[0]
    check(len(same) <= 1 or chosen == stated, f"{note.image.file}, filename: {stated or 'nothing'!r} does not say "
                                              f"which of {', '.join(same)} it means")
    if not chosen or chosen not in names.get(Path(chosen).stem, ()):
        nor = (f"; {stated!r}, which {note.image.file} names, cannot be read either" if stated not in ("", usual.name)
               else "")
        raise BadInput(f"{usual}: cannot read this image (No such file or directory){nor}")
    return usual.with_name(chosen)


def images_by_stem(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the names of the image files in a folder, by name without extension."""
    by_stem: dict[str, tuple[str, ...]] = {}
    for name in sorted(file.name for file in folder.iterdir()) if folder.is_dir() else ():
        if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
            by_stem[Path(name).stem] = (*by_stem.get(Path(name).stem, ()), name)
    return by_stem
