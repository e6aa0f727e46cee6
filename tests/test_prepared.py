"""Prepared TFDS sets read without TensorFlow, the cache of decoded images, and CIFAR-10 from its archive."""

import os
import re
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from resjax import BadInput, Data
from resjax.data import load, prepare, prepare_cifar10, prepared
from resjax.data.prepared import feature_keys, find_prepared

CLASSES = ("cat", "dog", "emu")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("RESJAX_CACHE", str(tmp_path / "cache"))
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
    return load(Data(source=f"tfds:{name}", directory=directory, **settings))


@pytest.fixture
def decodes(monkeypatch):
    """A list that grows by one with every decoding."""
    calls, real = [], prepared.decode
    monkeypatch.setattr(prepared, "decode", lambda *arguments: (calls.append(1), real(*arguments))[1])
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
    with pytest.raises(BadInput, match=r"^tfds:tiny: image \d of the test split has label -1, and there are 3 classes"):
        read(tmp_path)


def test_pictures_of_differing_sizes_need_a_size(tmp_path):
    write_set(tmp_path, train=[*numbered(5), *numbered(5, height=6)], test=numbered(3, width=9))
    with pytest.raises(BadInput, match=r"1\.0\.0:train, record \d is \(\d, 5, 3\), others are .*; set data\.size"):
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
    with pytest.raises(BadInput, match=r"^tiny:3\.0\.0 is not in .*, which holds .*tiny; prepare it with TFDS"):
        read(tmp_path, "tiny:3.0.0")


def test_a_missing_set_is_told_how_to_get(tmp_path):
    (tmp_path / "mnist").mkdir()
    with pytest.raises(BadInput, match=f"^cifar10 is not in {tmp_path}, which holds mnist; to get it: "
                                       f"resjax prepare cifar10 --directory {tmp_path}"):
        read(tmp_path, "cifar10")
    with pytest.raises(BadInput, match=r"holds no data set; prepare it with TFDS \(file_format='array_record'\)"):
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


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def label_with_text(file):
    text = re.sub(r'"classLabel": {[^}]*}', '"text": {}', file.read_text())
    file.write_text(text.replace("class_label_feature.ClassLabel", "text_feature.Text"))


