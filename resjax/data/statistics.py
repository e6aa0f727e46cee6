"""Computes the training set's mean image and the principal components of its colours once, and caches them."""

import hashlib
from functools import partial
from typing import NamedTuple

import numpy as np

from resjax.data.image_files import ImageFiles
from resjax.data.preprocessing import of_run
from resjax.data.stream import planned_batches
from resjax.experiment import Photographs
from resjax.system.errors import BadInput, check
from resjax.system.files import cached
from resjax.system.progress import chunks, track

CHUNK = 256  # images per task of a worker


class Statistics(NamedTuple):
    """`mean` `[size, size, 3]` is the per-pixel mean. The columns of `colours` `[3, 3]` are the principal components of
    all pixels' RGB values, scaled by their standard deviations. Both are float32, for pixels from 0 to 255.
    """

    mean: np.ndarray
    colours: np.ndarray


class Sums(NamedTuple):
    """Exact sums over images: pixels `[size, size, 3]`, colour products `[3, 3]`, the count, and unreadable images."""

    pixels: np.ndarray
    products: np.ndarray
    images: int
    broken: list[str]


def measure_statistics(train: ImageFiles, data: Photographs) -> Statistics:
    """Compute the statistics of the training images' centre crops, or load those of the same, unmodified files from the
    cache.

    Raises BadInput, naming the images, if more images are unreadable than `data.broken_images` allows.
    """
    parts = (data.size, data.test_shorter_side, data.resize, data.broken_images, train.state())
    key = hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()
    arrays = cached("statistics", key, lambda: sum_over_images(train, data)._asdict())
    return Statistics(**arrays)


def sum_over_images(files: ImageFiles, data: Photographs) -> Statistics:
    """Sum over all images in integer arithmetic, so that the result does not depend on the number of workers."""
    ranges = chunks(len(files.labels), CHUNK)
    total = Sums(np.zeros((data.size, data.size, 3), np.int64), np.zeros((3, 3), np.int64), 0, [])
    with planned_batches(ranges, partial(sum_up, files, data), data.workers, 3 * 8 * data.size**2) as sums:
        for part in track(sums, "mean image", len(ranges), CHUNK):
            total = Sums(*(before + new for before, new in zip(total, part, strict=True)))
            check_broken(total.broken, data.broken_images)
    if not total.images:
        raise BadInput(f"{data.source}: none of its {len(files.labels)} training images is readable: {total.broken[0]}")
    pixels = total.images * data.size**2
    mean = total.pixels.sum((0, 1)) / pixels
    variances, axes = np.linalg.eigh(total.products / pixels - np.outer(mean, mean))
    return Statistics((total.pixels / total.images).astype(np.float32),
                      (axes * np.sqrt(np.maximum(variances, 0))).astype(np.float32))


def sum_up(files: ImageFiles, data: Photographs, chunk: range) -> Sums:
    """Sum over a subset of the images."""
    pixels, products = np.zeros((data.size, data.size, 3), np.int64), np.zeros((3, 3), np.int64)
    broken: list[str] = []
    preprocessing = of_run(data, np.zeros(pixels.shape))
    for index in chunk:
        try:
            crop = preprocessing.prepare(files.read(index), files.name(index))
        except BadInput as error:
            broken.append(str(error))
            continue
        pixels += crop
        colours = crop.reshape(-1, 3).astype(np.float64)
        products += (colours.T @ colours).astype(np.int64)  # exact, because all sums are below 2**53
    return Sums(pixels, products, len(chunk) - len(broken), broken)


def check_broken(broken: list[str], limit: int) -> None:
    """Raise BadInput if too many images are unreadable."""
    check(len(broken) <= limit, f"{len(broken)} images are unreadable, but data.broken-images allows {limit}: "
                                f"{'; '.join(broken)}")
