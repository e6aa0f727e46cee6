"""Every kind of image file: the pixels that all parts see are right (tests/image_kinds.py has the reference)."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from image_kinds import KINDS, RGB, SIDE, mutations, saved
from numpy.lib.stride_tricks import sliding_window_view
from photographs import WNIDS, write_archives, write_prepared
from PIL import Image

from resjax import BadInput, Data, Photographs, load_data
from resjax.data import decode, dimensions, find_images, of_run
from resjax.data.decode import EXTENSIONS, HEAD, MOST_PIXELS
from resjax.data.stream import training_example
from resjax.evaluation.probabilities import ViewBatch, render
from resjax.evaluation.views import views_of


def test_forty_kinds():
    assert len(KINDS) >= 40


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_right(kind):
    encoded, right, tolerance = KINDS[kind]
    found = decode(encoded, kind)
    assert (found.dtype, found.shape) == (np.uint8, right.shape)
    assert np.abs(found.astype(int) - right).max() <= tolerance
    assert found.flags.c_contiguous
    assert dimensions(encoded, kind) == right.shape[:2]


@pytest.mark.parametrize("kind", KINDS)
def test_grey_pixels_are_right(kind):
    encoded, right, tolerance = KINDS[kind]
    found = decode(encoded, kind, channels=1)
    assert found.shape == (*right.shape[:2], 1)
    luminance = right.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(found[..., 0] - luminance).max() <= tolerance + 1.5


def in_a_folder(path, encoded):
    """Write an image of each class and split, all under a name that says nothing of what they are."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (path / split / name).mkdir(parents=True)
            (path / split / name / "image.jpg").write_bytes(encoded)
    return f"folder:{path}"


@pytest.mark.parametrize("kind", KINDS)
def test_training_evaluation_and_prediction_see_the_same(tmp_path, kind):
    """From a folder in memory: sizes that need no resizing, so that nothing but the reader decides."""
    encoded, right, tolerance = KINDS[kind]
    dataset = load_data(Data(source=in_a_folder(tmp_path, encoded)))
    for images in (dataset.train, dataset.test):
        assert np.abs(images.pixels - right.astype(int)).max() <= tolerance
    predicted = of_run(Data(), np.zeros(right.shape)).prepare(encoded, kind)
    assert np.abs(predicted - right.astype(int)).max() <= tolerance


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory):
    """The kinds as ImageNet's images lie: in folders, in archives, and as a prepared TFDS set."""
    root = tmp_path_factory.mktemp("kinds")
    for split, name in (("train", "{}_{}.JPEG"), ("val", "ILSVRC2012_val_{1:08}.JPEG")):
        for label, wnid in enumerate(WNIDS):
            (root / "folders" / split / wnid).mkdir(parents=True)
            for number, (encoded, _, _) in enumerate(KINDS.values()):
                file = root / "folders" / split / wnid / name.format(wnid, number + label * len(KINDS))
                file.write_bytes(encoded)
    write_archives(root / "folders", root / "archives")
    write_prepared(root / "folders", root / "prepared")
    return {"folders": {"source": f"folder:{root / 'folders'}"}, "archives": {"source": f"tars:{root / 'archives'}"},
            "prepared": {"source": "tfds:photos", "directory": root / "prepared"}}


def kind_of(files, index):
    """Tell by its name which kind an image is: the number that the name ends in."""
    return list(KINDS)[int(files.name(index).removesuffix(".JPEG").rpartition("_")[2]) % len(KINDS)]


@pytest.mark.parametrize("where", ["folders", "archives", "prepared"])
def test_streamed_training_sees_right_pixels_of_every_kind(every_kind, where):
    """A crop as large as the shorter side is a window of the right pixels; of a row, one of its pixels throughout."""
    data = Photographs(**every_kind[where], size=SIDE, shorter_side=(SIDE, SIDE), test_shorter_side=SIDE, flip=False)
    files = find_images(data).train
    seen = [training_example(files, data, index, np.random.default_rng(index)) for index in range(len(files.labels))]
    assert {kind_of(files, index) for index in range(len(seen))} == set(KINDS)
    for index, example in enumerate(seen):
        _, right, tolerance = KINDS[kind_of(files, index)]
        side = min(right.shape[:2])
        windows = sliding_window_view(right.astype(int), (side, side), (0, 1)).transpose(0, 1, 3, 4, 2)
        distances = np.abs(windows - example.pixels.astype(int)).max((2, 3, 4))
        assert (example.broken, distances.min() <= tolerance) == (-1, True), kind_of(files, index)


