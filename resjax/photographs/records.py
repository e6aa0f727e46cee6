"""Prepared TFDS sets, one encoded image at a time, without TensorFlow."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from resjax.data.prepared import feature_keys, open_prepared, quiet_absl
from resjax.errors import BadInput
from resjax.progress import parts, shown

CHUNK = 1024  # records read at once


@dataclass(frozen=True)
class PreparedReader:
    """Reads the encoded image of the records that are listed; every process opens the set once."""

    folder: Path
    split: str
    image: str
    records: np.ndarray

    def __call__(self, index: int) -> bytes:
        from tensorflow_datasets.proto import tf_example_pb2

        record = open_split(self.folder, self.split)[int(self.records[index])]
        return tf_example_pb2.Example.FromString(record).features.feature[self.image].bytes_list.value[0]


@cache
def open_split(folder: Path, split: str) -> Any:
    """Open the records of a split for reading until the process ends. Raises BadInput for another file format."""
    try:
        with quiet_absl():
            return open_prepared(folder).as_data_source(split).data_source
    except (NotImplementedError, ValueError) as error:
        raise BadInput(f"{folder}: {error}; prepare the set with file_format='array_record'") from None


def index_prepared(folder: Path) -> dict[str, np.ndarray]:
    """Read every label, and file names where there are any.

    Returns `classes`, `image` (the key of the image), and for train and test `_split`, `_names`, `_labels`, and
    `_records`: their numbers in the order of class and name.
    """
    builder = open_prepared(folder)
    features, splits = builder.info.features, builder.info.splits
    image, label = feature_keys(folder, features)
    test = next((split for split in ("validation", "test") if split in splits), None)  # ImageNet's test has no labels
    if "train" not in splits or test is None:
        raise BadInput(f"{folder} has the splits {', '.join(splits)}; 'train' and 'validation' or 'test' are needed")
    arrays = {"classes": np.array(features[label].names), "image": np.array(image)}
    for split, stored in (("train", "train"), ("test", test)):
        labels, names = read_labels(folder, stored, label, "file_name" in features)
        order = np.lexsort((names, labels))
        arrays |= {f"{split}_split": np.array(stored), f"{split}_names": names[order],
                   f"{split}_labels": labels[order], f"{split}_records": order}
    return arrays


def read_labels(folder: Path, split: str, label: str, named: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read labels and names of all records, in the order of the files."""
    from tensorflow_datasets.proto import tf_example_pb2

    source = open_split(folder, split)
    labels, names = np.zeros(len(source), np.int32), []
    chunks = parts(len(source), CHUNK)
    for chunk in shown(chunks, f"indexing {folder.parent.name}:{split}", len(chunks), CHUNK):
        try:
            records = source.__getitems__(chunk)
        except (RuntimeError, OSError) as error:
            raise BadInput(f"{folder}: a file of the {split} split is damaged or missing ({error}); "
                           "prepare the set again") from None
        for number, record in zip(chunk, records, strict=True):
            feature = tf_example_pb2.Example.FromString(record).features.feature
            labels[number] = feature[label].int64_list.value[0]
            names.append(feature["file_name"].bytes_list.value[0] if named else b"%09d" % number)
    return labels, np.array(names)
