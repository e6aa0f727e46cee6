"""Annotated images, and the checks that apply to annotations in all layouts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from resjax.data import decode
from resjax.data.index import data_identity
from resjax.system.errors import BadInput, check
from resjax.system.files import regular

ROUNDING = 1.0  # pixels by which boxes may exceed the image, since data sets count from 0 or from 1


@dataclass(frozen=True)
class Annotated:
    """An image's name, size in pixels and objects, with float32 boxes `[n, 4]` and classes `[n]`, counted from 1.

    `difficult` `[n]` marks objects that need not be found (VOC), and `crowd` `[n]` marks regions with many objects
    (COCO). Neither kind is used for training. `areas` `[n]` are the areas of the objects' outlines (COCO).
    """

    name: str
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray


class AnnotatedImages(Protocol):
    """A set of annotated images, whose pixels are read on demand."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def records(self) -> Sequence[Annotated]: ...

    @property
    def remarks(self) -> Sequence[str]:
        """Remarks on annotations that were left out or are ambiguous."""
        ...

    def pixels(self, index: int) -> np.ndarray:
        """Read an image as uint8 RGB `[height, width, 3]`. Raises BadInput if it is missing or incomplete."""
        ...


@dataclass(frozen=True)
class AnnotatedFiles:
    """Annotated images in separate files, as in VOC's and COCO's layouts."""

    classes: tuple[str, ...]
    records: tuple[Annotated, ...]
    files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()

    def pixels(self, index: int) -> np.ndarray:
        """Read an image and rotate it upright. Raises BadInput if it is missing or incomplete, or has changed in
        size.
        """
        pixels, record = read_image(self.files[index]), self.records[index]
        check(pixels.shape[:2] == (record.height, record.width),
              f"{self.files[index]}: this image has changed: it has {size_text(pixels.shape[:2])} pixels (width x "
              f"height) instead of {size_text((record.height, record.width))}")
        return pixels


class Stated(NamedTuple):
    """An object as stated in a file: two opposite corners (x1, y1, x2, y2) in pixels from the upper left corner.

    `called` is its name in messages.
    """

    called: str
    box: Sequence[float]
    label: int
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


@dataclass
class Drawn:
    """Collects the objects of one image."""

    name: str
    height: int
    width: int
    boxes: list[tuple[float, ...]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, thing: Stated) -> None:
        """Add an object, but report and leave out one without area. Raises BadInput if it is outside of the image."""
        (x1, x2), (y1, y2) = sorted(thing.box[::2]), sorted(thing.box[1::2])
        where = ", ".join(filter(None, (self.name, thing.called)))
        if x1 == x2 or y1 == y2:
            self.left_out.append(f"{where}: the box {box_text(thing.box)} has no area and was ignored")
            return
        if not (min(x1, y1) >= -ROUNDING and x2 <= self.width + ROUNDING and y2 <= self.height + ROUNDING):
            raise BadInput(f"{where}: the box {box_text(thing.box)} is outside the image of {self.width}x"
                           f"{self.height} pixels (width x height)")
        clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, self.width), min(y2, self.height))
        self.boxes.append(clipped)
        self.labels.append(thing.label)
        self.difficult.append(thing.difficult)
        self.crowd.append(thing.crowd)
        self.areas.append((clipped[2] - clipped[0]) * (clipped[3] - clipped[1]) if thing.area is None else thing.area)

    def record(self) -> Annotated:
        """Convert the objects to an immutable record."""
        boxes = np.array(self.boxes, np.float32).reshape(-1, 4)
        return Annotated(self.name, self.height, self.width, boxes, np.array(self.labels, np.int32),
                         np.array(self.difficult, bool), np.array(self.crowd, bool),
                         np.array(self.areas, np.float32))


def size_text(size: Sequence[int]) -> str:
    """Format a height and width, with the width first."""
    return f"{size[1]}x{size[0]}"


def read_image(file: Path) -> np.ndarray:
    """Read an image file as uint8 RGB `[height, width, 3]`. Raises BadInput if it is missing or incomplete."""
    try:
        encoded = regular(file).read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot read this image ({error.strerror})") from None
    return decode(encoded, str(file))


def identity_of(train: AnnotatedImages, test: AnnotatedImages) -> dict[str, Any]:
    """Describe the images by classes, counts, and digests of names, sizes and objects, but not by their location."""
    return data_identity(train.classes, map(annotations_digest, (train, test)), len(train.records), len(test.records))


def annotations_digest(images: AnnotatedImages) -> bytes:
    """Hash the annotations."""
    sha = hashlib.sha256()
    for record in images.records:
        sha.update(f"{Path(record.name).name} {record.height} {record.width}".encode())
        for array in (record.boxes, record.labels, record.difficult, record.crowd):
            sha.update(array.tobytes())
    return sha.digest()


def box_text(box: Sequence[float]) -> str:
    """Format the coordinates of a box."""
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"
