"""Prepared TFDS sets, read without TensorFlow: raw records in bulk, decoded once and kept in a cache."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from resjax.data.cache import cached
from resjax.data.dataset import Images
from resjax.data.picture import read_picture
from resjax.errors import BadInput

Arrays = dict[str, np.ndarray]


def data_directory(directory: Path | None) -> Path:
    """Where prepared sets lie: the argument, else RESJAX_DATA, else TFDS's own folder."""
    return Path(directory or os.environ.get("RESJAX_DATA") or "~/tensorflow_datasets").expanduser()


def read_prepared(name: str, directory: Path | None, size: int | None) -> tuple[tuple[str, ...], Images, Images]:
    """Read the splits `train` and `test` (or `validation`) of `NAME`, `NAME/CONFIG` or `NAME:VERSION`."""
    folder = find_prepared(name, data_directory(directory))
    arrays = cached(f"{name.replace('/', '-').replace(':', '-')}", fingerprint(folder, size),
                    lambda: decode(folder, size))
    return (tuple(arrays["classes"].tolist()),
            Images(arrays["train_pixels"], arrays["train_labels"]),
            Images(arrays["test_pixels"], arrays["test_labels"]))


def find_prepared(name: str, directory: Path) -> Path:
    """Find the folder of a set's newest (or named) version. Raises BadInput that says how to get it."""
    name, _, version = name.partition(":")
    root = directory / name
    versions = [p for p in (root.iterdir() if root.is_dir() else ())
                if re.fullmatch(r"\d+\.\d+\.\d+", p.name) and (p / "dataset_info.json").is_file()]
    if version:
        versions = [p for p in versions if p.name == version]
    if versions:
        return max(versions, key=lambda p: [int(part) for part in p.name.split(".")])
    told = f"{name}:{version}" if version else name
    how = {"cifar10": f"to get it: resjax prepare cifar10 --directory {directory}",
           "imagenet2012": "or read ImageNet's images as folder:PATH, or its archives as tars:PATH"}.get(
        name, "prepare it with TFDS (file_format='array_record')")
    there = sorted(p.name for p in directory.iterdir() if p.is_dir()) if directory.is_dir() else []
    raise BadInput(f"{told} is not in {directory}, which holds {', '.join(there) or 'no data set'}; {how}. "
                   "If it is elsewhere, name that folder by --directory (in training --data.directory) or RESJAX_DATA")


def fingerprint(folder: Path, size: int | None) -> str:
    """Tell prepared sets apart without reading them: the names, sizes and times of the files."""
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir())]
    return hashlib.sha256(json.dumps([files, size]).encode()).hexdigest()


def decode(folder: Path, size: int | None) -> Arrays:
    """Read and decode both splits: `classes`, `train_pixels`, `train_labels`, `test_pixels`, `test_labels`."""
    builder = open_prepared(folder)
    image, label = feature_keys(folder, builder.info.features)
    mode = "L" if builder.info.features[image].shape[-1] == 1 else "RGB"
    names = builder.info.splits
    test = next((split for split in ("test", "validation") if split in names), None)
    if "train" not in names or test is None:
        raise BadInput(f"{folder} has the splits {', '.join(names)}; 'train' and 'test' or 'validation' are needed")
    arrays: Arrays = {"classes": np.array(builder.info.features[label].names)}
    for split, stored in (("train", "train"), ("test", test)):
        records = read_records(folder, builder, stored)
        images = decode_records(records, image, label, mode, size, f"{folder}:{split}")
        arrays |= {f"{split}_pixels": images.pixels, f"{split}_labels": images.labels}
    return arrays


def open_prepared(folder: Path) -> Any:
    """Open a set's folder with TFDS. Raises BadInput where it does not describe itself."""
    with quiet_absl():
        import tensorflow_datasets as tfds
        from google.protobuf.json_format import ParseError

        try:
            return tfds.builder_from_directory(folder)
        except (ParseError, ValueError, LookupError, TypeError, OSError) as error:
            raise BadInput(f"{folder}: cannot read dataset_info.json and features.json ({error}); "
                           "prepare the set again") from None


def read_records(folder: Path, builder: Any, split: str) -> list[bytes]:
    """Read the serialised examples of a split. Raises BadInput for another format, or damaged or missing files."""
    try:
        with quiet_absl():
            source = builder.as_data_source(split).data_source
        records = source.__getitems__(range(len(source)))
        if not all(records):  # what array_record makes of a file cut after its first block
            raise RuntimeError("records are empty")
        return records
    except (NotImplementedError, ValueError) as error:
        raise BadInput(f"{folder}: {error}; prepare the set with file_format='array_record'") from None
    except (RuntimeError, OSError) as error:
        raise BadInput(f"{folder}: a file of the {split} split is damaged or missing ({error}); "
                       "prepare the set again") from None


def feature_keys(folder: Path, features: Any) -> tuple[str, str]:
    """Name the image and the class among a set's features, whose order changes from process to process."""
    import tensorflow_datasets as tfds

    images = [key for key, value in features.items() if isinstance(value, tfds.features.Image)]
    labels = [key for key, value in features.items() if isinstance(value, tfds.features.ClassLabel)]
    if not images or not labels:
        raise BadInput(f"{folder} is no image classification set: its features are {', '.join(sorted(features))}")
    return "image" if "image" in images else min(images), "label" if "label" in labels else min(labels)


def decode_records(records: list[bytes], image: str, label: str, mode: Any, size: int | None, name: str) -> Images:
    """Decode serialised examples; the pictures must be of one size, or be made so by `size`."""
    from tensorflow_datasets.proto import tf_example_pb2

    def decode_one(numbered: tuple[int, bytes]) -> tuple[np.ndarray, int]:
        number, record = numbered
        feature = tf_example_pb2.Example.FromString(record).features.feature
        picture = read_picture(feature[image].bytes_list.value[0], mode, size, f"{name}, record {number}")
        return picture, feature[label].int64_list.value[0]

    with ThreadPoolExecutor() as pool:
        pictures, labels = zip(*pool.map(decode_one, enumerate(records), chunksize=512), strict=True)
    odd = next((i for i, picture in enumerate(pictures) if picture.shape != pictures[0].shape), None)
    if odd is not None:
        raise BadInput(f"{name}, record {odd} is {pictures[odd].shape}, others are {pictures[0].shape}; set data.size")
    return Images(np.stack(pictures), np.array(labels, np.int32))


@contextmanager
def quiet_absl() -> Iterator[None]:
    """Drop two of absl's messages that tell a reader of one split nothing: the group size and OpenCV's absence."""
    def keep(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return "group_size" not in text and "OpenCV" not in text

    logger = logging.getLogger("absl")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
