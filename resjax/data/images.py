"""Loads labelled images into memory, from any source except archives, and holds out validation images."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from resjax.data.classes import composed
from resjax.data.decode import decode
from resjax.data.image_files import ImageFiles
from resjax.data.index import check_labels, data_identity, find_images, find_split, held_out
from resjax.data.prepared import channels_of, data_directory, files_digest, find_prepared
from resjax.data.preprocessing import Preprocessing, of_run, one_thread_each
from resjax.experiment import Data
from resjax.system.errors import BadInput, check
from resjax.system.files import cached


class Images(NamedTuple):
    """`pixels` uint8 `[images, height, width, channels]`, `labels` int32 `[images]`; in NumPy or on the device."""

    pixels: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array

    def __repr__(self) -> str:
        return f"Images({len(self.labels):,} of {'x'.join(map(str, self.pixels.shape[1:]))})"


@dataclass(frozen=True)
class Dataset:
    """The splits of a data set, with uint8 pixels `[images, height, width, channels]` and labels `[images]`.

    `validation` is empty unless some training images were held out.

    `remark` mentions files that were found in the folders of the images but are not used.
    """

    classes: tuple[str, ...]
    train: Images
    validation: Images
    test: Images
    remark: str = ""

    def __repr__(self) -> str:
        return (f"Dataset({len(self.classes)} classes, train={self.train}, validation={self.validation}, "
                f"test={self.test})")

    def identity(self) -> dict[str, Any]:
        """Describe the images independently of their location: classes, counts, and a digest of pixels and labels."""
        splits = (self.train, self.validation, self.test)
        parts = [np.ascontiguousarray(array).tobytes() for split in splits for array in split]
        return data_identity(self.classes, parts, len(self.train.labels), len(self.test.labels))


def load_data(data: Data) -> Dataset:
    """Load the images of `data.source` into memory.

    Raises BadInput, naming the file or folder, if data are missing, unreadable or wrongly labelled.
    """
    check(data.source != "arrays", "data.source is 'arrays', so this run needs its arrays in Python: "
                                   "resjax.train(..., data=resjax.dataset(...)); or pass --data folder:PATH")
    if data.source == "digits":
        check(data.size in (None, 8), f"data.size is {data.size}; the digits have 8x8 pixels and are not resized")
        return make_dataset(data, tuple("0123456789"), *read_digits())
    kind, _, name = data.source.partition(":")
    if kind == "folder":
        remark, arrays = read_splits(data)
    else:
        folder = find_prepared(name, data_directory(data.directory))
        remark, arrays = "", cached(name, files_digest(folder, data.size, data.resize), lambda: read_splits(data)[1])
    train, test = (Images(arrays[f"{split}_pixels"], arrays[f"{split}_labels"]) for split in ("train", "test"))
    return make_dataset(data, tuple(arrays["classes"].tolist()), train, test, remark)


def load_split(data: Data, split: str, preprocessing: Preprocessing) -> tuple[tuple[str, ...], Images, str]:
    """Load the classes and images of "train" or "test", with the remark of `find_split`. The other may be missing."""
    classes, files, remark = find_split(data, split)
    return classes, Images(decode_all(files, preprocessing.prepare), files.labels), remark


def read_digits() -> tuple[Images, Images]:
    """Load scikit-learn's 1,797 handwritten digits, 8x8 and grey. A random fifth of them (360) are test images."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    return hold_out(Images(pixels, digits.target.astype(np.int32)), 360)


def read_splits(data: Data) -> tuple[str, dict[str, np.ndarray]]:
    """Find and decode both splits: `classes`, `train_pixels`, `train_labels`, `test_pixels`, `test_labels`."""
    listed, channels = find_images(data), channels_of(data)
    prepare: Callable[[bytes, str], np.ndarray] = partial(decode, channels=channels)
    if data.size is not None:  # `prepare` resizes all images to one size
        prepare = of_run(data, np.zeros((data.size, data.size, channels))).prepare
    arrays = {"classes": np.array(listed.classes)}
    for split, files in (("train", listed.train), ("test", listed.test)):
        arrays |= {f"{split}_pixels": decode_all(files, prepare), f"{split}_labels": files.labels}
    return listed.remark, arrays


def decode_all(files: ImageFiles, prepare: Callable[[bytes, str], np.ndarray]) -> np.ndarray:
    """Decode images of equal size with `prepare(encoded, name)`, to uint8 `[images, height, width, channels]`."""
    with one_thread_each(), ThreadPoolExecutor() as pool:
        pixels = list(pool.map(lambda index: prepare(files.read(index), files.name(index)), range(len(files.labels))))
    for index, image in enumerate(pixels):
        if image.shape != pixels[0].shape:
            (height, width), (tall, wide) = image.shape[:2], pixels[0].shape[:2]
            raise BadInput(f"{files.name(index)} is {height}x{width}, but others are {tall}x{wide}; set "
                           "data.size to resize them all")
    return np.stack(pixels)


