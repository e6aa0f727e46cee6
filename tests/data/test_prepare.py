"""CIFAR-10 from its archive to a set that TFDS reads, without TensorFlow."""

import tarfile
import urllib.error
import urllib.request
from io import BytesIO

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import flip

from resjax import BadInput, Data
from resjax.data import cifar10 as prepare
from resjax.data import load_data, prepare_cifar10
from resjax.data.prepared import find_prepared

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

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
    folder = prepare_cifar10(directory, archive)
    assert folder == directory / "cifar10" / "3.0.2"
    builder = tfds.builder("cifar10", data_dir=directory)
    found = {record["id"].decode(): record for split in ("train", "test") for record in builder.as_data_source(split)}
    assert found.keys() == examples.keys()
    assert all(np.array_equal(found[key]["image"], pixels) and found[key]["label"] == label
               for key, (pixels, label) in examples.items())
    data = load_data(Data(source="tfds:cifar10", directory=directory))
    assert data.classes == CIFAR10
    for split, images in (("train", data.train), ("test", data.test)):
        expected = sorted((p.tobytes(), label) for key, (p, label) in examples.items() if key.startswith(split))
        assert sorted((p.tobytes(), label) for p, label in zip(*images, strict=True)) == expected


def test_a_second_prepare_says_that_it_is_there(tmp_path, archive, capsys):
    folder = prepare_cifar10(tmp_path / "data", archive)
    before = sorted((file, file.stat().st_mtime_ns) for file in folder.iterdir())
    assert prepare_cifar10(tmp_path / "data", tmp_path / "no.tar.gz") == folder
    assert capsys.readouterr().err == f"{folder} already exists\n"
    assert sorted((file, file.stat().st_mtime_ns) for file in folder.iterdir()) == before
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["cifar10"]


def assert_refused(directory, archive, *messages):
    with pytest.raises(BadInput) as refused:
        prepare_cifar10(directory, archive)
    assert all(message in str(refused.value) for message in messages), refused.value
    assert not directory.exists() or list(directory.iterdir()) == []


def test_a_wrong_or_missing_archive_is_refused(tmp_path, archive):
    flip(archive, 1000)
    assert_refused(tmp_path / "data", archive, f"{archive}: this is not the official binary archive, or it is damaged",
                   prepare.SHA256, prepare.digest(archive), prepare.URL)
    assert_refused(tmp_path / "data", tmp_path / "none.tar.gz", f"{tmp_path}/none.tar.gz: no such file", prepare.URL)


def test_an_archive_with_broken_records_is_refused(tmp_path, archive, monkeypatch):
    monkeypatch.setattr(prepare, "RECORD", 3000)
    assert_refused(tmp_path / "data", archive, "data_batch_1.bin has 9219 bytes; it must consist of records")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("write() failed: disk full")])
def test_a_failure_in_the_middle_leaves_nothing(tmp_path, archive, monkeypatch, error):
    real, left = prepare.png, [9]

    def failing(pixels):
        left[0] -= 1
        if not left[0]:
            raise error
        return real(pixels)

    monkeypatch.setattr(prepare, "png", failing)
    assert_refused(tmp_path / "data", archive, f"{tmp_path}/data: cannot prepare CIFAR-10 there", error.args[-1])
    monkeypatch.setattr(prepare, "png", real)
    assert prepare_cifar10(tmp_path / "data", archive).is_dir()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path, archive):
    assert_refused(archive / "data", archive, f"{archive}/data: cannot prepare CIFAR-10 there: ", "Not a directory")


def test_what_lies_in_the_way_is_named_and_kept(tmp_path, archive):
    other = tmp_path / "data" / "cifar10" / "3.0.2" / "notes"
    other.mkdir(parents=True)
    with pytest.raises(BadInput, match=r"data: cannot prepare CIFAR-10 there: .*/data/cifar10/3\.0\.2 is not empty"):
        prepare_cifar10(tmp_path / "data", archive)
    assert list((tmp_path / "data").rglob("*")) == [other.parent.parent, other.parent, other]


def serve(monkeypatch, content, length):
    class Response(BytesIO):
        headers = {"Content-Length": str(length)}  # noqa: RUF012

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Response(content))


def test_cifar10_is_downloaded_where_no_archive_is_given(tmp_path, archive, monkeypatch):
    content = archive.read_bytes()
    serve(monkeypatch, content, len(content))
    folder = prepare_cifar10(tmp_path / "data", None)
    assert find_prepared("cifar10", tmp_path / "data") == folder
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["cifar10"]


def test_a_download_that_fails_or_ends_early_is_refused(tmp_path, archive, monkeypatch):
    serve(monkeypatch, archive.read_bytes()[:500], 900)
    assert_refused(tmp_path / "data", None, f"{prepare.URL}: the connection ended after 500 of 900 bytes; "
                   "download the file yourself and pass it with --archive")

    def refuse(url, timeout):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert_refused(tmp_path / "data", None, f"{prepare.URL}: Name or service not known; download the file yourself")
