"""One photograph: decoded at a size that leaves enough, its random boxes, its crops."""

from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resjax import BadInput, Photographs
from resjax.data import centre_crop, cut, decode, dimensions, random_box, resize_shorter_side
from resjax.data.preprocessing import Box


@pytest.mark.parametrize("crop", ["scale", "area"])
@pytest.mark.parametrize("shape", [(375, 500), (500, 120), (40, 41)])
def test_boxes_lie_within_the_image(crop, shape):
    data, random = Photographs(crop=crop), np.random.default_rng(0)
    boxes = [random_box(*shape, data, random) for _ in range(500)]
    for box in boxes:
        assert 0 <= box.top <= box.top + box.height <= shape[0] + 1e-9
        assert 0 <= box.left <= box.left + box.width <= shape[1] + 1e-9
    if crop == "scale":  # a crop of 224 of an image whose shorter side is 256 to 480
        sides = np.array([224 * min(shape) / box.height for box in boxes])
        assert sides.min() >= 256 - 1e-6
        assert sides.max() <= 480 + 1e-6
        assert np.mean(sides) == pytest.approx(368, rel=0.03)
    else:
        areas = np.array([box.height * box.width for box in boxes]) / np.prod(shape)
        assert areas.min() >= 0.08 - 1e-6
        ratios = [box.width / box.height for box in boxes]
        assert min(ratios) >= 3 / 4 - 1e-6
        assert max(ratios) <= 4 / 3 + 1e-6


@pytest.mark.parametrize("shape", [(1, 1), (3, 300), (300, 2)])
@pytest.mark.parametrize("crop", ["scale", "area"])
def test_a_box_of_an_image_a_few_pixels_wide_has_a_pixel(shape, crop):
    data, random = Photographs(crop=crop, size=32, shorter_side=(32, 80)), np.random.default_rng(0)
    for _ in range(200):
        assert (cut(np.full((*shape, 3), 7, np.uint8), random_box(*shape, data, random), 32) == 7).all()


def encoded(picture, kind="jpeg", **options):
    out = BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def photograph():
    from sklearn.datasets import load_sample_images

    return Image.fromarray(load_sample_images().images[0])


def test_a_crop_is_what_pillow_makes_of_it(photograph):
    content = encoded(photograph, quality=95)
    ours = cut(decode(content, "x", least=400), Box(20, 30, 330, 330), 224)
    theirs = photograph.resize((224, 224), Image.Resampling.BILINEAR, box=(30, 20, 360, 350))
    assert np.abs(ours.astype(int) - np.asarray(theirs)).mean() < 4
    assert np.abs(ours[:, ::-1].astype(int) - np.asarray(theirs)).mean() > 30  # what a wrong crop would come to


@pytest.mark.parametrize(("least", "shape"), [(300, (427, 640)), (200, (214, 320)), (100, (107, 160)), (20, (54, 80))])
def test_decoding_at_reduced_scale_leaves_enough(photograph, least, shape):
    image = decode(encoded(photograph, quality=95), "x", least=least)
    assert image.shape == (*shape, 3)
    small = np.asarray(photograph.resize(shape[::-1], Image.Resampling.BOX))
    assert np.abs(image.astype(int) - small).mean() < 8


@pytest.mark.parametrize(("kind", "mode"), [("jpeg", "L"), ("jpeg", "CMYK"), ("png", "RGB"), ("png", "RGBA")])
def test_grey_cmyk_and_misnamed_images_are_read(photograph, kind, mode):
    content = encoded(photograph.convert(mode), kind)
    assert dimensions(content, "x") == (427, 640)
    wanted = np.asarray(Image.open(BytesIO(content)).convert("RGB")).astype(int)
    assert np.abs(decode(content, "x", least=400) - wanted).mean() < 1


@pytest.mark.parametrize("cut_at", [0, 10, 400, 20_000])
def test_a_truncated_image_is_named(photograph, cut_at):
    with pytest.raises(BadInput, match=r"cat\.JPEG: damaged image"):
        decode(encoded(photograph)[:cut_at], "cat.JPEG", least=224)


def test_a_damaged_byte_within_is_forgiven_or_named(photograph):
    content = bytearray(encoded(photograph))
    content[len(content) // 2] ^= 0xFF
    with suppress(BadInput):
        assert decode(bytes(content), "x", least=400).shape == (427, 640, 3)


def test_the_shorter_side_and_the_centre():
    image = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)
    assert resize_shorter_side(image, 60).shape == (60, 80, 3)
    assert resize_shorter_side(image.transpose(1, 0, 2), 15).shape == (20, 15, 3)
    assert np.array_equal(centre_crop(image, 10, 20), image[10:20, 10:30])
