"""Reads encoded images of any source by index, for data in memory and for streaming."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from resjax.data.decode import HEAD, read_header
from resjax.system.errors import BadInput
from resjax.system.progress import track


class ImageReader(Protocol):
    """Reads the i-th encoded image or its first bytes (None if unsupported), and lists the images' sizes.

    `stamps` are the sizes and modification times of the files, `[files, 2]`; -1 for a file that cannot be read.
    """

    def __call__(self, index: int, /) -> bytes: ...

    def head(self, index: int, size: int, /) -> bytes | None: ...

    def sizes(self) -> Any: ...

    def stamps(self) -> Any: ...


class ImageFiles(NamedTuple):
    """Encoded images, with `names` and int32 `labels` `[images]` and a `reader` that other processes can use.

    Messages show `place` before a name.
    """

    names: np.ndarray
    labels: np.ndarray
    reader: ImageReader
    place: str = ""

    def name(self, index: int) -> str:
        """Return the name of an image for messages."""
        return self.place + os.fsdecode(self.names[index])

    def read(self, index: int) -> bytes:
        """Read an encoded image. Raises BadInput, naming the image, if it cannot be read."""
        try:
            return self.reader(index)
        except OSError as error:
            raise BadInput(f"{self.name(index)}: damaged image ({error.strerror}); repair or remove it") from None

    def check_headers(self) -> None:
        """Read every image's header, except in prepared data sets. Raises BadInput, naming the first invalid image."""
        with ThreadPoolExecutor() as pool:
            for _ in track(pool.map(self.check_header, range(len(self.labels))), "headers", len(self.labels)):
                pass

    def check_header(self, index: int) -> None:
        """Read the header of an image. Raises BadInput, naming the image, if it is missing or has no valid header."""
        try:
            head = self.reader.head(index, HEAD)
        except OSError as error:
            raise BadInput(f"{self.name(index)}: damaged image ({error.strerror}); repair or remove it") from None
        if head is not None:
            try:
                read_header(head, self.name(index))
            except BadInput:
                read_header(self.read(index), self.name(index))

    def fingerprint(self, sizes: bool = True) -> bytes:
        """Hash names, labels and, if known and requested, the sizes of the files."""
        sha = hashlib.sha256(b"\0".join(self.names.tolist()) + self.labels.tobytes())
        sha.update(np.asarray(self.reader.sizes() if sizes else (), np.int64).tobytes())
        return sha.digest()

    def state(self) -> str:
        """Hash everything that distinguishes these images from others and from earlier contents of the same files."""
        return hashlib.sha256(self.fingerprint() + np.asarray(self.reader.stamps(), np.int64).tobytes()).hexdigest()

    def part(self, chosen: np.ndarray) -> "ImageFiles":
        """Return a subset of the images."""
        return ImageFiles(self.names[chosen], self.labels[chosen], Chosen(self.reader, chosen), self.place)


@dataclass(frozen=True)
class Chosen:
    """Reads a subset of the images of another reader."""

    reader: ImageReader
    numbers: np.ndarray

    def __call__(self, index: int) -> bytes:
        return self.reader(int(self.numbers[index]))

    def head(self, index: int, size: int) -> bytes | None:
        return self.reader.head(int(self.numbers[index]), size)

    def sizes(self) -> Any:
        return np.asarray(self.reader.sizes())[self.numbers]

    def stamps(self) -> Any:
        return np.asarray(self.reader.stamps())[self.numbers]
