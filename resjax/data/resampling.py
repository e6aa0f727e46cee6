"""Resizes images with antialiasing, as PyTorch resizes uint8 tensors.

The image processors of the library transformers resize images in this way. PyTorch uses the same filters as Pillow,
also in integer arithmetic. However, its filter weights have 15 bits, and Pillow's have 22. Therefore, about one value
in a hundred differs from Pillow's by one. See `UpSampleKernelAVXAntialias.h` in https://github.com/pytorch/pytorch.
"""

from typing import Any, NamedTuple

import numpy as np

REACH = {"bilinear": 1, "bicubic": 2, "lanczos": 3}  # filter radius in pixels, if nothing shrinks


class Taps(NamedTuple):
    """The input pixels of each pixel of a resized row, and their integer weights, `[pixels, taps]`.

    A weight of 1 is stored as 2^`bits`.
    """

    places: np.ndarray
    weights: np.ndarray
    bits: int


def kernel(name: str, x: np.ndarray) -> Any:
    """Evaluate a filter at distances `x`, in pixels."""
    x = np.abs(x)
    if name == "bilinear":
        return np.clip(1 - x, 0, None)
    if name == "bicubic":  # with a = -0.5
        return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, (((x - 5) * x + 8) * x - 4) * -0.5, 0))
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)


def taps(before: int, after: int, name: str) -> Taps:
    """Compute the weights that map `before` pixels to `after` pixels."""
    scale = before / after
    shrinking = max(scale, 1.0)
    centre = scale * (np.arange(after) + 0.5)
    first = np.maximum((centre - REACH[name] * shrinking + 0.5).astype(int), 0)
    last = np.minimum((centre + REACH[name] * shrinking + 0.5).astype(int), before)
    places = first[:, None] + np.arange((last - first).max())
    weights = np.where(places < last[:, None], kernel(name, (places - centre[:, None] + 0.5) / shrinking), 0)
    weights /= weights.sum(1, keepdims=True)
    bits = next(bits for bits in range(23) if bits == 22 or int(0.5 + weights.max() * 2**(bits + 1)) >= 2**15)
    whole = np.trunc(weights * 2**bits + np.copysign(0.5, weights)).astype(np.int32)
    return Taps(np.minimum(places, before - 1), whole, bits)


def resize_columns(image: np.ndarray, width: int, name: str) -> np.ndarray:
    """Resize the second axis of `[height, width, channels]`."""
    if image.shape[1] == width:
        return image
    if name == "nearest":  # PyTorch's nearest-exact, which differs from Pillow where float32 rounds to another pixel
        scale = np.float32(image.shape[1]) / np.float32(width)
        places = ((np.arange(width, dtype=np.float32) + np.float32(0.5)) * scale).astype(int)
        return image[:, np.minimum(places, image.shape[1] - 1)]
    places, weights, bits = taps(image.shape[1], width, name)
    total = np.full((len(image), width, image.shape[2]), 1 << (bits - 1), np.int32)
    for tap in range(places.shape[1]):
        total += weights[:, tap, None] * image[:, places[:, tap]]
    return (total >> bits).clip(0, 255).astype(np.uint8)


def resize_as_torch(image: np.ndarray, height: int, width: int, name: str) -> np.ndarray:
    """Resize uint8 `[height, width, channels]` with a filter (nearest, bilinear, bicubic or lanczos), width first."""
    rows = resize_columns(image, width, name).swapaxes(0, 1)
    return np.ascontiguousarray(resize_columns(rows, height, name).swapaxes(0, 1))
