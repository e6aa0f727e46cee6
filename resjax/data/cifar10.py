"""Converts CIFAR-10's official archive to a prepared TFDS data set, without TensorFlow."""

import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resjax.data.prepared import find_prepared, quiet_absl
from resjax.system.errors import BadInput, check
from resjax.system.files import digest, folder_aside, remove_leftovers
from resjax.system.progress import track, working
from resjax.system.terminal import tell

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"  # as in TFDS
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SPLITS = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
RECORD = 1 + 3 * 32 * 32  # a label, then the red, green and blue planes


def prepare_cifar10(directory: Path, archive: Path | None = None) -> Path:
    """Write `directory/cifar10/VERSION` in TFDS's format, from the given archive or by downloading it.

    `archive` is the official "CIFAR-10 binary version (suitable for C programs)". No incomplete files are left behind.
    Raises BadInput if the archive is not the official one, or if the download or the disk fails.
    """
    remove_leftovers(directory / "cifar10")
    try:
        folder = find_prepared("cifar10", directory)
    except BadInput:
        pass
    else:
        tell(f"{folder} already exists")
        return folder
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with folder_aside(directory / "cifar10") as aside:
            if archive is None:
                archive = download(URL, aside / "cifar-10-binary.tar.gz")
            check(archive.is_file(), f"{archive}: no such file; --archive must be cifar-10-binary.tar.gz, from {URL}")
            with working(f"checking {archive.name}"):
                sha256 = digest(archive)
            check(sha256 == SHA256, f"{archive}: this is not the official binary archive, or it is damaged: "
                                    f"its SHA-256 is {sha256} instead of {SHA256}; download it from {URL}")
            write_prepared(archive, aside)
            written = find_prepared("cifar10", aside)
            place = directory / "cifar10" / written.name
            check(not place.exists() or not any(place.iterdir()),
                  f"{directory}: cannot prepare CIFAR-10 there: {place} is not empty")
            place.parent.mkdir(exist_ok=True)
            written.rename(place)
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError if the disk is full
        raise BadInput(f"{directory}: cannot prepare CIFAR-10 there: {error}") from None
    return find_prepared("cifar10", directory)


def download(url: str, file: Path) -> Path:
    """Download a file."""
    try:
        with urllib.request.urlopen(url, timeout=60) as response, file.open("wb") as out:
            total = int(response.headers.get("Content-Length") or 0)
            blocks = iter(partial(response.read, 1 << 20), b"")
            for block in track(blocks, f"downloading {file.name}, MB", -(-total // (1 << 20))):
                out.write(block)
            if out.tell() < total:
                raise ConnectionError(f"the connection ended after {out.tell()} of {total} bytes")
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise BadInput(f"{url}: {reason}; download the file yourself and pass it with --archive") from None
    return file


def write_prepared(archive: Path, directory: Path) -> None:
    """Let TFDS write the data set to `directory` from a verified archive."""
    with quiet_absl():
        import tensorflow_datasets as tfds

    class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
        """The features, names and version of TFDS's cifar10."""

        name = "cifar10"
        VERSION = tfds.core.Version("3.0.2")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self, supervised_keys=("image", "label"), homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
                description="CIFAR-10: 50,000 training and 10,000 test images, 32x32, in 10 classes.",
                features=tfds.features.FeaturesDict({
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(32, 32, 3)),
                    "label": tfds.features.ClassLabel(names=CLASSES)}))

        def _split_generators(self, _: Any) -> Any:
            return {split: self._generate_examples(split) for split in SPLITS}

        def _generate_examples(self, split: str) -> Any:
            records = track(read_archive(archive, split), f"writing {split}", 10_000 * len(SPLITS[split]))
            for number, (pixels, label) in enumerate(records):
                key = f"{split}_{number:05d}"
                yield key, {"id": key, "image": BytesIO(png(pixels)), "label": label}

    with quiet_absl(), working("writing CIFAR-10"):
        tfds.disable_progress_bar()  # resjax reports progress itself
        Cifar10(data_dir=directory, file_format="array_record").download_and_prepare()


def read_archive(archive: Path, split: str) -> Iterator[tuple[np.ndarray, int]]:
    """Read (pixels `[32, 32, 3]`, label) in the archive's order."""
    with tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar.getmembers()}
        for name in SPLITS[split]:
            stream = tar.extractfile(members[name]) if name in members else None
            content = stream.read() if stream else b""
            if not content or len(content) % RECORD:
                raise BadInput(f"{archive}: {name} has {len(content)} bytes; it must consist of records of {RECORD} "
                               "bytes")
            records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
            for record in records:
                yield record[1:].reshape(3, 32, 32).transpose(1, 2, 0), int(record[0])


def png(pixels: np.ndarray) -> bytes:
    """Encode as PNG."""
    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "png")
    return out.getvalue()
