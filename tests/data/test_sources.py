"""Digits and folders of images, the checks of every data set, and the splits made of them."""

import hashlib
import shutil
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resjax import BadInput, Data
from resjax.data import Images, decode, load_data, mean_image
from resjax.data.images import hold_out, make_dataset

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def paint(file, color=RED, size=(6, 4), mode="RGB", **settings):
    """Write an image of one colour, 6 wide and 4 high."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(file, **settings)


def paint_splits(root, splits=("train", "test"), classes=("cat", "dog"), count=1, size=(6, 4)):
    for split in splits:
        for number, name in enumerate(classes):
            for i in range(count):
                paint(root / split / name / f"{i:02d}.png", (i, number, len(split)), size)


def read(root, **settings):
    return load_data(Data(source=f"folder:{root}", **settings))


def numbered(count, classes=10, shape=(2, 2, 3)):
    pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, *shape))
    return Images(pixels, np.arange(count, dtype=np.int32) % classes)


def digest(images):
    return hashlib.sha256(np.asarray(images.pixels).tobytes() + np.asarray(images.labels).tobytes()).hexdigest()[:16]


def test_digits():
    data = load_data(Data(source="digits"))
    assert data.classes == tuple("0123456789")
    assert [split.pixels.shape for split in (data.train, data.validation, data.test)] == [
        (1437, 8, 8, 1), (0, 8, 8, 1), (360, 8, 8, 1)]
    assert (data.train.pixels.dtype, data.train.labels.dtype) == (np.uint8, np.int32)
    assert (data.train.pixels.min(), data.train.pixels.max()) == (0, 255)
    assert set(data.train.labels) == set(data.test.labels) == set(range(10))


@pytest.mark.parametrize("settings", [{}, {"validation_images": 500}, {"pad": 0, "flip": False}])
def test_digits_are_split_alike_in_every_run_and_version(settings):
    data = load_data(Data(source="digits", **settings))
    assert digest(data.test) == "489c1d05d9e03f4c"
    assert len(data.train.labels) + len(data.validation.labels) == 1437


def test_hold_out_is_disjoint_complete_and_keeps_the_order():
    images = numbered(200, classes=200)
    kept, held = hold_out(images, 37)
    assert (len(kept.labels), len(held.labels)) == (163, 37)
    assert sorted([*kept.labels, *held.labels]) == list(range(200))
    for part in (kept, held):
        assert (np.diff(part.labels) > 0).all()
        np.testing.assert_array_equal(part.pixels[:, 0, 0, 0], part.labels)
    assert held.labels.max() - held.labels.min() > 100  # from all over the set


def test_validation_images_are_taken_from_the_training_images():
    whole, split = (load_data(Data(source="digits", validation_images=count)) for count in (0, 400))
    together = np.concatenate([split.train.pixels, split.validation.pixels])
    assert len(split.validation.pixels) == 400
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in whole.train.pixels)


def test_mean_image_is_the_float64_mean():
    pixels = np.random.default_rng(0).integers(200, 256, (100_000, 1, 2, 1), np.uint8)
    found = mean_image(Images(pixels, np.zeros(len(pixels), np.int32)))
    exact = pixels.astype(np.float64).sum(0) / len(pixels)
    assert (found.dtype, found.shape) == (np.float32, (1, 2, 1))
    np.testing.assert_array_equal(found, exact.astype(np.float32))
    assert np.abs(pixels.mean(0, dtype=np.float32) - exact).max() > 1e-4  # a float32 sum would be wrong


@pytest.mark.parametrize("held", ["test", "val"])
def test_folder_with_train_and_test(tmp_path, held):
    paint_splits(tmp_path, ("train", held), ("dog", "cat", "emu"), count=2)
    data = read(tmp_path)
    assert data.classes == ("cat", "dog", "emu")
    assert data.train.pixels.shape == data.test.pixels.shape == (6, 4, 6, 3)
    for split, length in ((data.train, 5), (data.test, len(held))):
        assert split.labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert split.pixels[:, 0, 0].tolist() == [[i, label, length] for label in (1, 0, 2) for i in (0, 1)]


def test_folder_of_class_folders_holds_out_a_fifth(tmp_path):
    paint_splits(tmp_path, (".",), count=10)
    data = read(tmp_path)
    assert (data.classes, len(data.train.labels), len(data.test.labels)) == (("cat", "dog"), 16, 4)
    both = [tuple(pixel) for split in (data.train, data.test) for pixel in split.pixels[:, 0, 0, :2].tolist()]
    assert sorted(both) == [(i, label) for i in range(10) for label in (0, 1)]
    np.testing.assert_array_equal(data.test.pixels[:, 0, 0, 1], data.test.labels)


def test_other_files_and_hidden_folders_are_passed_over(tmp_path):
    paint_splits(tmp_path)
    paint(tmp_path / "train" / ".trash" / "0.png")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("a cat")
    paint(tmp_path / "train" / "cat" / "UPPER.PNG")
    data = read(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 0, 1]


def test_size_resizes_the_shorter_side_and_crops_the_centre(tmp_path):
    paint_splits(tmp_path)
    wide, tall = Image.new("RGB", (30, 10), BLUE), Image.new("RGB", (10, 30), GREEN)
    wide.paste(RED, (8, 0, 22, 10))
    tall.paste(RED, (0, 8, 10, 22))
    wide.save(tmp_path / "train" / "cat" / "00.png")
    tall.save(tmp_path / "train" / "dog" / "00.png")
    data = read(tmp_path, size=5)
    assert data.train.pixels.shape == data.test.pixels.shape == (2, 5, 5, 3)
    assert (data.train.pixels == RED).all()


@pytest.mark.parametrize(("file", "mode", "expected"), [
    ("0.png", "L", {(76, 76, 76)}), ("0.png", "P", {RED}), ("0.gif", "P", {RED}), ("0.png", "RGBA", {RED}),
    ("0.tif", "CMYK", {RED}), ("0.jpg", "CMYK", {RED}), ("0.bmp", "1", {(0, 0, 0), (255, 255, 255)})])
def test_every_kind_of_image_becomes_rgb(tmp_path, file, mode, expected):
    paint_splits(tmp_path, classes=("dog", "emu"))
    paint(tmp_path / "train" / "cat" / file, mode=mode)
    paint(tmp_path / "test" / "cat" / file, mode=mode)
    with Image.open(tmp_path / "train" / "cat" / file) as image:
        assert image.mode == mode
    assert {tuple(pixel) for pixel in read(tmp_path).train.pixels[0].reshape(-1, 3).tolist()} == expected


def test_grey_of_16_bits_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 255, 256, 1000, 30_000, 65_535]], np.uint16)).save(tmp_path / "deep.png")
    for channels in (1, 3):
        pixels = decode((tmp_path / "deep.png").read_bytes(), "deep", channels)
        assert pixels.shape == (1, 6, channels)
        assert pixels[0, :, 0].tolist() == [0, 0, 1, 3, 117, 255]


def test_pictures_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # taken with the camera turned: to be shown turned to the right
    picture = Image.new("RGB", (6, 4), BLUE)
    picture.paste(RED, (0, 0, 3, 4))
    picture.save(tmp_path / "turned.png", exif=exif)
    pixels = decode((tmp_path / "turned.png").read_bytes(), "turned")
    assert pixels.shape == (6, 4, 3)
    assert (pixels[:3] == RED).all()
    assert (pixels[3:] == BLUE).all()


def cut(file):
    file.write_bytes(file.read_bytes()[:50])


@pytest.mark.parametrize(("spoil", "message"), [
    (shutil.rmtree, "{root}: no such folder; folder:PATH must contain one folder per class"),
    (lambda root: shutil.rmtree(root / "train" / "dog"), "{root}/train: 1 class folders; there must be at least two"),
    (lambda root: shutil.rmtree(root / "train"), "{root}: 1 class folders"),
    (lambda root: shutil.rmtree(root / "test"), "{root}: needs a folder 'test' or 'val' beside 'train'"),
    (lambda root: (root / "test" / "dog").rename(root / "test" / "emu"),
     "{root}: 'train' and 'test' must have the same classes; only one has dog, emu"),
    (lambda root: (root / "test" / "dog" / "00.png").unlink(), "{root}/test/dog: the class folder contains no images"),
    (lambda root: cut(root / "train" / "dog" / "00.png"), "{root}/train/dog/00.png: damaged image"),
    (lambda root: (root / "train" / "dog" / "00.png").write_text("no image"), "{root}/train/dog/00.png: damaged image"),
    (lambda root: paint(root / "train" / "dog" / "01.png", size=(5, 4)),
     "{root}/train/dog/01.png is 4x5, but others are 4x6; set data.size to resize them all"),
    (lambda root: paint_splits(root, ("test",), size=(3, 3)),
     "folder:{root}: training images are (4, 6, 3), but test images are (3, 3, 3); set data.size to resize them"),
])
def test_a_bad_folder_is_refused_and_named(tmp_path, spoil, message):
    root = tmp_path / "images"
    paint_splits(root)
    read(root)
    spoil(root)
    with pytest.raises(BadInput) as refused:
        read(root)
    assert message.format(root=root) in str(refused.value)


def test_too_few_images_for_a_test_split_are_refused(tmp_path):
    paint_splits(tmp_path, (".",), count=2)
    with pytest.raises(BadInput, match="the test split contains no images"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_cut_anywhere_is_whole_or_refused(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    stream = BytesIO()
    noise.save(stream, kind)
    content = stream.getvalue()
    whole = decode(content, "record 7")
    for length in range(len(content)):
        if length < len(content) - 20:
            with pytest.raises(BadInput, match=r"^record 7: damaged image"):
                decode(content[:length], "record 7")
        else:  # perhaps only the end mark is gone
            with suppress(BadInput):
                np.testing.assert_array_equal(decode(content[:length], "record 7"), whole)


@pytest.mark.parametrize("label", [-1, 10])
@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_out_of_range_are_named(split, label):
    splits = {"train": numbered(30), "test": numbered(20)}
    splits[split].labels[13:] = label
    with pytest.raises(BadInput, match=rf"^digits: image 13 of the {split} split has label {label}, but the "
                                       r"classes are 0 \.\.\. 9$"):
        make_dataset(Data(source="digits"), tuple("0123456789"), **splits)


def test_too_many_validation_images_are_refused():
    with pytest.raises(BadInput, match=r"data\.validation-images is 1437, but digits has only 1437 training images"):
        load_data(Data(source="digits", validation_images=1437))
    assert len(load_data(Data(source="digits", validation_images=1436)).train.labels) == 1


def test_the_size_of_the_digits_cannot_be_chosen():
    with pytest.raises(BadInput, match=r"data\.size is 16; the digits have 8x8 pixels and are not resized"):
        load_data(Data(source="digits", size=16))
