"""Every kind of image file: the pixels that all parts see, against a reference made with Pillow and numpy alone."""

import os
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from photographs import WNIDS, write_archives, write_prepared
from PIL import Image, ImageOps

from resjax import BadInput, Data, Photographs, load_data
from resjax.data import decode, dimensions, find_images, of_run
from resjax.data.decode import EXTENSIONS, MOST_PIXELS
from resjax.data.stream import training_example
from resjax.evaluation.probabilities import ViewBatch, render
from resjax.evaluation.views import views_of

RANDOM = np.random.default_rng(0)
SIDE = 36  # the shorter side of all that are not a row, a column or a pixel
RGB = RANDOM.integers(0, 256, (SIDE, 51, 3)).astype(np.uint8)
GREY, ALPHA = RGB[..., 0], RANDOM.integers(0, 256, (SIDE, 51)).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 257
SMOOTH = np.stack(np.meshgrid(np.linspace(10, 240, 60), np.linspace(20, 200, SIDE)), -1)
SMOOTH = np.concatenate([SMOOTH, SMOOTH[:, ::-1, :1]], -1).astype(np.uint8)
OVER_WHITE = np.round((RGB * (ALPHA[..., None] / 255)) + 255 - ALPHA[..., None].astype(float)).astype(np.uint8)


def saved(pixels, kind, **options):
    out = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, kind, **options)
    return out.getvalue()


def grey(pixels):
    return np.repeat(np.asarray(pixels)[..., None], 3, -1)


def exif(*tags, order="<"):
    """An EXIF block of tags (number, type, count, four bytes of value)."""
    body = b"".join(struct.pack(f"{order}HHI", number, kind, count) + value for number, kind, count, value in tags)
    head = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + head + struct.pack(f"{order}IH", 8, len(tags)) + body + b"\0" * 4


def turned(turn, order="<", kind=3):
    value = struct.pack(order + {1: "BBBB", 3: "HH", 4: "I"}[kind], turn, *([0] * {1: 3, 3: 1, 4: 0}[kind]))
    return 0x112, kind, 1, value


def upright(pixels, turn):
    """What Pillow makes of an orientation."""
    image = Image.fromarray(pixels)
    image.getexif()[0x112] = turn
    return np.asarray(ImageOps.exif_transpose(image))


def tiff(values, bits, sample_format):
    """A TIFF of one grey strip, which Pillow cannot write for every type."""
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 4, height), (279, 4, values.nbytes), (339, 3, sample_format)]
    body = b"".join(struct.pack("<HHII", number, kind, 1, value) for number, kind, value in tags)
    return (b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes() + struct.pack("<H", len(tags)) + body
            + b"\0" * 4)


palette = Image.fromarray(RGB).quantize(16)
seen_through = palette.copy()
seen_through.info["transparency"] = 3
hole = np.where((np.asarray(palette) == 3)[..., None], 255, np.asarray(palette.convert("RGB"))).astype(np.uint8)
frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
smooth = Image.fromarray(SMOOTH)
jpeg_pixels = np.asarray(Image.open(BytesIO(saved(SMOOTH, "jpeg", quality=95))).convert("RGB"))
jpeg_cmyk = saved(smooth.convert("CMYK"), "jpeg", quality=95)
odd_tag, huge_tag = (0x100, 11, 1, struct.pack("<f", 36.0)), (0x8769, 4, 1, struct.pack("<I", 2**32 - 1))

