"""Where the photographs of a set lie: in folders, in ImageNet's official archives, or in a prepared TFDS set.

The order is one for all three, by class and then by file name, so that they give the same batches. An index of archives
or of a prepared set is built once and kept in the cache.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resjax.data.cache import cached
from resjax.data.picture import EXTENSIONS
from resjax.data.prepared import Arrays, data_directory, find_prepared, fingerprint
from resjax.data.sources import class_names
from resjax.errors import BadInput
from resjax.experiment import Photographs
from resjax.photographs.records import PreparedReader, index_prepared
from resjax.photographs.tars import TRAIN, VALIDATION, TarReader, index_archives


class Photos(NamedTuple):
    """Encoded images: `names` and `labels` (int32) `[images]`, and how to read the i-th, also in another process."""

    names: np.ndarray
    labels: np.ndarray
    read: Callable[[int], bytes]

    def name(self, index: int) -> str:
        """Name an image in a message."""
        return os.fsdecode(self.names[index])


class PhotoSet(NamedTuple):
    """The splits of a source; ImageNet's validation images are the test, as its test labels are not public."""

    classes: tuple[str, ...]
    train: Photos
    test: Photos


@dataclass(frozen=True)
class FileReader:
    """Reads `root/name`."""

    root: Path
    names: np.ndarray

    def __call__(self, index: int) -> bytes:
        return (self.root / os.fsdecode(self.names[index])).read_bytes()


def find_photographs(data: Photographs) -> PhotoSet:
    """Find the images of the source that `data` names. Raises BadInput, naming the folder or file that is wrong."""
    kind, _, rest = data.source.partition(":")
    match kind:
        case "folder":
            classes, splits = index_folders(Path(rest).expanduser())
        case "tars":
            classes, splits = find_archives(Path(rest).expanduser())
        case _:
            classes, splits = find_records(rest, data)
    for split, photos in zip(("training", "test"), splits, strict=True):
        if not len(photos.labels):
            raise BadInput(f"{data.source}: there is no {split} image")
        if photos.labels.min() < 0 or photos.labels.max() >= len(classes):
            raise BadInput(f"{data.source}: a {split} image has a label outside of 0 ... {len(classes) - 1}")
    return PhotoSet(classes, *splits)


def index_folders(root: Path) -> tuple[tuple[str, ...], list[Photos]]:
    """List `root/train/CLASS/image` and `root/val/CLASS/image` (or `test`)."""
    train = root / "train"
    test = next((root / name for name in ("val", "test") if (root / name).is_dir()), None)
    if not train.is_dir() or test is None:
        raise BadInput(f"{root}: it must hold a folder 'train' and a folder 'val', with one folder per class in each")
    classes = class_names(train)
    if class_names(test) != classes:
        odd = sorted(set(classes) ^ set(class_names(test)))
        raise BadInput(f"{root}: 'train' and '{test.name}' must hold the same classes; only one has: {', '.join(odd)}")
    return classes, [index_classes(split, classes) for split in (train, test)]


def index_classes(root: Path, classes: tuple[str, ...]) -> Photos:
    """List the images of every class folder, by name."""
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        with os.scandir(root / name) as entries:
            files = sorted(entry.name for entry in entries if is_image(entry.name))
        if not files:
            raise BadInput(f"{root / name}: the class folder holds no image ({', '.join(EXTENSIONS)})")
        names += [f"{name}/{file}" for file in files]
        labels += [label] * len(files)
    encoded = np.array([os.fsencode(name) for name in names])
    return Photos(encoded, np.array(labels, np.int32), FileReader(root, encoded))


def is_image(name: str) -> bool:
    """Say whether a file is an image, by its name."""
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def find_archives(root: Path) -> tuple[tuple[str, ...], list[Photos]]:
    """List the images within ImageNet's official archives, which stay as they are."""
    arrays = cached("imagenet-archives", fingerprint(root, None) if root.is_dir() else "", lambda: index_archives(root))
    return tuple(arrays["classes"].tolist()), [
        Photos(arrays[f"{split}_names"], arrays[f"{split}_labels"],
               TarReader(root / file, arrays[f"{split}_offsets"], arrays[f"{split}_sizes"]))
        for split, file in (("train", TRAIN), ("test", VALIDATION))]


def find_records(name: str, data: Photographs) -> tuple[tuple[str, ...], list[Photos]]:
    """List the images of a prepared TFDS set, `NAME`, `NAME/CONFIG` or `NAME:VERSION`."""
    folder = find_prepared(name, data_directory(data.directory))
    arrays: Arrays = cached(f"index-{name.replace('/', '-').replace(':', '-')}", fingerprint(folder, None),
                            lambda: index_prepared(folder))
    return tuple(arrays["classes"].tolist()), [
        Photos(arrays[f"{split}_names"], arrays[f"{split}_labels"],
               PreparedReader(folder, str(arrays[f"{split}_split"]), str(arrays["image"]), arrays[f"{split}_records"]))
        for split in ("train", "test")]
