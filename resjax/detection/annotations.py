"""Annotated images, and the checks that apply to annotations in all layouts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from resjax.data import decode
from resjax.data.index import data_identity
from resjax.data.pictures import read_picture
from resjax.system.errors import BadInput, check

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
        file, record = self.files[index], self.records[index]
        pixels = decode(read_picture(file), str(file))
        check(pixels.shape[:2] == (record.height, record.width),
              f"{file}: this image has changed: it has {size_text(pixels.shape[:2])} pixels (width x "
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
    objects: list[tuple[np.ndarray, Stated]] = field(default_factory=list)
    """The objects, each with its box within the image."""
    left_out: list[str] = field(default_factory=list)

    def add(self, thing: Stated) -> None:
        """Add an object, but report and leave out one without area within the image.

        Raises BadInput if the object is outside of the image.
        """
        (x1, x2), (y1, y2) = sorted(thing.box[::2]), sorted(thing.box[1::2])
        where = ", ".join(filter(None, (self.name, thing.called)))
        inside = min(x1, y1) >= -ROUNDING and x2 <= self.width + ROUNDING and y2 <= self.height + ROUNDING
        if not inside and x1 != x2 and y1 != y2:
            raise BadInput(f"{where}: the box {box_text(thing.box)} is outside the image of {self.width}x"
                           f"{self.height} pixels (width x height)")
        clipped = np.array([max(x1, 0), max(y1, 0), min(x2, self.width), min(y2, self.height)], np.float32)
        if not (clipped[2:] > clipped[:2]).all():
            self.left_out.append(f"{where}: the box {box_text(thing.box)} has no area within the image and was ignored")
            return
        self.objects.append((clipped, thing))

    def record(self) -> Annotated:
        """Convert the objects to an immutable record."""
        boxes = np.array([box for box, _ in self.objects], np.float32).reshape(-1, 4)
        things = [thing for _, thing in self.objects]
        areas = [np.prod(box[2:] - box[:2]) if thing.area is None else thing.area for box, thing in self.objects]
        return Annotated(self.name, self.height, self.width, boxes,
                         np.array([thing.label for thing in things], np.int32),
                         np.array([thing.difficult for thing in things], bool),
                         np.array([thing.crowd for thing in things], bool), np.array(areas, np.float32))


def size_text(size: Sequence[int]) -> str:
    """Format a height and width, with the width first."""
    return f"{size[1]}x{size[0]}"


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