@pytest.mark.parametrize("where", ["folders", "archives", "prepared"])
def test_streamed_evaluation_sees_right_pixels_of_every_kind(every_kind, where):
    """The centre of the right pixels; a row or a column is resized, as Pillow does it."""
    data = Photographs(**every_kind[where], size=SIDE, shorter_side=(SIDE, SIDE), test_shorter_side=SIDE)
    files, preprocessing = find_images(data).test, of_run(data, np.zeros((SIDE, SIDE, 3)))
    (view,) = views_of("single", preprocessing)
    order = np.arange(len(files.labels))
    seen = render(files, preprocessing, view, ViewBatch(order, SIDE, SIDE))[:, 0]
    assert {kind_of(files, index) for index in order} == set(KINDS)
    for index, pixels in zip(order, seen, strict=True):
        _, right, tolerance = KINDS[kind_of(files, index)]
        height, width = (SIDE * length // min(right.shape[:2]) for length in right.shape[:2])
        resized = Image.fromarray(right.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
        top, left = (height - SIDE) // 2, (width - SIDE) // 2
        wanted = np.asarray(resized.crop((left, top, left + SIDE, top + SIDE))).astype(int)
        rounding = int((height, width) != right.shape[:2])
        assert np.abs(pixels - wanted).max() <= tolerance + rounding, kind_of(files, index)


def test_a_prepared_set_in_memory_has_right_pixels_of_every_kind(every_kind):
    dataset = load_data(Data(**every_kind["prepared"], size=SIDE))
    files = find_images(Data(**every_kind["prepared"], size=SIDE))
    for split in ("train", "test"):
        names = getattr(files, split)
        for index, pixels in enumerate(getattr(dataset, split).pixels):
            _, right, tolerance = KINDS[kind_of(names, index)]
            if min(right.shape[:2]) == SIDE:
                left, top = (right.shape[1] - SIDE) // 2, (right.shape[0] - SIDE) // 2
                wanted = right[top:top + SIDE, left:left + SIDE].astype(int)
                assert np.abs(pixels - wanted).max() <= tolerance, kind_of(names, index)


def test_a_strip_is_seen_whole():
    """A network for 16x48 images sees the outermost columns: nothing is cropped to a square."""
    strip = np.zeros((16, 48, 3), np.uint8)
    strip[:, :14], strip[:, -14:] = 230, 10
    preprocessing = of_run(Data(), np.zeros((16, 48, 3)))
    assert np.array_equal(preprocessing.prepare(saved(strip, "png"), "strip"), strip)
    larger = saved(strip.repeat(3, 0).repeat(3, 1), "png")
    assert np.abs(preprocessing.prepare(larger, "strip").astype(int) - strip)[:, [0, 1, -2, -1]].max() <= 1


@pytest.mark.parametrize("rule", ["pillow-bilinear", "pillow-bicubic"])
def test_pillows_rules_are_pillows(rule):
    noise = np.random.default_rng(1).integers(0, 256, (90, 130, 3)).astype(np.uint8)
    resample = {"pillow-bilinear": Image.Resampling.BILINEAR, "pillow-bicubic": Image.Resampling.BICUBIC}[rule]
    resized = Image.fromarray(noise).resize((int(64 * 130 / 90), 64), resample)  # as torchvision's Resize(64)
    left = (resized.width - 56) // 2
    wanted = np.asarray(resized.crop((left, 4, left + 56, 60)))
    data = Photographs(size=56, shorter_side=(64, 64), test_shorter_side=64, resize=rule)
    found = of_run(data, np.zeros((56, 56, 3))).prepare(saved(noise, "png"), "noise")
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_formats_are_told_by_content_and_many_endings_are_known():
    assert {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm"} <= {*EXTENSIONS}
    assert np.array_equal(decode(saved(RGB, "png"), "really.jpg"), RGB)


def test_the_head_of_a_large_png_is_enough_for_its_size_and_its_pixels_are_checked():
    content = bytearray(saved(np.random.default_rng(0).integers(0, 256, (200, 90, 3), np.uint8), "png"))
    assert dimensions(bytes(content[:HEAD]), "large.png") == (200, 90)
    content[-40] ^= 1
    with pytest.raises(BadInput, match=r"large\.png: damaged image \(wrong checksum of its pixels\)"):
        decode(bytes(content), "large.png")


def test_what_is_too_large_is_named_before_it_is_decoded():
    width = MOST_PIXELS // 1000 + 1
    header = b"P6 %d 1000 255\n" % width
    with pytest.raises(BadInput, match=rf"big: {width}x1000 pixels are too many; the limit is 64,000,000"):
        decode(header + bytes(100), "big")


def test_damaged_files_are_read_or_named():
    """500 here; tests/campaign/images.py makes as many as one likes."""
    refusals = []
    for content in mutations(500):
        try:
            height, width = dimensions(content, "damaged")
            assert decode(content, "damaged", least=8).shape[2] == 3
            assert height * width > 0
        except BadInput as error:
            refusals.append(str(error))
    assert all(refusal.startswith("damaged: ") for refusal in refusals)
    assert 50 < len(refusals) < 500


def test_many_threads_leave_everybodys_warnings_as_they_were():
    """`warnings.catch_warnings` in threads does not: what the main thread has to say is then lost for good."""
    odd = KINDS["png palette with a hole"][0]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: decode(odd, str(index)), range(400)))
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", stacklevel=1)


def test_what_is_no_image_is_said_without_an_object_of_python():
    with pytest.raises(BadInput, match=r"^a\.png: damaged image \(unsupported format\); repair or remove it$"):
        decode(b"no image at all", "a.png")