KINDS = {  # name: (file, right pixels, tolerance)
    "png": (saved(RGB, "png"), RGB, 0), "png grey": (saved(GREY, "png"), grey(GREY), 0),
    "png of one bit": (saved(Image.fromarray(GREY > 99), "png"), grey(255 * (GREY > 99)), 0),
    "png of 16 bits": (saved(DEEP, "png"), grey(GREY), 1),
    "png palette": (saved(palette, "png"), np.asarray(palette.convert("RGB")), 0),
    "png palette with a hole": (saved(palette, "png", transparency=3), hole, 1),
    "png with alpha": (saved(np.dstack([RGB, ALPHA]), "png"), OVER_WHITE, 1),
    "png grey with alpha": (saved(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), "png"),
                            np.repeat(OVER_WHITE[..., :1], 3, -1), 1),
    "png with a transparent colour": (saved(RGB, "png", transparency=tuple(RGB[0, 0].tolist())),
                                      np.where((RGB[0, 0] == RGB).all(-1, keepdims=True), 255, RGB), 0),
    "png turned": (saved(RGB, "png", exif=exif(turned(6))), upright(RGB, 6), 0),
    "pgm": (saved(GREY, "ppm"), grey(GREY), 0), "ppm": (saved(RGB, "ppm"), RGB, 0),
    "pbm": (saved(Image.fromarray(GREY > 99), "ppm"), grey(255 * (GREY > 99)), 0),
    "pgm of 16 bits": (b"P5 51 36 65535\n" + DEEP.astype(">u2").tobytes(), grey(GREY), 1),
    "pgm of 10 bits": (b"P5 51 36 1023\n" + (GREY.astype(int) * 1023 // 255).astype(">u2").tobytes(), grey(GREY), 1),
    "pfm": (b"Pf\n51 36\n-1.0\n" + (GREY[::-1] / 255).astype("<f4").tobytes(), grey(GREY), 1),
    "tiff": (saved(RGB, "tiff"), RGB, 0), "tiff grey": (saved(GREY, "tiff"), grey(GREY), 0),
    "tiff of 16 bits": (saved(DEEP, "tiff"), grey(GREY), 1),
    "tiff of 16 bits, signed": (tiff((GREY.astype("<i2") * 128), 16, 2), grey(GREY), 1),
    "tiff of 32 bits": (tiff(GREY.astype("<u4") * 0x01010101, 32, 1), grey(GREY), 1),
    "tiff of 32 bits, signed": (tiff(GREY.astype("<i4") * 0x808080, 32, 2), grey(GREY), 1),
    "tiff of floats": (saved((GREY / 255).astype(np.float32), "tiff"), grey(GREY), 1),
    "tiff of floats that are none": (saved(np.full((SIDE, 40), np.nan, np.float32), "tiff"),
                                     np.zeros((SIDE, 40, 3)), 0),
    "tiff cmyk": (saved(Image.fromarray(RGB).convert("CMYK"), "tiff"), RGB, 1),
    "tiff with alpha": (saved(np.dstack([RGB, ALPHA]), "tiff"), OVER_WHITE, 1),
    "tiff, deflated": (saved(RGB, "tiff", compression="tiff_deflate"), RGB, 0),
    "tiff turned": (saved(RGB, "tiff", tiffinfo={274: 6}), upright(RGB, 6), 0),
    "gif": (saved(palette, "gif"), np.asarray(palette.convert("RGB")), 0),
    "gif of two frames": (saved(frames[0], "gif", save_all=True, append_images=frames[1:]), grey(GREY), 0),
    "bmp": (saved(RGB, "bmp"), RGB, 0), "pcx": (saved(RGB, "pcx"), RGB, 0), "sgi": (saved(RGB, "sgi"), RGB, 0),
    "webp, lossless": (saved(RGB, "webp", lossless=True), RGB, 0),
    "webp with alpha": (saved(np.dstack([RGB, np.where(ALPHA > 99, 255, 0).astype(np.uint8)]), "webp", lossless=True,
                              exact=True), np.where((ALPHA > 99)[..., None], RGB, 255), 0),
    "webp turned": (saved(RGB, "webp", lossless=True, exif=exif(turned(8))), upright(RGB, 8), 0),
    "jpeg": (saved(SMOOTH, "jpeg", quality=95), jpeg_pixels, 3),
    "jpeg grey": (saved(smooth.convert("L"), "jpeg", quality=95), grey(smooth.convert("L")), 3),
    "jpeg cmyk": (jpeg_cmyk, np.asarray(Image.open(BytesIO(jpeg_cmyk)).convert("RGB")), 3),
    "jpeg, progressive": (saved(SMOOTH, "jpeg", quality=95, progressive=True), jpeg_pixels, 3),
    **{f"jpeg turned {turn}": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(turn))),
                               upright(jpeg_pixels, turn), 3) for turn in range(1, 9)},
    "jpeg turned, big-endian": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(6, ">"), order=">")),
                                upright(jpeg_pixels, 6), 3),
    "jpeg turned, by a long": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(6, kind=4))),
                               upright(jpeg_pixels, 6), 3),
    "jpeg turned, an odd tag beside": (saved(SMOOTH, "jpeg", quality=95, exif=exif(odd_tag, turned(6))),
                                       upright(jpeg_pixels, 6), 3),
    "jpeg turned, a tag that leads astray": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(6), huge_tag)),
                                             upright(jpeg_pixels, 6), 3),
    "jpeg with an unknown turn": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(9))), jpeg_pixels, 3),
    "jpeg with broken exif": (saved(SMOOTH, "jpeg", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), jpeg_pixels, 3),
    "jpeg with cut exif": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(6))[:17]), jpeg_pixels, 3),
    "one row": (saved(RGB[:1].repeat(60, 1), "png"), RGB[:1].repeat(60, 1), 0),
    "one column": (saved(RGB[:, :1].repeat(60, 0), "png"), RGB[:, :1].repeat(60, 0), 0),
    "one pixel": (saved(RGB[:1, :1], "png"), RGB[:1, :1], 0),
}
if "AVIF" in Image.OPEN:
    KINDS["avif"] = (saved(SMOOTH, "avif", quality=100, subsampling="4:4:4"), SMOOTH, 3)
if "JPEG2000" in Image.OPEN:
    KINDS["jpeg 2000"] = (saved(RGB, "jpeg2000"), RGB, 0)


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


def test_what_is_too_large_is_named_before_it_is_decoded():
    width = MOST_PIXELS // 1000 + 1
    header = b"P6 %d 1000 255\n" % width
    with pytest.raises(BadInput, match=rf"big: {width}x1000 pixels are too many; at most 64,000,000 are read"):
        decode(header + bytes(100), "big")


def mutations(count, seed=7):
    """Real files with bytes changed, cut, repeated or exchanged."""
    random, files = np.random.default_rng(seed), [encoded for encoded, _, _ in KINDS.values()]
    for number in range(count):
        content = bytearray(files[number % len(files)])
        for _ in range(random.integers(1, 6)):
            place = int(random.integers(len(content)))
            match random.integers(4):
                case 0:
                    content[place] = random.integers(256)
                case 1:
                    del content[place:place + int(random.integers(1, 20))]
                case 2:
                    content[place:place] = content[:int(random.integers(1, 20))]
                case _:
                    content[place:place + 4] = os.urandom(4)
            if not content:
                content = bytearray(1)
        yield bytes(content)


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
