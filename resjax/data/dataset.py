"""Labelled images in memory, checked once, and the splits that the paper makes of them."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from resjax.errors import BadInput


class Images(NamedTuple):
    """`pixels` uint8 `[images, height, width, channels]`, `labels` int32 `[images]`; NumPy or on the device."""

    pixels: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array


@dataclass(frozen=True)
class Dataset:
    """The splits of a source. `validation` is empty unless some training images were held out."""

    classes: tuple[str, ...]
    train: Images
    validation: Images
    test: Images


def make_dataset(source: str, classes: tuple[str, ...], train: Images, test: Images,
                 validation_images: int) -> Dataset:
    """Check the splits and hold validation images out of `train`. Raises BadInput with the source's name."""
    for split, images in (("train", train), ("test", test)):
        count, labels = len(images.pixels), np.asarray(images.labels)
        if count == 0:
            raise BadInput(f"{source}: the {split} split holds no image")
        wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
        if wrong.size:
            raise BadInput(f"{source}: image {wrong[0]} of the {split} split has label {labels[wrong[0]]}, "
                           f"and there are {len(classes)} classes: 0 ... {len(classes) - 1}")
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise BadInput(f"{source}: training images are {train.pixels.shape[1:]} and test images "
                       f"{test.pixels.shape[1:]}; set data.size so that they agree")
    if validation_images >= len(train.pixels):
        raise BadInput(f"data.validation-images is {validation_images}, "
                       f"but {source} has only {len(train.pixels)} training images")
    train, validation = hold_out(train, validation_images)
    return Dataset(classes, train, validation, test)


def hold_out(images: Images, count: int) -> tuple[Images, Images]:
    """Split off `count` images, always the same ones whatever the run's seed; the order of the rest stays."""
    chosen = np.zeros(len(images.pixels), bool)
    chosen[np.random.default_rng(0).permutation(len(chosen))[:count]] = True
    return (Images(images.pixels[~chosen], images.labels[~chosen]),
            Images(images.pixels[chosen], images.labels[chosen]))


def mean_image(images: Images) -> np.ndarray:
    """Average the pixels over a split: the per-pixel mean `[height, width, channels]`, float32, of section 3.4."""
    return np.mean(images.pixels, axis=0, dtype=np.float64).astype(np.float32)
