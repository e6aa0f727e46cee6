"""The three sources of images, and which of them an experiment names."""

from pathlib import Path

import numpy as np

from resjax.data.dataset import Dataset, Images, hold_out, make_dataset
from resjax.data.picture import EXTENSIONS, read_picture
from resjax.data.prepared import read_prepared
from resjax.errors import BadInput
from resjax.experiment import Data


def load(data: Data) -> Dataset:
    """Read the source that `data` names into memory.

    Raises BadInput, naming the file or folder, for data that are missing, unreadable or ill-labelled.
    """
    kind, _, rest = data.source.partition(":")
    match kind:
        case "digits":
            classes, train, test = read_digits()
        case "tfds":
            classes, train, test = read_prepared(rest, data.directory, data.size)
        case _:
            classes, train, test = read_folder(Path(rest).expanduser(), data.size)
    return make_dataset(data.source, classes, train, test, data.validation_images)


def read_digits() -> tuple[tuple[str, ...], Images, Images]:
    """Read scikit-learn's 1,797 handwritten digits, 8x8 and grey; every fifth is a test image (360, at random)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    images = Images(pixels, digits.target.astype(np.int32))
    return tuple("0123456789"), *hold_out(images, 360)


def read_folder(root: Path, size: int | None) -> tuple[tuple[str, ...], Images, Images]:
    """Read `root/train/CLASS/image` and `root/test/CLASS/image` (or `val`), every image as RGB.

    Without a folder `train`, the classes lie in `root` itself and a fifth of the images is held out for the test.
    """
    if not root.is_dir():
        raise BadInput(f"{root}: no such folder; data.source folder:PATH names a folder of one folder per class")
    train = root / "train"
    if not train.is_dir():
        classes = class_names(root)
        images = read_classes(root, classes, size)
        return classes, *hold_out(images, len(images.labels) // 5)
    test = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if test is None:
        raise BadInput(f"{root}: beside 'train' there must be a folder 'test' or 'val'")
    classes = class_names(train)
    if class_names(test) != classes:
        odd = ", ".join(sorted(set(classes) ^ set(class_names(test))))
        raise BadInput(f"{root}: 'train' and '{test.name}' must hold the same classes; only one has: {odd}")
    return classes, read_classes(train, classes, size), read_classes(test, classes, size)


def class_names(root: Path) -> tuple[str, ...]:
    """Name the classes: the subfolders in alphabetical order."""
    names = tuple(sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(names) < 2:
        raise BadInput(f"{root}: {len(names)} class folders; there must be one folder per class, two at least")
    return names


def read_classes(root: Path, classes: tuple[str, ...], size: int | None) -> Images:
    """Read every picture of every class folder; without `size` they must be alike."""
    pixels: list[np.ndarray] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = sorted(p for p in (root / name).iterdir() if p.suffix.lower() in EXTENSIONS)
        if not files:
            raise BadInput(f"{root / name}: the class folder holds no image ({', '.join(EXTENSIONS)})")
        for file in files:
            picture = read_picture(file, "RGB", size)
            if pixels and picture.shape != pixels[0].shape:
                raise BadInput(f"{file} is {picture.shape[0]}x{picture.shape[1]}, others are "
                               f"{pixels[0].shape[0]}x{pixels[0].shape[1]}; set data.size to resize all")
            pixels.append(picture)
            labels.append(label)
    return Images(np.stack(pixels), np.array(labels, np.int32))
