"""Resizes, crops and normalises images for training, evaluation and prediction."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from PIL import Image

from resjax.data.decode import decode, dimensions
from resjax.data.resampling import resize_as_torch
from resjax.experiment import Data, Photographs, Resize
from resjax.system.errors import check

Crop = Literal["floor", "half-even"]  # how the offset of a centre crop is rounded


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Limit OpenCV to one thread inside a block in which images are decoded in parallel."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: float
    left: float
    height: float
    width: float


def random_box(height: int, width: int, data: Photographs, random: np.random.Generator) -> Box:
    """Draw the rectangle of an image that becomes a training crop.

    scale: a square that a crop of `size` covers after the shorter side is resized to a length drawn from
    `shorter_side`. area: 8 to 100 % of the area with an aspect ratio of 3:4 to 4:3, or the centre after ten failed
    attempts.
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


def cut(image: np.ndarray, box: Box, size: int, rule: Resize = "area") -> np.ndarray:
    """Resize a rectangle of an image to `[size, size, 3]`."""
    top, left = (min(round(start), side - 1) for start, side in zip(box[:2], image.shape, strict=False))
    part = image[top:top + max(1, round(box.height)), left:left + max(1, round(box.width))]
    return resize(part, size, size, rule)


def resize_shorter_side(image: np.ndarray, side: int, rule: Resize = "area") -> np.ndarray:
    """Resize the shorter side to `side`, keeping the aspect ratio.

    The length of the longer side is rounded or, with Pillow's rules, rounded down as in torchvision.
    """
    height, width = (max(side, scaled(length, side, min(image.shape[:2]), rule)) for length in image.shape[:2])
    return resize(image, height, width, rule)


def scaled(length: int, side: int, shorter: int, rule: Resize) -> int:
    """Return the length of a side after resizing the shorter side to `side`."""
    return (round if rule == "area" else int)(side * length / shorter)


def centre_crop(image: np.ndarray, height: int, width: int, rule: Crop = "floor") -> np.ndarray:
    """Crop the centre. Half a pixel rounds down as in transformers, or half to even as in torchvision and timm."""
    above, beside = (image.shape[0] - height) / 2, (image.shape[1] - width) / 2
    top, left = (round(above), round(beside)) if rule == "half-even" else (int(above), int(beside))
    return image[top:top + height, left:left + width]


def crop_and_resize(image: np.ndarray, height: int, width: int, rule: Resize) -> np.ndarray:
    """Crop the largest centred rectangle with the aspect ratio of `height` to `width`, and resize it if necessary."""
    if image.shape[:2] == (height, width):
        return image
    scale = min(image.shape[0] / height, image.shape[1] / width)
    return resize(centre_crop(image, max(1, round(scale * height)), max(1, round(scale * width))), height, width, rule)


def resize(image: np.ndarray, height: int, width: int, rule: Resize = "area") -> np.ndarray:
    """Resize by area (averages along shrinking sides, linear interpolation along growing sides), or as Pillow or
    PyTorch.

    The sides that shrink are resized first, because OpenCV's INTER_AREA averages neither side if one grows (4.14, 5.0).
    """
    whose, _, kernel = rule.partition("-")
    if whose == "area":
        resized, (tall, wide) = image, (min(height, image.shape[0]), min(width, image.shape[1]))
        for size, way in (((wide, tall), cv2.INTER_AREA), ((width, height), cv2.INTER_LINEAR)):
            if size != resized.shape[1::-1]:
                resized = cv2.resize(resized, size, interpolation=way)
    elif whose == "torch":
        resized = resize_as_torch(image, height, width, kernel)
    else:
        picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        resized = np.asarray(picture.resize((width, height), Image.Resampling[kernel.upper()]))
    return resized.reshape(height, width, image.shape[2])


class Preprocessing(struct.PyTreeNode):
    """Resize a test image, crop its centre, and compute (pixels - mean) / std, with pixels from 0 to 255.

    `mean` is the mean image, float32 `[height, width, channels]`, at the network's training size. `std` has one value
    per channel, or none if there is no division, as in the paper. `shorter_side` is the length to which the shorter
    side is resized before the crop. `squash` is a height and width to resize to instead, ignoring the aspect ratio.
    Without `shorter_side` and `squash`, the largest centred part with the network's aspect ratio is cropped and
    resized. `resize` is the resizing rule (`Photographs.resize`), and `crop` is the rounding rule of `centre_crop`.
    """

    mean: Any
    std: tuple[float, ...] = struct.field(pytree_node=False, default=())
    shorter_side: int | None = struct.field(pytree_node=False, default=None)
    resize: Resize = struct.field(pytree_node=False, default="area")
    squash: tuple[int, int] | None = struct.field(pytree_node=False, default=None)
    crop: Crop = struct.field(pytree_node=False, default="floor")

    def __repr__(self) -> str:
        return f"images of {'x'.join(map(str, np.shape(self.mean)))}"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return height, width and channels of the images that the network was trained on."""
        height, width, channels = self.mean.shape
        return height, width, channels

    def prepare(self, encoded: bytes, name: str) -> np.ndarray:
        """Decode, resize and crop: uint8 `[height, width, channels]`. Raises BadInput, naming an unreadable image."""
        height, width, channels = self.image_shape
        check(channels in (1, 3), f"{name}: image files have 1 or 3 channels, but the network needs {channels}; pass "
                                  "arrays")
        sides = self.squash or self.shorter_side
        if sides is None:
            return crop_and_resize(decode(encoded, name, channels), height, width, self.resize)
        return centre_crop(self.resized(encoded, name, sides), height, width, self.crop)

    def resized(self, encoded: bytes, name: str, sides: int | tuple[int, int]) -> np.ndarray:
        """Decode and resize to a shorter side or to height and width. Raises BadInput, naming an unreadable image."""
        least = np.max(sides) if self.resize == "area" else 0  # other rules need all pixels
        image = decode(encoded, name, self.image_shape[2], int(least))
        if isinstance(sides, int):  # by the size in the header: a JPEG decoded at 3/8 has another aspect ratio
            tall, wide = dimensions(encoded, name)
            height, width = (max(sides, scaled(length, sides, min(tall, wide), self.resize)) for length in (tall, wide))
            return resize(image, height, width, self.resize)
        return resize(image, *sides, self.resize)

    def normalize(self, pixels: Any) -> jax.Array:
        """Convert `[batch, height, width, channels]` to the network's input, resizing the mean image if necessary."""
        return normalize(pixels, jax.image.resize(self.mean, jnp.shape(pixels)[1:], "linear"), self.std)


def normalize(pixels: Any, mean: Any, std: tuple[float, ...] = ()) -> jax.Array:
    """Subtract the per-pixel mean; divide by `std`, if given. The paper does not divide, as batch norm removes
    scales.
    """
    centred: jax.Array = jnp.asarray(pixels).astype(jnp.float32) - mean
    return centred / jnp.array(std) if std else centred


def of_run(data: Data | Photographs, mean: Any) -> Preprocessing:
    """Return the preprocessing of a network that was trained on these images with this mean image."""
    side = data.test_shorter_side if isinstance(data, Photographs) else None
    return Preprocessing(mean, data.std, side, data.resize)
