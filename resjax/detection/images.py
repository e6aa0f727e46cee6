"""Makes batches from images of any size, by padding each image to one of at most four sizes.

Each batch depends only on the images, the seed and the step. An image is resized, and then padded with the mean colour
to the smallest of these sizes into which it fits. All images of a batch have the same padded size, so XLA compiles each
function for at most four sizes.
"""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import cv2
import numpy as np

from resjax.data.preprocessing import one_thread_each
from resjax.detection.annotations import Annotated, AnnotatedImages
from resjax.detection.coco import read_coco
from resjax.detection.config import Scenery
from resjax.detection.scenes import compose_scenes
from resjax.detection.targets import Objects
from resjax.detection.voc import read_voc
from resjax.system.errors import check
from resjax.system.files import expanded

AHEAD = 2  # number of prefetched batches
MULTIPLE = 16  # sides are multiples of this number, the largest stride of a shared map
Size = tuple[int, int]  # height, width


class Level(NamedTuple):
    """Images uint8 `[batch, height, width, 3]` at one scale; `sizes` `[batch, 2]` are their sizes without padding."""

    images: Any  # NumPy on the host, JAX on the device
    sizes: Any


class AnnotatedBatch(NamedTuple):
    """Images uint8 `[batch, height, width, 3]`, their `sizes` `[batch, 2]` without padding, and their objects."""

    images: np.ndarray
    sizes: np.ndarray
    objects: Objects


def open_annotated(data: Scenery, train: bool, classes: Sequence[str] = ()) -> AnnotatedImages:
    """Read the annotations of the training or test images. Raises BadInput, naming the invalid annotation."""
    kind, _, path = data.source.partition(":")
    sets = data.train if train else data.test
    if kind == "scenes":
        return compose_scenes("train" if train else "test")
    read = read_voc if kind == "voc" else read_coco
    return read(expanded(path), sets, classes or data.classes)


def resized_size(record: Annotated, data: Scenery, scale: float = 1.0) -> Size:
    """Return the size of an image after resizing; `scale` is relative to `data.shorter_side`."""
    sides = record.height, record.width
    growth = min(data.shorter_side / min(sides), data.longer_side / max(sides))
    resized = (min(max(1, round(side * growth)), data.longer_side) for side in sides)
    height, width = (max(1, round(side * scale)) for side in resized)
    return height, width


def padded_sizes(data: Scenery) -> tuple[Size, ...]:
    """List the padded sizes, smallest first, for images of up to 4:3 and for longer ones, in both orientations."""
    short = up(data.shorter_side)
    longs = sorted({min(up(data.shorter_side * 4 / 3), up(data.longer_side)), up(data.longer_side)})
    return tuple(dict.fromkeys(size for long in longs for size in ((short, long), (long, short))))


def up(side: float) -> int:
    """Round up to a side that the network can halve four times."""
    return -int(-side // MULTIPLE) * MULTIPLE


def padded_size(size: Size, data: Scenery) -> Size:
    """Choose the first padded size into which an image fits."""
    return next(padded for padded in padded_sizes(data) if size[0] <= padded[0] and size[1] <= padded[1])


def scaled_size(padded: Size, scale: float) -> Size:
    """Return the padded size at another scale, into which a resized image of size `padded` fits."""
    return up(padded[0] * scale), up(padded[1] * scale)


def prepare_image(images: AnnotatedImages, index: int, data: Scenery, flip: bool = False,
                  scale: float = 1.0) -> tuple[np.ndarray, Annotated]:
    """Read an image and resize it with its boxes, by area averaging when shrinking and bilinearly when enlarging."""
    record, pixels = images.records[index], images.pixels(index)
    height, width = resized_size(record, data, scale)
    shrinks = height < record.height
    if (height, width) != pixels.shape[:2]:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    growth = np.array([width / record.width, height / record.height], np.float32)
    boxes = record.boxes * np.tile(growth, 2)
    if flip:
        pixels, boxes = pixels[:, ::-1], np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0],
                                                   boxes[:, 3]], 1)
    return pixels, replace(record, height=height, width=width, boxes=boxes)


