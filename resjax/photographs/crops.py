"""Pure functions on one decoded image, uint8 `[height, width, 3]`: where to crop, and the crop at its size."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from resjax.experiment import Photographs

cv2.setNumThreads(0)  # the images of a batch are decoded side by side, each on one core


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: float
    left: float
    height: float
    width: float


def random_box(height: int, width: int, data: Photographs, random: np.random.Generator) -> Box:
    """Draw the part of an image that becomes a training crop.

    scale: the square that a crop of `size` covers once the shorter side is resized to S, drawn from `shorter_side`.
    area: a part of 8 to 100 % of the area with an aspect ratio of 3:4 to 4:3, or after ten tries the centre.
    """
    if data.crop == "scale":
        side = data.size * min(height, width) / random.integers(*data.shorter_side, endpoint=True)
        return Box(random.uniform(0, height - side), random.uniform(0, width - side), side, side)
    for _ in range(10):
        area = height * width * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        tall, wide = math.sqrt(area / ratio), math.sqrt(area * ratio)
        if tall <= height and wide <= width:
            return Box(random.uniform(0, height - tall), random.uniform(0, width - wide), tall, wide)
    tall, wide = min(height, width * 4 / 3), min(width, height * 4 / 3)
    return Box((height - tall) / 2, (width - wide) / 2, tall, wide)


def cut(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Resize a part of an image to `[size, size, 3]`."""
    top, left = round(box.top), round(box.left)
    part = image[top:top + max(1, round(box.height)), left:left + max(1, round(box.width))]
    return resize(part, size, size)


def resize_shorter_side(image: np.ndarray, side: int) -> np.ndarray:
    """Resize so that the shorter side is `side`, at the same aspect ratio."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    return resize(image, max(side, round(height * scale)), max(side, round(width * scale)))


def centre_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop the centre."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top:top + height, left:left + width]


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize: linearly, and averaging over areas where that shrinks, so that nothing is aliased."""
    shrinks = height < image.shape[0] or width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
