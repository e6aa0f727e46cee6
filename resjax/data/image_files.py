"""Encoded images of any source, read by their number, whether they are then kept in memory or streamed."""

import hashlib
import os
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from resjax.system.errors import BadInput


class Reader(Protocol):
    """Reads the i-th encoded image, and tells what it knows of the sizes of all."""

    def __call__(self, index: int, /) -> bytes: ...

    def sizes(self) -> Any: ...


class ImageFiles(NamedTuple):
    """Encoded images: `names` and `labels` (int32) `[images]`, and how to read the i-th, also in another process.

    `place` comes before a name in messages.
    """

    names: np.ndarray
    labels: np.ndarray
    reader: Reader
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

    def fingerprint(self) -> bytes:
        """Digest names, labels and, where they are known, sizes."""
        sha = hashlib.sha256(b"\0".join(self.names.tolist()) + self.labels.tobytes())
        sha.update(np.asarray(self.reader.sizes(), np.int64).tobytes())
        return sha.digest()

    def part(self, chosen: np.ndarray) -> "ImageFiles":
        """Return some of the images."""
        return ImageFiles(self.names[chosen], self.labels[chosen], Chosen(self.reader, chosen), self.place)


@dataclass(frozen=True)
class Chosen:
    """Reads some of the images of another reader."""

    reader: Reader
    numbers: np.ndarray

    def __call__(self, index: int) -> bytes:
        return self.reader(int(self.numbers[index]))

    def sizes(self) -> Any:
        return np.asarray(self.reader.sizes())[self.numbers]