@pytest.mark.parametrize(("file", "spoil", "message"), [
    ("tiny-train.array_record-00000-of-00001", Path.unlink, "a file of the train split is damaged or missing"),
    ("tiny-test.array_record-00000-of-00001", lambda file: file.write_bytes(file.read_bytes()[:65_536]),
     "a file of the test split is damaged or missing"),
    ("tiny-test.array_record-00000-of-00001", lambda file: flip(file, 300), "a file of the test split is damaged"),
    ("dataset_info.json", lambda file: file.write_text(file.read_text()[:100]), "cannot read dataset_info.json"),
    ("features.json", Path.unlink, "cannot read dataset_info.json and features.json"),
    ("dataset_info.json", lambda file: file.write_text(file.read_text().replace("array_record", "tfrecord")),
     "prepare the set with file_format='array_record'"),
    ("features.json", label_with_text, "is no image classification set: its features are image, label"),
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
    with pytest.raises(BadInput, match="has the splits train; 'train' and 'test' or 'validation' are needed"):
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
        with pytest.warns(UserWarning, match=r"tiny are not kept for the next run .*; RESJAX_CACHE names another"):
            assert_holds(read(tmp_path).train, numbered(20))
    assert len(decodes) == 2


def test_a_full_disk_leaves_no_half_cache(tmp_path, monkeypatch):
    write_set(tmp_path, train=numbered(20), test=numbered(6))

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("resjax.files.os.fsync", full)
        with pytest.warns(UserWarning, match="No space left on device"):
            read(tmp_path)
    assert list((tmp_path / "cache" / "data").iterdir()) == []
    assert_holds(read(tmp_path).train, numbered(20))


FILES = [name for names in prepare.SPLITS.values() for name in names]


def write_archive(file, counts=(3, 3, 3, 3, 3, 4), seed=0):
    """The official layout with few records: returns `{split_number: (pixels, label)}`."""
    random, examples = np.random.default_rng(seed), {}
    with tarfile.open(file, "w:gz") as tar:
        for name, count in zip(FILES, counts, strict=True):
            labels = random.integers(0, 10, count, np.uint8)
            pixels = random.integers(0, 256, (count, 32, 32, 3), np.uint8)
            content = b"".join(bytes([label]) + image.transpose(2, 0, 1).tobytes()
                               for label, image in zip(labels, pixels, strict=True))
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
            split = "test" if name == "test_batch.bin" else "train"
            for image, label in zip(pixels, labels.tolist(), strict=True):
                examples[f"{split}_{sum(key.startswith(split) for key in examples):05d}"] = image, label
    return examples


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small archive that passes for the official one."""
    file = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(file)
    monkeypatch.setattr(prepare, "SHA256", prepare.digest(file))
    return file


def test_cifar10_reads_back_by_tfds_and_by_us(tmp_path, archive):
    examples, directory = write_archive(tmp_path / "same.tar.gz"), tmp_path / "data"
    folder = prepare_cifar10(directory, archive, lambda _: None)
    assert folder == directory / "cifar10" / "3.0.2"
    builder = tfds.builder("cifar10", data_dir=directory)
    found = {record["id"].decode(): record for split in ("train", "test") for record in builder.as_data_source(split)}
    assert found.keys() == examples.keys()
    assert all(np.array_equal(found[key]["image"], pixels) and found[key]["label"] == label
               for key, (pixels, label) in examples.items())
    data = load(Data(source="tfds:cifar10", directory=directory))
    assert data.classes == CIFAR10
    for split, images in (("train", data.train), ("test", data.test)):
        expected = sorted((p.tobytes(), label) for key, (p, label) in examples.items() if key.startswith(split))
        assert sorted((p.tobytes(), label) for p, label in zip(*images, strict=True)) == expected


def test_a_second_prepare_says_that_it_is_there(tmp_path, archive):
    said = []
    folder = prepare_cifar10(tmp_path / "data", archive, said.append)
    before = sorted((file, file.stat().st_mtime_ns) for file in folder.iterdir())
    assert prepare_cifar10(tmp_path / "data", tmp_path / "no.tar.gz", said.append) == folder
    assert said[0] == "reading cifar-10-binary.tar.gz"
    assert said[-1] == f"{folder} is there already"
    assert sorted((file, file.stat().st_mtime_ns) for file in folder.iterdir()) == before
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["cifar10"]


def assert_refused(directory, archive, *messages):
    with pytest.raises(BadInput) as refused:
        prepare_cifar10(directory, archive, lambda _: None)
    assert all(message in str(refused.value) for message in messages), refused.value
    assert not directory.exists() or list(directory.iterdir()) == []


def test_a_wrong_or_missing_archive_is_refused(tmp_path, archive):
    flip(archive, 1000)
    assert_refused(tmp_path / "data", archive, f"{archive}: this is not the official binary archive, or it is damaged",
                   prepare.SHA256, prepare.digest(archive), prepare.URL)
    assert_refused(tmp_path / "data", tmp_path / "none.tar.gz", f"{tmp_path}/none.tar.gz: no such file", prepare.URL)


def test_an_archive_with_broken_records_is_refused(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(prepare, "RECORD", 3000)
    assert_refused(tmp_path / "data", archive, "data_batch_1.bin holds 9219 bytes; records of 3000 were expected")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write() failed: disk full")])
def test_a_failure_in_the_middle_leaves_nothing(tmp_path, archive, monkeypatch, error):
    real, left = prepare.png, [9]

    def failing(pixels):
        left[0] -= 1
        if not left[0]:
            raise error
        return real(pixels)

    monkeypatch.setattr(prepare, "png", failing)
    assert_refused(tmp_path / "data", archive, f"{tmp_path}/data: cannot prepare CIFAR-10 there", str(error))
    monkeypatch.setattr(prepare, "png", real)
    assert prepare_cifar10(tmp_path / "data", archive, lambda _: None).is_dir()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path, archive):
    assert_refused(archive / "data", archive, f"{archive}/data: cannot prepare CIFAR-10 there: ", "Not a directory")


def test_what_lies_in_the_way_is_named_and_kept(tmp_path, archive):
    other = tmp_path / "data" / "cifar10" / "3.0.2" / "notes"
    other.mkdir(parents=True)
    with pytest.raises(BadInput, match=r"data: cannot prepare CIFAR-10 there: .*not empty.*3\.0\.2"):
        prepare_cifar10(tmp_path / "data", archive, lambda _: None)
    assert list((tmp_path / "data").rglob("*")) == [other.parent.parent, other.parent, other]


def serve(monkeypatch, content, length):
    class Response(BytesIO):
        headers = {"Content-Length": str(length)}  # noqa: RUF012

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Response(content))


def test_cifar10_is_downloaded_where_no_archive_is_given(tmp_path, archive, monkeypatch):
    content, said = archive.read_bytes(), []
    serve(monkeypatch, content, len(content))
    folder = prepare_cifar10(tmp_path / "data", None, said.append)
    assert find_prepared("cifar10", tmp_path / "data") == folder
    assert said[0] == "downloaded 0 of 0 MB"
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["cifar10"]


def test_a_download_that_fails_or_ends_early_is_refused(tmp_path, archive, monkeypatch):
    serve(monkeypatch, archive.read_bytes()[:500], 900)
    assert_refused(tmp_path / "data", None, f"{prepare.URL}: the connection ended after 500 of 900 bytes; "
                   "download it by other means and give it by --archive")

    def refuse(url, timeout):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert_refused(tmp_path / "data", None, f"{prepare.URL}: Name or service not known; download it by other means")


REAL = os.environ.get("RESJAX_DATA", "")


@pytest.mark.skipif(not REAL or not (Path(REAL).expanduser() / "cifar10").is_dir(),
                    reason="RESJAX_DATA does not name a folder that holds cifar10")
def test_the_real_cifar10():
    data = load(Data(source="tfds:cifar10", directory=Path(REAL), validation_images=5000))
    train = np.concatenate([data.train.labels, data.validation.labels])
    assert [len(split.labels) for split in (data.train, data.validation, data.test)] == [45_000, 5_000, 10_000]
    assert data.train.pixels.shape[1:] == data.test.pixels.shape[1:] == (32, 32, 3)
    assert data.classes == CIFAR10
    assert (np.bincount(train) == 5000).all()
    assert (np.bincount(data.test.labels) == 1000).all()
