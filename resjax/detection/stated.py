"""Converts annotations of any layout to records of objects on upright images, that is, images rotated as EXIF says."""

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from resjax.data import Header, file_header, upright_boxes
from resjax.data.classes import composed, place_of
from resjax.detection.annotations import Annotated, AnnotatedFiles, AnnotatedImages, Drawn, Stated, box_text, size_text
from resjax.detection.fields import AnnotationEntry
from resjax.system.errors import BadInput, check
from resjax.system.progress import track


class StatedImage(NamedTuple):
    """An image as stated in an annotation file; a height or width of 0 means that it is not stated."""

    name: str
    file: Path
    height: int
    width: int
    objects: list[Stated]


def annotate_images(classes: tuple[str, ...], images: Sequence[StatedImage], remarks: Iterable[str]) -> AnnotatedFiles:
    """Read the header of every image, and convert the stated objects to pixels of the upright images.

    Raises BadInput, naming the problem, for an image that is missing or whose size differs from the stated one, or for
    a box outside of its image. A photograph may be stored rotated, with an EXIF orientation. Its boxes are assumed to
    refer to the stored pixels and are then rotated too, unless the stated size fits only the upright image. If the
    stated size fits both or no size is stated, a remark mentions the assumption.
    """
    with ThreadPoolExecutor() as pool:
        headers = list(track(pool.map(file_header, (image.file for image in images)), "reading image headers",
                             len(images)))
    pairs = [(image, *stated_header(image, header)) for image, header in zip(images, headers, strict=True)]
    drawn = [place_objects(image, header) for image, header, _ in pairs]
    records = tuple(turn_upright(part.record(), header) for part, (_, header, _) in zip(drawn, pairs, strict=True))
    texts = [*remarks, *(text for part in drawn for text in part.left_out), *remarks_on_duplicates(images),
             remark_on("image", "without a stated size, which was read from the file instead",
                       [image.name for image in images if not image.height]),
             remark_on("image", "rotated by EXIF, with a stated size that does not show whether the boxes are rotated "
                       "too; they are assumed to refer to the stored "
                       "pixels", [image.name for image, _, sure in pairs if not sure]),
             remark_on("object", "whose box does not start at the upper left corner; it is read as the same rectangle",
                       [f"{image.name}, {thing.called}" for image in images for thing in image.objects
                        if thing.box[0] > thing.box[2] or thing.box[1] > thing.box[3]])]
    return AnnotatedFiles(classes, records, tuple(image.file for image in images), tuple(filter(None, texts)))


def stated_header(image: StatedImage, header: Header) -> tuple[Header, bool]:
    """Return size and orientation of the pixels that boxes refer to, and whether both are certain.

    Raises BadInput if the image's size differs from the stated one.
    """
    stated, stored = (image.height, image.width), (header.height, header.width)
    if stated == header.upright != stored:
        return Header(*stated, 1), True
    turned = f"; EXIF rotates it to {size_text(header.upright)}" if header.upright != stored else ""
    check(stated in (stored, (0, 0)), f"{image.name}: the image {image.file.name} has {size_text(stored)} pixels "
                                      f"(width x height){turned}, but its annotation says {size_text(stated)}")
    return header, header.turn == 1 or stated == stored != header.upright


def place_objects(image: StatedImage, header: Header) -> Drawn:
    """Convert an image's objects to its stored pixels."""
    drawn = Drawn(image.name, header.height, header.width)
    for thing in image.objects:
        drawn.add(thing)
    return drawn


def turn_upright(record: Annotated, header: Header) -> Annotated:
    """Rotate the objects of a stored image to the upright image."""
    height, width = header.upright
    return replace(record, height=height, width=width, boxes=upright_boxes(record.boxes, header))


def remarks_on_duplicates(images: Sequence[StatedImage]) -> list[str]:
    """Remark on images that are listed twice, and on duplicate objects."""
    files = Counter(image.file for image in images)
    boxes = [(image.name, Counter((*thing.box, thing.label) for thing in image.objects)) for image in images]
    return [remark_on("image", "listed more than once; each listing counts", [str(f) for f in files if files[f] > 1]),
            remark_on("object", "annotated more than once, with the same box and class; each annotation counts",
                      [name for name, count in boxes for thing in count if count[thing] > 1])]


def remark_on_leakage(train: AnnotatedImages, test: AnnotatedImages) -> str:
    """Remark on images in both the training and the test set."""
    both = set(getattr(train, "files", ())) & set(getattr(test, "files", ()))
    return remark_on("image", "used for both training and testing, so the test result is too good",
                     sorted(map(str, both)))


def remark_on(noun: str, text: str, names: Sequence[str]) -> str:
    """Return a remark on a number of things that names one of them; empty if there are none."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{len(names)} {noun if len(names) == 1 else plural} {text} (such as {names[0]})" if names else ""


def class_number(entry: AnnotationEntry, field: str, name: str, classes: Sequence[str]) -> int:
    """Return the number of a class, counted from 1. Raises BadInput, listing the classes, for an unknown class."""
    place = place_of(name, classes)
    if place is None:
        raise BadInput(f"{entry.file}, {entry.called}: {field}: unknown class {name!r}; the classes are "
                       f"{', '.join(classes)}")
    return place + 1


def otherwise_spelled(names: Iterable[str], classes: Sequence[str]) -> str:
    """Remark on class names that are matched despite another spelling."""
    spellings = [f"{name!r} for {classes[place]!r}" for name in sorted(set(names))
                 if (place := place_of(name, classes)) is not None and composed(classes[place]) != name]
    return remark_on("class", "spelled differently than in training", spellings)


def check_in_pixels(box: Sequence[float], entry: AnnotationEntry, field: str) -> None:
    """Raise BadInput for a box with coordinates relative to the image, from 0 to 1."""
    if all(0 <= value <= 1 for value in box) and not all(value.is_integer() for value in box):
        raise BadInput(f"{entry.file}, {entry.called}: {field} is {box_text(box)}, relative to the image; it must be "
                       "in pixels")