def make_dataset(data: Data, classes: tuple[str, ...], train: Images, test: Images, remark: str = "") -> Dataset:
    """Check the splits and hold out validation images from `train`. Raises BadInput, naming the source."""
    for split, images in (("train", train), ("test", test)):
        check_labels(data.source, split, np.asarray(images.labels), len(classes))
    if train.pixels.shape[1:] != test.pixels.shape[1:]:
        raise BadInput(f"{data.source}: training images are {train.pixels.shape[1:]}, but test images are "
                       f"{test.pixels.shape[1:]}; set data.size to resize them")
    return with_validation(data, Dataset(classes, train, none_of(train), test, remark))


def with_validation(data: Data, dataset: Dataset) -> Dataset:
    """Hold out `data.validation_images` of the training images, unless they are held out already.

    Raises BadInput if there are too few, or if another number is held out.
    """
    images, held = len(dataset.train.labels), len(dataset.validation.labels)
    if held:
        check(held == data.validation_images, f"data has {held} validation images, but data.validation-images is "
                                              f"{data.validation_images}; they must be equal")
        return dataset
    check(data.validation_images < images, f"data.validation-images is {data.validation_images}, but {data.source} has "
                                           f"only {images} training images")
    if not data.validation_images:
        return dataset
    train, validation = hold_out(dataset.train, data.validation_images)
    return replace(dataset, train=train, validation=validation)


def dataset(train: tuple[Any, Any], test: tuple[Any, Any] | None = None, classes: Sequence[str] = ()) -> Dataset:
    """Create a data set from your own arrays, for `resjax.train(..., data=...)`.

    `train` and `test` are each a pair of arrays, `(pixels, labels)`. Pixels are uint8 `[images, height, width]` or
    `[images, height, width, channels]`. Labels `[images]` are integers that start at 0. `classes` are the names of the
    classes, if they have any. Without `test`, no test error is measured. Raises BadInput, naming the array, if its
    shape or type is wrong.
    """
    classes, learned = tuple(map(str, classes)), pair_of("data, train", train)
    twice = [name for name, count in Counter(map(composed, classes)).items() if count > 1]
    check(not twice, f"data: {len(classes)} classes, but {', '.join(map(repr, twice))} is the name of several")
    seen = none_of(learned) if test is None else pair_of("data, test", test)
    if len(learned.labels) and not classes:
        lowest, highest = int(np.min(learned.labels)), int(np.max(learned.labels))
        check(lowest <= 0, f"data, train: labels are {lowest} ... {highest}; they must start at 0, because otherwise "
                           f"the first of {highest + 1} classes has no images. Subtract {lowest}, or name all classes")
    names = classes or tuple(map(str, range(max((int(part.labels.max()) for part in (learned, seen)
                                                        if len(part.labels)), default=0) + 1)))
    for split, images in (("train", learned), *((("test", seen),) if test is not None else ())):
        check_labels("data", split, np.asarray(images.labels), len(names))
    check(learned.pixels.shape[1:] == seen.pixels.shape[1:],
          f"data: training images are {learned.pixels.shape[1:]}, but test images are {seen.pixels.shape[1:]}")
    return Dataset(names, learned, none_of(learned), seen)


def pair_of(place: str, pair: Any) -> Images:
    """Check a pair of arrays. Raises BadInput, naming their `place`, if they are not images with labels."""
    check(isinstance(pair, tuple | list) and len(pair) == 2,
          f"{place}: {type(pair).__name__} is not a pair; pass a split as (pixels, labels), as in "
          "resjax.dataset((pixels, labels), (test pixels, test labels))")
    try:
        pixels, labels = map(np.asarray, pair)
    except ValueError as error:  # NumPy's, for nested lists of different lengths
        raise BadInput(f"{place}: {error}; all images must have the same size, [images, height, width, channels], and "
                       "a label each") from None
    check(pixels.dtype == np.uint8 and pixels.ndim in (3, 4),
          f"{place}: pixels are {pixels.dtype} {list(pixels.shape)}; they must be uint8, 0 to 255, [images, "
          "height, width] or [images, height, width, channels]")
    first = pixels.ndim == 4 and pixels.shape[1] in (1, 3) and pixels.shape[3] > 4
    check(not first, f"{place}: pixels are {list(pixels.shape)}, that is, {pixels.shape[-1]} channels; if there "
                     f"are {pixels.shape[min(1, pixels.ndim - 1)]}, move them last: pixels.transpose(0, 2, 3, 1)")
    check(labels.shape == pixels.shape[:1] and np.issubdtype(labels.dtype, np.integer),
          f"{place}: labels are {labels.dtype} {list(labels.shape)}; they must be integers [{len(pixels)}]")
    return Images(pixels[..., None] if pixels.ndim == 3 else pixels, labels.astype(np.int32))


def none_of(images: Images) -> Images:
    """Return an empty set of images of the same size."""
    return Images(images.pixels[:0], images.labels[:0])


def hold_out(images: Images, count: int) -> tuple[Images, Images]:
    """Split off `count` images, the same ones for every seed of a run; the others keep their order."""
    others, held = (Images(images.pixels[part], images.labels[part]) for part in held_out(len(images.pixels), count))
    return others, held


def mean_image(images: Images) -> np.ndarray:
    """Compute the per-pixel mean of a split (section 3.4), float32 `[height, width, channels]`."""
    return np.asarray(np.mean(images.pixels, axis=0, dtype=np.float64)).astype(np.float32)
