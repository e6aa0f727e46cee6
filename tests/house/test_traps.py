"""What libraries do otherwise than one would expect, where our users would meet it: docs/traps.md has them all."""

from io import BytesIO

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from resjax import BadInput
from resjax.data import decode
from resjax.data.preprocessing import resize
from resjax.detection.pooling import roi_align, roi_max_pool


@pytest.mark.parametrize("shape", [(8, 64), (8, 70), (70, 8), (8, 8), (100, 90)])
def test_every_side_that_shrinks_is_averaged(shape):
    """OpenCV 5.0 and 4.14: INTER_AREA averages nothing where any side grows (findings/area_where_a_side_grows.sh)."""
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[::2, ::2] = 255
    resized = resize(stripes, *shape).astype(float)
    for side, axis in zip(shape, (1, 0), strict=True):  # along a side of 8 every line averages eight others: all alike
        if side == 8:
            assert np.ptp(resized.mean(axis)) <= 1
    assert resized.mean() == pytest.approx(63.75, abs=1)


def test_a_picture_with_one_wrong_bit_is_damaged():
    """Pillow 13.0 skips the checksum of the pixels, which finds every bit (findings/png_without_checks.sh)."""
    random = np.random.default_rng(0)
    picture = cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), (96, 72), interpolation=cv2.INTER_CUBIC)
    out = BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    whole = out.getvalue()
    assert np.array_equal(decode(whole, "whole.png"), picture)
    place = whole.index(b"IDAT") + 4
    for _ in range(1000):  # of which Pillow alone reads 5 with other pixels
        one_bit = bytearray(whole)
        one_bit[random.integers(place, len(whole) - 12)] ^= 1 << random.integers(8)
        with pytest.raises(BadInput, match="one_bit"):
            decode(bytes(one_bit), "one_bit.png")


@pytest.mark.parametrize("pool", [roi_max_pool, roi_align])
def test_gradients_of_a_thousand_regions_are_added_in_float32(pool):
    """JAX 0.10.2: a scatter in bfloat16 adds in bfloat16, and stops at 256 (findings/gradient_of_a_lookup.sh)."""
    features, boxes = jnp.ones((1, 1, 1), jnp.bfloat16), jnp.tile(jnp.array([0.0, 0, 0, 0]), (1000, 1))

    def total(features):
        return pool(features, boxes, 1, 1.0).astype(jnp.float32).sum()

    gradient = jax.grad(total)(features)
    assert gradient.dtype == jnp.bfloat16
    assert float(gradient[0, 0, 0]) == 1000
