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
from resjax.detection.annotations import Annotated
from resjax.detection.average_precision import Detected, average_precisions, coco_precision
from resjax.detection.config import Sampling
from resjax.detection.pooling import roi_align, roi_max_pool
from resjax.detection.proposals import Predictions, choose_detections


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


def test_a_jpeg_without_its_last_two_bytes_is_damaged():
    """OpenCV 4.12 to 5.0 reads it from a file, not from memory (findings/jpeg_from_memory_or_file.sh)."""
    out = BytesIO()
    Image.new("RGB", (16, 16), "red").save(out, "JPEG")
    assert decode(out.getvalue(), "whole.jpg").shape == (16, 16, 3)
    with pytest.raises(BadInput, match=r"cut\.jpg"):
        decode(out.getvalue()[:-2], "cut.jpg")


def test_classes_beyond_the_border_do_not_suppress_each_other():
    """OpenCV 5.0 tells classes apart by offsets, not below 0 (findings/nms_by_class_off_the_image.sh)."""
    boxes = jnp.tile(jnp.array([-20.0, -20, -10, -10]), (1, 2, 1))  # one region, two classes
    found = choose_detections(Predictions(boxes, jnp.array([[0.9, 0.8]])), Sampling())
    assert found.labels[found.valid].tolist() == [1, 2]


def record(*boxes):
    boxes, none = np.array(boxes, np.float32), np.zeros(len(boxes), bool)
    return Annotated("image", 100, 100, boxes, np.ones(len(boxes), np.int32), none, none,
                     (boxes[:, 2:] - boxes[:, :2]).prod(1))


def seen(*boxes):
    return Detected(np.array(boxes, np.float32), np.full(len(boxes), 0.5), np.ones(len(boxes), int))


@pytest.mark.parametrize(("side", "small", "medium"), [(31, True, False), (32, True, True), (33, False, True)])
def test_an_object_of_32_pixels_is_small_and_medium(side, small, medium):
    """pycocotools 2.0.11: both borders belong to a range of sizes (findings/coco_object_of_two_sizes.sh)."""
    pytest.importorskip("pycocotools")
    measured = coco_precision([record((0, 0, side, side))], [seen((0, 0, side, side))], ["cell"])
    assert (not np.isnan(measured.small), not np.isnan(measured.medium)) == (small, medium)


def test_equal_scores_count_in_the_order_of_the_images():
    """pycocotools 2.0.11 and our own measure: an order counts where scores tie (findings/coco_renumbered_images.sh)."""
    pytest.importorskip("pycocotools")
    right, wrong = (record((0, 0, 50, 50)), seen((0, 0, 50, 50))), (record((0, 0, 50, 50)), seen((50, 50, 99, 99)))
    for pairs, half in (((right, wrong), 50), ((wrong, right), 25)):  # of two objects: found first, or second
        records, found = zip(*pairs, strict=True)
        assert average_precisions(records, found, 1)[0] == half
        assert coco_precision(records, found, ["cell"]).at_half == pytest.approx(half * 102 / 101, rel=0.01)
