"""Locates the images of a data set in folders, in ImageNet's official archives, or in a prepared TFDS data set."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resjax.data.archives import find_archives
from resjax.data.folders import class_names, existing, is_hidden, list_classes
from resjax.data.image_files import ImageFiles
from resjax.data.prepared import find_records
from resjax.experiment import Data, Photographs
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded

BUT_TEST_SIZES = "digest but for the sizes of test images"  # unreadable test images may be repaired
TEST = ("test", "val")  # folders of test images; the first with class folders is used


class ImageSet(NamedTuple):
    """The splits of a source. ImageNet's validation images are the test split, since its test labels are not public.

    `remark` mentions files that are among the images but are not used, and an unexpected order of classes.
    """

    classes: tuple[str, ...]
    train: ImageFiles
    test: ImageFiles
    remark: str = ""

    def identity(self) -> dict[str, Any]:
        """Describe the images by classes, counts, and digests of names, sizes and labels, but not by their location."""
        learned, seen = self.train.fingerprint(), self.test.fingerprint(sizes=False)
        counts = len(self.train.labels), len(self.test.labels)
        return data_identity(self.classes, [learned, self.test.fingerprint()], *counts) | {
            BUT_TEST_SIZES: hashlib.sha256(learned + seen).hexdigest()}


def data_identity(classes: tuple[str, ...], parts: Iterable[bytes], train: int, test: int) -> dict[str, Any]:
    """Combine the facts that a run stores about its images."""
    return {"classes": list(classes), "training images": train, "test images": test,
            "digest": hashlib.sha256(b"".join(parts)).hexdigest()}


def find_images(data: Data | Photographs) -> ImageSet:
    """Find the training and test images of a source. Raises BadInput, naming the invalid folder or file."""
    kind, _, rest = data.source.partition(":")
    if kind == "folder":
        images = index_folders(expanded(rest))
    else:
        classes, (train, test) = find_stored(data, ("train", "test"))
        images = ImageSet(classes, train, test)
    for split, files in (("train", images.train), ("test", images.test)):
        check_labels(data.source, split, files.labels, len(images.classes))
    return images


def find_split(data: Data | Photographs, split: str) -> tuple[tuple[str, ...], ImageFiles, str]:
    """Find the classes, images and remark of one split, "train" or "test". The other split may be missing.

    For `folder:PATH`, the split is PATH/train or PATH/test (or val) if it exists, else all images of PATH. Raises
    BadInput, naming the invalid folder or file.
    """
    kind, _, rest = data.source.partition(":")
    remark = ""
    if kind == "folder":
        root = existing(expanded(rest))
        inner = root / "train" if split == "train" and (root / "train").is_dir() else None
        if split == "test":
            inner, remark = test_folder(root)
        if inner is None and any((root / name).is_dir() for name in ("train", *TEST)):
            raise BadInput(f"{root}: contains no folder '{split}'")
        folder = inner or root
        classes = class_names(folder)
        files, other = list_classes(folder, classes)
        remark = joined(remark, other)
    else:
        classes, (files,) = find_stored(data, (split,))
    check_labels(data.source, split, files.labels, len(classes))
    return classes, files, remark


def find_stored(data: Data | Photographs, splits: Sequence[str]) -> tuple[tuple[str, ...], list[ImageFiles]]:
    """Find the classes, and the images of each split, in ImageNet's archives or in a prepared data set."""
    kind, _, rest = data.source.partition(":")
    if kind == "tars":
        return find_archives(expanded(rest), splits)
    return find_records(rest, data.directory, splits, isinstance(data, Photographs))


def check_labels(source: str, split: str, labels: np.ndarray, classes: int) -> None:
    """Raise BadInput if a split has no images, or if an image's label is not one of the classes."""
    check(len(labels) > 0, f"{source}: the {split} split contains no images")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise BadInput(f"{source}: image {wrong[0]} of the {split} split has label {labels[wrong[0]]}, "
                       f"but the classes are 0 ... {classes - 1}")


def index_folders(root: Path) -> ImageSet:
    """List `root/train/CLASS/image` and `root/test/CLASS/image` (or `val`), sorted by class and name.

    Without a folder `train`, the classes are in `root` itself and a fifth of the images is held out for testing.
    """
    train = existing(root) / "train"
    if not train.is_dir():
        classes = class_names(root)
        files, remark = list_classes(root, classes)
        train_indices, test_indices = held_out(len(files.labels), len(files.labels) // 5)
        return ImageSet(classes, files.part(train_indices), files.part(test_indices), remark)
    test, unlabelled = test_folder(root)
    if test is None:
        there = sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))
        raise BadInput(f"{root}: needs a folder 'test' or 'val' beside 'train'; it contains {', '.join(there)}")
    classes = class_names(train)
    train_files, remark = list_classes(train, classes)
    if class_names(test) != classes:
        odd = ", ".join(sorted(set(classes) ^ set(class_names(test))))
        raise BadInput(f"{root}: 'train' and '{test.name}' must have the same classes; only one has {odd}")
    test_files, other = list_classes(test, classes)
    return ImageSet(classes, train_files, test_files, joined(unlabelled, remark, other))


def is_divided(source: str) -> bool:
    """Return whether a source is a folder without splits, from which `find_images` chooses the test images."""
    kind, _, rest = source.partition(":")
    return kind == "folder" and not (expanded(rest) / "train").is_dir()


def test_folder(root: Path) -> tuple[Path | None, str]:
    """Choose the first test folder with class folders. Remark on flat test folders, such as ImageNet's `test`."""
    there = [root / name for name in TEST if (root / name).is_dir()]
    chosen = next((folder for folder in there if is_sorted(folder)), there[0] if there else None)
    return chosen, (f"{there[0]}: ignored, because it has no class folders; {chosen} contains the test images"
                    if there and chosen != there[0] else "")


def is_sorted(folder: Path) -> bool:
    """Return whether a folder contains at least two class folders with files."""
    return sum(path.is_dir() and not is_hidden(path.name) and any(inner.is_file() for inner in path.iterdir())
               for path in folder.iterdir()) >= 2


def joined(*remarks: str) -> str:
    """Join remarks."""
    return "; ".join(filter(None, remarks))


def held_out(images: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the indices of images into those kept and `count` held out, the same ones for every seed of a run."""
    chosen = np.zeros(images, bool)
    chosen[np.random.default_rng(0).permutation(images)[:count]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
