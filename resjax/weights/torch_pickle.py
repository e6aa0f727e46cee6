"""PyTorch's files of tensors, read without PyTorch and without running anything that lies in them.

A pickle may name functions to call. Here those that rebuild tensors are known, and any other name is refused before
anything is called. https://docs.python.org/3/library/pickle.html#restricting-globals
"""

import math
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from resjax.errors import BadInput

DTYPES: dict[str, Any] = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32, "ShortStorage": np.int16,
    "CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": np.bool_}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the files before PyTorch 1.6, which are no archives
BROKEN = (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError,
          struct.error, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError, MemoryError)


class Storage(NamedTuple):
    """The memory of tensors: its number in the file, the type and the count of its elements."""

    key: str
    dtype: Any
    count: int


class Tensor(NamedTuple):
    """A view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class RebuildTensor:
    """Stands in for what PyTorch calls to make a tensor; a pickle can set no attribute of it."""

    __slots__ = ()

    def __call__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...],
                 *_: Any) -> Tensor:
        return Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class RebuildParameter:
    """Stands in for what PyTorch calls to make a parameter."""

    __slots__ = ()

    def __call__(self, data: Tensor, *_: Any) -> Tensor:
        return data


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict, ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): RebuildTensor(), ("torch._utils", "_rebuild_tensor_v2"): RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): RebuildParameter(),
    **{("torch", name): name for name in DTYPES}}  # a name, which nothing can be called by


class Unpickler(pickle.Unpickler):
    """Reads the structure around the tensors; raises BadInput where a pickle names anything else to call."""

    def __init__(self, stream: IO[bytes], file: Path) -> None:
        super().__init__(stream, encoding="utf-8")
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        try:
            return KNOWN[module, name]
        except KeyError:
            raise BadInput(f"{self.file}: it asks for {module}.{name}, which no file of weights needs, so nothing of "
                           "it was read or run; save the state_dict alone, best as safetensors") from None

    def persistent_load(self, pid: Any) -> Storage:
        kind, name, key, _, count, *view = pid
        if kind != "storage" or any(part is not None for part in view):
            raise pickle.UnpicklingError(f"unknown persistent id {kind!r}")
        return Storage(str(key), DTYPES[name], int(count))


def read_torch(file: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a `.pt`, `.pth`, `.th` or `.bin` file: a state_dict, or a checkpoint that holds one.

    Raises BadInput, naming the file, where it is damaged, asks for code to be run, or holds no or several state_dicts.
    """
    try:
        with file.open("rb") as stream:
            content, load = (open_archive if zipfile.is_zipfile(stream) else open_stream)(stream, file)
            tensors = find_state_dict(content, file)
            return {name: view(tensor, load(tensor.storage)) for name, tensor in tensors.items()}
    except BadInput:
        raise
    except BROKEN as error:
        raise BadInput(f"{file}: not a whole PyTorch file ({error or type(error).__name__}); get it again") from None


Opened = tuple[Any, Callable[[Storage], np.ndarray]]


def open_archive(stream: IO[bytes], file: Path) -> Opened:
    """Open a file as PyTorch has written it since 1.6: an archive with one member for each storage."""
    archive = zipfile.ZipFile(stream)
    roots = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise pickle.UnpicklingError(f"an archive with {len(roots)} members data.pkl")
    root = roots[0]
    if len(set(archive.namelist())) < len(archive.namelist()):
        raise BadInput(f"{file}: a member of the archive is there twice")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise BadInput(f"{file}: it was written on a big-endian machine; save it again on another")
    with archive.open(f"{root}data.pkl") as pickled:
        content = Unpickler(pickled, file).load()

    def load(storage: Storage) -> np.ndarray:
        return elements(archive.read(f"{root}data/{storage.key}"), storage)

    return content, load


def open_stream(stream: IO[bytes], file: Path) -> Opened:
    """Open a file as PyTorch wrote it before: pickles one after the other, then the storages."""
    stream.seek(0)
    magic, protocol = (Unpickler(stream, file).load() for _ in range(2))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise pickle.UnpicklingError("it does not begin as one does")
    Unpickler(stream, file).load()  # about the machine that wrote it
    found: dict[str, Storage] = {}

    class Listing(Unpickler):
        def persistent_load(self, pid: Any) -> Storage:
            storage = super().persistent_load(pid)
            return found.setdefault(storage.key, storage)

    content, keys = Listing(stream, file).load(), Unpickler(stream, file).load()
    loaded = {}
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        storage = found[key]
        if count != storage.count:
            raise pickle.UnpicklingError(f"storage {key} has {count} elements, not {storage.count}")
        loaded[key] = elements(stream.read(count * np.dtype(storage.dtype).itemsize), storage)
    return content, lambda storage: loaded[storage.key]


def elements(content: bytes, storage: Storage) -> np.ndarray:
    """Read a storage. Raises UnpicklingError where bytes are missing."""
    array = np.frombuffer(content, storage.dtype)
    if len(array) < storage.count:
        raise pickle.UnpicklingError(f"storage {storage.key} is cut off")
    return array


def view(tensor: Tensor, storage: np.ndarray) -> np.ndarray:
    """Cut a tensor out of its storage. Raises ValueError where it reaches beyond it."""
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    within = 0 in tensor.shape or max(last + 1, math.prod(tensor.shape)) <= len(storage)
    if min(tensor.offset, *tensor.shape, *tensor.strides, 0) < 0 or not within:
        raise ValueError("a tensor reaches beyond its storage")
    width = storage.itemsize
    strided = np.lib.stride_tricks.as_strided(storage[tensor.offset:], tensor.shape,
                                              [stride * width for stride in tensor.strides], writeable=False)
    return strided.copy()


def find_state_dict(content: Any, file: Path) -> dict[str, Tensor]:
    """Find the state_dict: the content itself, or the one dictionary of tensors in a checkpoint."""
    if is_state_dict(content):
        return content
    found = [key for key, value in content.items() if is_state_dict(value)] if isinstance(content, dict) else []
    if len(found) != 1:
        raise BadInput(f"{file}: it holds {len(found)} dictionaries of tensors"
                       f"{': ' + ', '.join(map(str, found)) if found else ''}; save one state_dict alone")
    return content[found[0]]


def is_state_dict(value: Any) -> bool:
    """Say whether a value is a dictionary from names to tensors."""
    return (isinstance(value, dict) and bool(value) and all(isinstance(name, str) for name in value)
            and all(isinstance(tensor, Tensor) for tensor in value.values()))
