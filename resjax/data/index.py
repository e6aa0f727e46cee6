"""Where the images of a set lie: in folders, in ImageNet's official archives, or in a prepared TFDS set.

All images of every source are found here and read by their number, whether they are then kept in memory or streamed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resjax.data.archives import find_archives
from resjax.data.decode import EXTENSIONS
from resjax.data.prepared import find_records
from resjax.errors import BadInput
from resjax.experiment import Data, Photographs

TEST = ("test", "val")  # folders of test images, the first that has class folders


class ImageFiles(NamedTuple):
    """Encoded images: `names` and `labels` (int32) `[images]`, and how to read the i-th, also in another process.

    `place` comes before a name in messages.
    """

    names: np.ndarray
    labels: np.ndarray
    reader: Callable[[int], bytes]
    place: str = ""

    def name(self, index: int) -> str:
        """Name an image in a message."""
        return self.place + os.fsdecode(self.names[index])

    def read(self, index: int) -> bytes:
        """Read an encoded image. Raises BadInput, naming it, where it cannot be read."""
        try:
            return self.reader(index)
        except OSError as error:
            raise BadInput(f"{self.name(index)}: not a whole image ({error.strerror}); mend or remove it") from None

    def part(self, chosen: np.ndarray) -> "ImageFiles":
        """Return some of the images."""
        return ImageFiles(self.names[chosen], self.labels[chosen], Chosen(self.reader, chosen), self.place)


@dataclass(frozen=True)
class Chosen:
    """Reads some of the images of another reader."""

    reader: Callable[[int], bytes]
    numbers: np.ndarray

    def __call__(self, index: int) -> bytes:
        return self.reader(int(self.numbers[index]))


@dataclass(frozen=True)
class FileReader:
    """Reads `root/name`."""

    root: Path
    names: np.ndarray

    def __call__(self, index: int) -> bytes:
        return (self.root / os.fsdecode(self.names[index])).read_bytes()


class ImageSet(NamedTuple):
    """The splits of a source; ImageNet's validation images are the test, as its test labels are not public.

    `remark` tells of what lies among the images and is not used.
    """

    classes: tuple[str, ...]
    train: ImageFiles
    test: ImageFiles
    remark: str = ""


def find_images(data: Data | Photographs) -> ImageSet:
    """Find the training and test images of a source. Raises BadInput, naming the folder or file that is wrong."""
    kind, _, rest = data.source.partition(":")
    match kind:
        case "folder":
            found = index_folders(Path(rest).expanduser())
        case "tars":
            classes, (train, test) = find_archives(Path(rest).expanduser())
            found = ImageSet(classes, ImageFiles(*train), ImageFiles(*test))
        case _:
            classes, (train, test) = find_records(rest, data.directory, by_name=isinstance(data, Photographs))
            found = ImageSet(classes, ImageFiles(*train), ImageFiles(*test))
    for split, files in (("train", found.train), ("test", found.test)):
        check_labels(data.source, split, files.labels, len(found.classes))
    return found


def check_labels(source: str, split: str, labels: np.ndarray, classes: int) -> None:
    """Raise BadInput where a split holds no image, or one of no class."""
    if not len(labels):
        raise BadInput(f"{source}: the {split} split holds no image")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise BadInput(f"{source}: image {wrong[0]} of the {split} split has label {labels[wrong[0]]}, "
                       f"and there are {classes} classes: 0 ... {classes - 1}")


def index_folders(root: Path) -> ImageSet:
    """List `root/train/CLASS/image` and `root/test/CLASS/image` (or `val`), by class and then by name.

    Without a folder `train`, the classes lie in `root` itself and a fifth of the images is held out for the test.
    """
    if not root.is_dir():
        raise BadInput(f"{root}: no such folder; data.source folder:PATH names a folder of one folder per class")
    train = root / "train"
    if not train.is_dir():
        classes = class_names(root)
        files, remark = index_classes(root, classes)
        kept, held = held_out(len(files.labels), len(files.labels) // 5)
        return ImageSet(classes, files.part(kept), files.part(held), remark)
    test = next((root / name for name in TEST if (root / name).is_dir()), None)
    if test is None:
        raise BadInput(f"{root}: beside 'train' there must be a folder 'test' or 'val'")
    classes = class_names(train)
    if class_names(test) != classes:
        odd = ", ".join(sorted(set(classes) ^ set(class_names(test))))
        raise BadInput(f"{root}: 'train' and '{test.name}' must hold the same classes; only one has: {odd}")
    (train_files, remark), (test_files, other) = (index_classes(split, classes) for split in (train, test))
    return ImageSet(classes, train_files, test_files, "; ".join(filter(None, (remark, other))))


def class_names(root: Path) -> tuple[str, ...]:
    """Name the classes: the subfolders in alphabetical order, but for hidden ones and what systems leave behind."""
    names = tuple(sorted(path.name for path in root.iterdir() if path.is_dir() and not is_hidden(path.name)))
    if len(names) < 2:
        raise BadInput(f"{root}: {len(names)} class folders; there must be one folder per class, two at least")
    return names


def is_hidden(name: str) -> bool:
    """Say whether a name is of no file of the user's: `.DS_Store`, `__MACOSX`, `@eaDir`."""
    return name.startswith((".", "@")) or name == "__MACOSX"


def index_classes(root: Path, classes: tuple[str, ...]) -> tuple[ImageFiles, str]:
    """List the images of every class folder, by name; and remark on what lies beside them.

    What is named like an image counts as one, also a broken link: nothing is left out in silence.
    """
    names: list[str] = []
    labels: list[int] = []
    others: list[str] = []
    for label, folder in enumerate(classes):
        found = sorted(name for name in os.listdir(root / folder) if not is_hidden(name) and name != "Thumbs.db")
        files = [name for name in found if name.lower().endswith(EXTENSIONS)]
        if not files:
            raise BadInput(f"{root / folder}: the class folder holds no image ({', '.join(EXTENSIONS)})")
        names += [f"{folder}/{name}" for name in files]
        labels += [label] * len(files)
        others += [f"{folder}/{name}" for name in sorted(set(found) - set(files))]
    encoded = np.array([os.fsencode(name) for name in names])
    remark = f"{root}: not used, as not named like an image: {len(others)} files, such as {others[0]}" if others else ""
    return ImageFiles(encoded, np.array(labels, np.int32), FileReader(root, encoded), f"{root}/"), remark


def held_out(images: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Split the numbers of images into those kept and `count` held out, always the same whatever the run's seed."""
    chosen = np.zeros(images, bool)
    chosen[np.random.default_rng(0).permutation(images)[:count]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