def pad(prepared: Sequence[tuple[np.ndarray, Annotated]], padded: Size, ground: np.ndarray) -> Level:
    """Pad images to the size `padded` with the colour `ground`."""
    images = np.broadcast_to(np.round(ground).astype(np.uint8), (len(prepared), *padded, 3)).copy()
    for i, (pixels, _) in enumerate(prepared):
        images[i, :pixels.shape[0], :pixels.shape[1]] = pixels
    return Level(images, np.array([(record.height, record.width) for _, record in prepared], np.float32))


def assemble_batch(prepared: Sequence[tuple[np.ndarray, Annotated]], padded: Size, most: int,
                   ground: np.ndarray) -> AnnotatedBatch:
    """Pad images to the size `padded` with the colour `ground`, and pad their objects to `most`."""
    count = len(prepared)
    boxes, labels = np.zeros((count, most, 4), np.float32), np.zeros((count, most), np.int32)
    valid, crowd = np.zeros((count, most), bool), np.zeros((count, most), bool)
    for i, (_, record) in enumerate(prepared):
        counts = ~(record.difficult | record.crowd)
        objects, crowds = counts.sum(), record.crowd.sum()
        boxes[i, :objects], labels[i, :objects], valid[i, :objects] = record.boxes[counts], record.labels[counts], True
        boxes[i, objects:objects + crowds], crowd[i, objects:objects + crowds] = record.boxes[record.crowd], True
    return AnnotatedBatch(*pad(prepared, padded, ground), Objects(boxes, labels, valid, crowd))


@dataclass(frozen=True)
class Batches:
    """The training batches of a run. Images are padded with the colour `ground`."""

    images: AnnotatedImages
    data: Scenery
    batch_size: int
    seed: int
    ground: np.ndarray
    epochs: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)  # caches the last two epochs

    @cached_property
    def groups(self) -> tuple[np.ndarray, ...]:
        """Group the images by padded size, leaving out those without objects to learn from."""
        sizes: dict[Size, list[int]] = {}
        for index, record in enumerate(self.images.records):
            if np.any(~(record.difficult | record.crowd)):
                sizes.setdefault(padded_size(resized_size(record, self.data), self.data), []).append(index)
        check(bool(sizes), f"{self.data.source}: no training image contains an object, except difficult ones and "
                           "crowds")
        return tuple(np.array(sizes[size]) for size in sorted(sizes))

    @cached_property
    def most(self) -> int:
        """The largest number of objects in an image."""
        return max(len(record.boxes) for record in self.images.records)

    def rows(self, epoch: int) -> np.ndarray:
        """Divide an epoch's images into batches `[batches, batch_size]` of one padded size; the last repeats images."""
        if epoch not in self.epochs:
            while len(self.epochs) > 1:  # this and the previous epoch are requested alternately
                self.epochs.pop(next(iter(self.epochs)))
            self.epochs[epoch] = epoch_rows(self.groups, self.batch_size, self.seed, epoch)
        return self.epochs[epoch]

    def at(self, step: int, pool: ThreadPoolExecutor, process: int = 0, processes: int = 1) -> AnnotatedBatch:
        """Return the batch of a step, or this process's part of it."""
        epoch, row = divmod(step, sum(-(-len(group) // self.batch_size) for group in self.groups))
        indices = self.rows(epoch)[row]
        flips = np.random.default_rng([self.seed, epoch, row]).random(len(indices)) < (0.5 if self.data.flip else 0)
        indices, flips = (np.split(array, processes)[process] for array in (indices, flips))
        prepared = list(pool.map(
            lambda index, flip: prepare_image(self.images, index, self.data, flip), indices, flips))
        size = padded_size(resized_size(self.images.records[indices[0]], self.data), self.data)
        return assemble_batch(prepared, size, self.most, self.ground)

    def steps(self, steps: range, process: int = 0, processes: int = 1) -> Generator[AnnotatedBatch]:
        """Yield the batches of some steps. Batches are prefetched, and the images of a batch are read in parallel."""
        with one_thread_each(), ThreadPoolExecutor() as readers, ThreadPoolExecutor(1) as maker:
            waiting: deque[Future[AnnotatedBatch]] = deque()
            for step in steps:
                waiting.append(maker.submit(self.at, step, readers, process, processes))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def epoch_rows(groups: Sequence[np.ndarray], batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Permute every group, divide it into batches, and permute these."""
    random = np.random.default_rng([seed, epoch])
    rows = [np.resize(random.permutation(group), (-(-len(group) // batch_size), batch_size)) for group in groups]
    return random.permutation(np.concatenate(rows))
