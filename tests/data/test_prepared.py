"""Prepared TFDS sets read without TensorFlow, and the cache of decoded images."""

import os
import re
import shutil
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import flip
from PIL import Image

from resjax import BadInput, Data
from resjax.data import images, load_data
from resjax.data.prepared import feature_keys
from resjax.system.files import CACHE_FORMAT

CLASSES = ("cat", "dog", "emu")


@pytest.fixture(autouse=True)
def no_directory(monkeypatch):
    monkeypatch.delenv("RESJAX_DATA", raising=False)


def png(pixels):
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return BytesIO(stream.getvalue())


def numbered(count, height=4, width=5, channels=3, seed=0):
    """Random images, the first value of each its number, in classes 0, 1, 2, 0, 1, 2, ..."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count)
    return [(image.squeeze(), number % 3) for number, image in enumerate(pixels)]


def write_set(directory, called="tiny", version="1.0.0", channels=3, **splits):
    """Let TFDS prepare a set from `split=[(pixels, label), ...]`."""
    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = called
        VERSION = tfds.core.Version(version)

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(None, None, channels)),
                "label": tfds.features.ClassLabel(names=CLASSES)}))

        def _split_generators(self, _):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            for number, (pixels, label) in enumerate(splits[split]):
                yield number, {"image": png(pixels), "label": label}

    Tiny(data_dir=directory, file_format="array_record").download_and_prepare()
    return directory / called / version


def assert_holds(images, examples):
    """TFDS shuffles: compare by the number in the first value."""
    order = np.argsort(images.pixels[:, 0, 0, 0])
    np.testing.assert_array_equal(images.pixels[order].squeeze(), np.stack([pixels for pixels, _ in examples]))
    assert images.labels[order].tolist() == [label for _, label in examples]
    assert (images.pixels.dtype, images.labels.dtype) == (np.uint8, np.int32)


def read(directory, name="tiny", **settings):
    return load_data(Data(source=f"tfds:{name}", directory=directory, **settings))


@pytest.fixture
def decodes(monkeypatch):
    """A list that grows by one with every decoding."""
    calls, real = [], images.read_splits
    monkeypatch.setattr(images, "read_splits", lambda *arguments: (calls.append(1), real(*arguments))[1])
    return calls


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("held", ["test", "validation"])
def test_a_set_is_read_exactly_and_without_tensorflow(tmp_path, channels, held):
    train, test = numbered(20, channels=channels), numbered(6, channels=channels, seed=1)
    write_set(tmp_path, channels=channels, **{"train": train, held: test})
    data = read(tmp_path)
    assert "tensorflow" not in sys.modules
    assert data.classes == CLASSES
    assert data.train.pixels.shape == (20, 4, 5, channels)
    assert_holds(data.train, train)
    assert_holds(data.test, test)


def test_the_image_and_the_class_are_chosen_whatever_the_order_of_the_features():
    picture, kind = tfds.features.Image(), tfds.features.ClassLabel(num_classes=2)
    features = {"b": picture, "image": picture, "a": picture, "d": kind, "label": kind, "c": kind}
    for order in (features, dict(reversed(features.items()))):
        assert feature_keys(Path(), order) == ("image", "label")
        rest = {key: value for key, value in order.items() if key not in ("image", "label")}
        assert feature_keys(Path(), rest) == ("a", "c")


def test_validation_images_come_from_the_training_images(tmp_path):
    write_set(tmp_path, train=numbered(20), test=numbered(6))
    data = read(tmp_path, validation_images=5)
    assert [len(split.labels) for split in (data.train, data.validation, data.test)] == [15, 5, 6]


def test_unknown_labels_are_refused_and_named(tmp_path):
    write_set(tmp_path, train=numbered(6), test=[*numbered(5), (numbered(6)[5][0], -1)])
    with pytest.raises(BadInput, match=r"^tfds:tiny: image \d of the test split has label -1, but the classes are"):
        read(tmp_path)


def test_pictures_of_differing_sizes_need_a_size(tmp_path):
    write_set(tmp_path, train=[*numbered(5), *numbered(5, height=6)], test=numbered(3, width=9))
    with pytest.raises(BadInput, match=r"1\.0\.0:train, record \d+ is \dx5, but others are \dx5; set data\.size"):
        read(tmp_path)
    data = read(tmp_path, size=3)
    assert (data.train.pixels.shape, data.test.pixels.shape) == ((10, 3, 3, 3), (3, 3, 3, 3))


def test_the_newest_version_is_read_unless_one_is_named(tmp_path):
    versions = {version: numbered(count) for version, count in (("1.0.0", 4), ("1.10.0", 5), ("1.9.0", 6))}
    for version, examples in versions.items():
        write_set(tmp_path, version=version, train=examples, test=numbered(3))
    (tmp_path / "tiny" / "2.0.0").mkdir()  # nothing in it: not prepared
    assert_holds(read(tmp_path).train, versions["1.10.0"])
    assert_holds(read(tmp_path, "tiny:1.0.0").train, versions["1.0.0"])
    with pytest.raises(BadInput, match=r"^tiny:3\.0\.0 is not in .*, which contains .*tiny; prepare it with TFDS"):
        read(tmp_path, "tiny:3.0.0")


def test_a_missing_set_is_told_how_to_get(tmp_path):
    (tmp_path / "mnist").mkdir()
    with pytest.raises(BadInput, match=f"^cifar10 is not in {tmp_path}, which contains mnist; to prepare it, run "
                                       f"resjax prepare cifar10 --directory {tmp_path}"):
        read(tmp_path, "cifar10")
    with pytest.raises(BadInput, match=r"contains no data set; prepare it with TFDS \(file_format='array_record'\)"):
        read(tmp_path / "nowhere")


def test_the_directory_is_the_argument_or_resjax_data(tmp_path, monkeypatch):
    for place, count in (("here", 4), ("there", 5)):
        write_set(tmp_path / place, train=numbered(count), test=numbered(3))
    monkeypatch.setenv("RESJAX_DATA", str(tmp_path / "there"))
    assert len(read(None).train.labels) == 5
    assert len(read(tmp_path / "here").train.labels) == 4
    monkeypatch.setenv("RESJAX_DATA", "~/there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read(None).train.labels) == 5


def label_with_text(file):
    text = re.sub(r'"classLabel": {[^}]*}', '"text": {}', file.read_text())
    file.write_text(text.replace("class_label_feature.ClassLabel", "text_feature.Text"))


@pytest.mark.parametrize(("file", "spoil", "message"), [
    ("tiny-train.array_record-00000-of-00001", Path.unlink, "a file of the train split is damaged or missing"),
    ("tiny-test.array_record-00000-of-00001", lambda file: file.write_bytes(file.read_bytes()[:65_536]),
     "a file of the test split is damaged or missing"),
    ("tiny-test.array_record-00000-of-00001", lambda file: flip(file, 300), "a file of the test split is damaged"),
    ("tiny-test.array_record-00000-of-00001", lambda file: file.write_bytes(b""),  # as of a writer that was not closed
     "a file of the test split is damaged"),
    ("dataset_info.json", lambda file: file.write_text(file.read_text()[:100]), "cannot read dataset_info.json"),
    ("features.json", Path.unlink, "cannot read dataset_info.json and features.json"),
    ("dataset_info.json", lambda file: file.write_text(file.read_text().replace("array_record", "tfrecord")),
     "prepare the data set with file_format='array_record'"),
    ("features.json", label_with_text, "is not an image classification data set; its features are image, label"),
])
def test_damaged_and_foreign_sets_are_refused_by_name(tmp_path, file, spoil, message):
    folder = write_set(tmp_path, train=numbered(20), test=numbered(6))
    spoil(folder / file)
    with pytest.raises(BadInput) as refused:
        read(tmp_path)
    assert message in str(refused.value)
    assert str(folder) in str(refused.value)


def test_a_set_without_test_images_is_refused(tmp_path):
    write_set(tmp_path, train=numbered(5))
    with pytest.raises(BadInput, match="has the splits train; it needs 'train' and either 'test' or 'validation'"):
        read(tmp_path)


def test_the_second_load_comes_from_the_cache(tmp_path, decodes):
    train, test = numbered(20), numbered(6)
    write_set(tmp_path, train=train, test=test)
    for _ in range(3):
        data = read(tmp_path)
        assert_holds(data.train, train)
        assert_holds(data.test, test)
        assert data.classes == CLASSES
    assert len(decodes) == 1
    assert read(tmp_path, size=2).train.pixels.shape == (20, 2, 2, 3)
    assert len(decodes) == 2
    assert {file.suffix for file in (tmp_path / "cache" / "data").iterdir()} == {".npz", ".json"}


@pytest.mark.parametrize("spoil", [
    lambda file, seal: flip(file, file.stat().st_size // 2), lambda file, seal: flip(file, 500),
    lambda file, seal: file.write_bytes(file.read_bytes()[:-100]), lambda file, seal: file.unlink(),
    lambda file, seal: seal.unlink(), lambda file, seal: seal.write_text("{"), lambda file, seal: flip(seal, -5)])
def test_a_damaged_cache_is_rebuilt(tmp_path, decodes, spoil):
    train, test = numbered(20), numbered(6)
    write_set(tmp_path, train=train, test=test)
    read(tmp_path)
    spoil(*(next((tmp_path / "cache" / "data").glob(f"*{suffix}")) for suffix in (".npz", ".json")))
    for _ in range(2):
        data = read(tmp_path)
        assert_holds(data.train, train)
        assert_holds(data.test, test)
    assert len(decodes) == 2


def test_what_an_older_version_kept_is_not_read(tmp_path, decodes):
    """Whole and sealed, under the name that it had before files were read as they are today, and of other pixels."""
    train, test = numbered(20), numbered(6)
    write_set(tmp_path, train=train, test=test)
    read(tmp_path)
    (file,) = (tmp_path / "cache" / "data").glob("*.npz")
    for suffix, wrong in ((".npz", file.read_bytes()), (".json", file.with_suffix(".json").read_bytes())):
        file.with_name(file.name.replace(f"-{CACHE_FORMAT}-", "-")).with_suffix(suffix).write_bytes(wrong)
        file.with_suffix(suffix).unlink()
    assert_holds(read(tmp_path).train, train)
    assert len(decodes) == 2


def test_changed_files_are_read_anew(tmp_path, decodes):
    folder = write_set(tmp_path, train=numbered(20), test=numbered(6))
    read(tmp_path)
    shutil.rmtree(folder)
    changed = numbered(20, seed=5)
    write_set(tmp_path, train=changed, test=numbered(6))
    assert_holds(read(tmp_path).train, changed)
    os.utime(next(folder.glob("*train*")), (1, 1))
    assert_holds(read(tmp_path).train, changed)
    assert len(decodes) == 3


def test_a_cache_that_cannot_be_written_warns_and_no_more(tmp_path, monkeypatch, decodes):
    write_set(tmp_path, train=numbered(20), test=numbered(6))
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESJAX_CACHE", str(tmp_path / "file" / "below"))
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"cannot cache the decoded images of tiny.*; set RESJAX_CACHE"):
            assert_holds(read(tmp_path).train, numbered(20))
    assert len(decodes) == 2


def test_a_full_disk_leaves_no_half_cache(tmp_path, monkeypatch):
    write_set(tmp_path, train=numbered(20), test=numbered(6))

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("resjax.system.files.os.fsync", full)
        with pytest.warns(UserWarning, match="No space left on device"):
            read(tmp_path)
    assert list((tmp_path / "cache" / "data").iterdir()) == []
    assert_holds(read(tmp_path).train, numbered(20))
