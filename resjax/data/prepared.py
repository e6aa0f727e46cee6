"""Reads prepared TFDS data sets without TensorFlow. For large data sets, an index of the images is cached."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from resjax.data.image_files import ImageFiles
from resjax.experiment import Data
from resjax.system.errors import BadInput, check
from resjax.system.files import cached, expanded, stamp_of
from resjax.system.progress import chunks, track

CHUNK = 1024  # records per read
Arrays = dict[str, np.ndarray]


def data_directory(directory: Path | None) -> Path:
    """Return the folder of prepared data sets, which is the argument, RESJAX_DATA, or TFDS's own folder."""
    return expanded(directory or os.environ.get("RESJAX_DATA") or "~/tensorflow_datasets")


def find_prepared(name: str, directory: Path) -> Path:
    """Find the folder of a data set's newest or given version. Raises BadInput if the data set is missing."""
    name, _, version = name.partition(":")
    root = directory / name
    versions = [p for p in (root.iterdir() if root.is_dir() else ())
                if re.fullmatch(r"\d+\.\d+\.\d+", p.name) and (p / "dataset_info.json").is_file()]
    if version:
        versions = [p for p in versions if p.name == version]
    if versions:
        return max(versions, key=lambda p: [int(part) for part in p.name.split(".")])
    wanted = f"{name}:{version}" if version else name
    how = {"cifar10": f"to prepare it, run resjax prepare cifar10 --directory {directory}",
           "imagenet2012": "you can also read ImageNet as folder:PATH, or its archives as tars:PATH"}.get(
        name, "prepare it with TFDS (file_format='array_record')")
    there = sorted(p.name for p in directory.iterdir() if p.is_dir()) if directory.is_dir() else []
    raise BadInput(f"{wanted} is not in {directory}, which contains {', '.join(there) or 'no data set'}; {how}. "
                   "If it is elsewhere, pass that folder with --directory (for train, --data.directory) or RESJAX_DATA")


def files_digest(folder: Path, *settings: Any) -> str:
    """Identify a prepared data set without reading it, by the names, sizes and modification times of its files."""
    files = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir())]
    return hashlib.sha256(json.dumps([files, settings]).encode()).hexdigest()


@dataclass(frozen=True)
class PreparedReader:
    """Reads the encoded images of selected records. Every process opens the data set, in its current state, once."""

    folder: Path
    state: str
    split: str
    image: str
    records: np.ndarray

    def __call__(self, index: int) -> bytes:
        feature = features_of(open_split(self.folder, self.state, self.split)[int(self.records[index])])
        return bytes(feature[self.image].bytes_list.value[0])

    def head(self, index: int, size: int) -> None:
        """Return None, because records are always read whole, and all were read when the index was built."""

    def sizes(self) -> list[int]:
        """Return the sizes of the records' files."""
        return [file.stat().st_size for file in self.files()]

    def stamps(self) -> np.ndarray:
        return np.array([stamp_of(file) for file in self.files()])

    def files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*-{self.split}.*"))


def find_records(name: str, directory: Path | None, splits: Sequence[str],
                 by_name: bool) -> tuple[tuple[str, ...], list[ImageFiles]]:
    """List the images of `NAME`, `NAME/CONFIG` or `NAME:VERSION`. Return the classes, and the images of each split.

    Images are in the order of the records or, with `by_name`, sorted by class and name, as for folders and archives.
    The sorted index is cached, because data sets that need it are large.
    """
    folder = find_prepared(name, data_directory(directory))
    state = files_digest(folder)
    images = []
    for split in splits:
        build = partial(index_prepared, folder, state, split)
        index = cached(f"index-{name}-{split}", state, build) if by_name else build()
        order = index["order"] if by_name else np.arange(len(index["order"]))
        reader = PreparedReader(folder, state, str(index["split"]), str(index["image"]), order)
        images.append(ImageFiles(index["names"][order], index["labels"][order], reader, f"{folder}:{split}, "))
    return tuple(index["classes"].tolist()), images


def index_prepared(folder: Path, state: str, split: str) -> Arrays:
    """Read every label of a split, and the file names if there are any.

    Returns `classes`, `image` (the key of the image), `split` (as stored), `names`, `labels`, and `order`: the indices
    of the records sorted by class and name.
    """
    builder = open_prepared(folder)
    features = builder.info.features
    image, label = feature_keys(folder, features)
    stored = stored_split(folder, state, split, builder.info.splits, label)
    labels, names = read_labels(folder, open_split(folder, state, stored), stored, label, "file_name" in features)
    return {"classes": np.array(features[label].names), "image": np.array(image), "split": np.array(stored),
            "names": names, "labels": labels, "order": np.lexsort((names, labels))}


