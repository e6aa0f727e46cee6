"""Reads ImageNet's official archives without unpacking them."""

import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np

from resjax.data.folders import is_hidden
from resjax.data.image_files import ImageFiles
from resjax.data.prepared import files_digest
from resjax.system.errors import BadInput, check
from resjax.system.files import cached, stamp_of
from resjax.system.progress import track

TRAIN = "ILSVRC2012_img_train.tar"           # contains an archive of JPEGs per class, such as n01440764.tar
VALIDATION = "ILSVRC2012_img_val.tar"        # 50,000 JPEGs
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"      # 2.5 MB; contains the labels of the validation images
CLASSES = "ILSVRC2012_devkit_t12/data/meta.mat"
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
ARCHIVES = {"train": TRAIN, "test": VALIDATION}


@dataclass(frozen=True)
class TarReader:
    """Reads members of an uncompressed archive. Every process opens the archive once."""

    file: Path
    offsets: np.ndarray
    lengths: np.ndarray

    def __call__(self, index: int) -> bytes:
        return os.pread(descriptor(self.file), int(self.lengths[index]), int(self.offsets[index]))

    def head(self, index: int, size: int) -> bytes:
        return os.pread(descriptor(self.file), min(size, int(self.lengths[index])), int(self.offsets[index]))

    def sizes(self) -> np.ndarray:
        return self.lengths

    def stamps(self) -> np.ndarray:
        return np.array([stamp_of(self.file)])


@cache
def descriptor(file: Path) -> int:
    """Open a file for reading, and keep it open until the process ends."""
    return os.open(file, os.O_RDONLY)


def find_archives(root: Path, splits: Sequence[str]) -> tuple[tuple[str, ...], list[ImageFiles]]:
    """List the images in ImageNet's official archives. Return the classes, and the images of each split."""
    for name in (*(ARCHIVES[split] for split in splits), DEVKIT):
        if not (root / name).is_file():
            raise BadInput(f"{root}: {name} is missing; tars:PATH must be a folder with ImageNet's archives "
                           f"{TRAIN} (for training), {VALIDATION} and {DEVKIT}")
    indices = {split: cached(f"imagenet-images-{split}", files_digest(root), partial(index_archive, root, split))
               for split in splits}
    return tuple(indices[splits[0]]["classes"].tolist()), [
        ImageFiles(index["names"], index["labels"],
                   TarReader(root / ARCHIVES[split], index["offsets"], index["lengths"]), f"{ARCHIVES[split]}, ")
        for split, index in indices.items()]


def index_archive(root: Path, split: str) -> dict[str, np.ndarray]:
    """List every JPEG of a split, by its `names`, `labels`, `offsets` and `lengths`; also return the `classes`."""
    classes, truth = read_devkit(root / DEVKIT)
    if split == "train":
        members = list(training_members(root / TRAIN, classes))
    else:
        members = [(truth[number], *member) for number, member in enumerate(validation_members(root, truth))]
    labels, names, offsets, lengths = zip(*sorted(members), strict=True)
    return {"classes": np.array(classes), "labels": np.array(labels, np.int32), "names": np.array(names),
            "offsets": np.array(offsets), "lengths": np.array(lengths)}


def training_members(file: Path, classes: tuple[str, ...]) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield label, name, offset and size of every JPEG in the nested archives."""
    labels = {name: label for label, name in enumerate(classes)}
    with file.open("rb") as stream:
        inner = list(members(file, stream, 0))
        missing = labels.keys() - {Path(name).stem for name, _, _ in inner}
        if missing:
            raise BadInput(f"{file}: the archive of the class {min(missing)} is missing")
        for name, offset, _ in track(inner, f"indexing {file.name}", len(inner)):
            label = labels.get(Path(name).stem)
            if label is None:
                raise BadInput(f"{file}: {DEVKIT} names no class for the archive {name}")
            for image, start, size in members(file, stream, offset):
                yield label, image.encode(), start, size


def validation_members(root: Path, truth: list[int]) -> list[tuple[bytes, int, int]]:
    """List name, offset and size of the validation images by name, which is also the order of their labels."""
    file = root / VALIDATION
    with file.open("rb") as stream:
        images = sorted((name.encode(), offset, size) for name, offset, size in members(file, stream, 0))
    check(len(images) == len(truth), f"{file} contains {len(images)} images, but {DEVKIT} labels {len(truth)}")
    return images


def members(file: Path, stream: IO[bytes], offset: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size of the files in the archive at `offset`, except files that operating systems add."""
    stream.seek(offset)
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if member.isfile() and not any(is_hidden(part) for part in Path(member.name).parts):
                    yield member.name, member.offset_data, member.size
    except tarfile.TarError as error:
        raise BadInput(f"{file}: incomplete archive ({error}, after byte {offset}); download it again") from None


def read_devkit(file: Path) -> tuple[tuple[str, ...], list[int]]:
    """Read the classes (WordNet ids, in the usual sorted order) and the labels of the validation images."""
    try:
        with tarfile.open(file) as tar:
            meta, truth = (tar.extractfile(name).read() for name in (CLASSES, TRUTH))  # type: ignore[union-attr]
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise BadInput(f"{file}: not ImageNet's development kit, or damaged ({error}); download it again") from None
    from scipy.io import loadmat  # imported here, because it takes 60 ms

    synsets = loadmat(BytesIO(meta), squeeze_me=True)["synsets"]
    ids = {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets if synset["num_children"] == 0}
    classes = tuple(sorted(ids.values()))
    labels = {name: label for label, name in enumerate(classes)}
    return classes, [labels[ids[int(line)]] for line in truth.split()]