def stored_split(folder: Path, state: str, split: str, splits: Any, label: str) -> str:
    """Return a split's stored name; "test" means "validation" if the test split has no labels, as for ImageNet."""
    stored = [name for name in (("train",) if split == "train" else ("test", "validation")) if name in splits]
    check(bool(stored), f"{folder} has the splits {', '.join(splits)}; it needs 'train' and either 'test' or "
                        "'validation'")
    unlabelled = len(stored) > 1 and features_of(open_split(folder, state, "test")[0])[label].int64_list.value[0] < 0
    return stored[int(unlabelled)]


def read_labels(folder: Path, source: Any, split: str, label: str,
                named: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read labels and names of all records, in the order of the files. Raises BadInput for damaged files."""
    labels, names = np.zeros(len(source), np.int32), []
    ranges = chunks(len(source), CHUNK)
    for chunk in track(ranges, f"indexing {folder.parent.name}:{split}", len(ranges), CHUNK):
        try:
            records = source.__getitems__(chunk)
            if not all(records):  # array_record's result for a file truncated after its first block
                raise RuntimeError("empty records")
        except (RuntimeError, OSError) as error:
            raise damaged(folder, split, error) from None
        for number, record in zip(chunk, records, strict=True):
            feature = features_of(record)
            labels[number] = feature[label].int64_list.value[0]
            names.append(feature["file_name"].bytes_list.value[0] if named else b"record %09d" % number)
    return labels, np.array(names)


def damaged(folder: Path, split: str, error: Exception) -> BadInput:
    """Describe which part of a data set cannot be read."""
    return BadInput(f"{folder}: a file of the {split} split is damaged or missing ({error}); prepare the data set "
                    "again")


def features_of(record: bytes) -> Any:
    """Parse a serialised example."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature


@cache
def open_split(folder: Path, state: str, split: str) -> Any:
    """Open the records of a split of this data set, in its current state, until the process ends.

    Raises BadInput for another file format.
    """
    try:
        with quiet_absl():
            return open_prepared(folder).as_data_source(split).data_source
    except (NotImplementedError, ValueError) as error:
        raise BadInput(f"{folder}: {error}; prepare the data set with file_format='array_record'") from None
    except (RuntimeError, OSError) as error:
        raise damaged(folder, split, error) from None


def open_prepared(folder: Path) -> Any:
    """Open a data set's folder with TFDS. Raises BadInput if its description is missing."""
    with quiet_absl():
        import tensorflow_datasets as tfds
        from google.protobuf.json_format import ParseError

        try:
            return tfds.builder_from_directory(folder)
        except (ParseError, ValueError, LookupError, TypeError, OSError) as error:
            raise BadInput(f"{folder}: cannot read dataset_info.json and features.json ({error}); "
                           "prepare the data set again") from None


def feature_keys(folder: Path, features: Any) -> tuple[str, str]:
    """Return the keys of the image and the class among a data set's features, whose order varies between processes."""
    import tensorflow_datasets as tfds

    images = [key for key, value in features.items() if isinstance(value, tfds.features.Image)]
    labels = [key for key, value in features.items() if isinstance(value, tfds.features.ClassLabel)]
    if not images or not labels:
        raise BadInput(f"{folder} is not an image classification data set; its features are "
                       f"{', '.join(sorted(features))}")
    return "image" if "image" in images else min(images), "label" if "label" in labels else min(labels)


def channels_of(data: Data) -> int:
    """Return the number of channels of a source's images in memory: 1 for a grey prepared data set, else 3."""
    kind, _, name = data.source.partition(":")
    if kind != "tfds":
        return 3
    folder = find_prepared(name, data_directory(data.directory))
    features = open_prepared(folder).info.features
    return 1 if features[feature_keys(folder, features)[0]].shape[-1] == 1 else 3


@contextmanager
def quiet_absl() -> Iterator[None]:
    """Suppress two irrelevant absl messages, one about the group size and one about missing OpenCV."""
    def keep(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return "group_size" not in text and "OpenCV" not in text

    logger = logging.getLogger("absl")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
