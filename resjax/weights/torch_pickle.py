"""Reads PyTorch's weights files without PyTorch and without executing any code in them.

The arrays never take more memory than the file's size, because of the following limits. A tensor has no more elements
than its storage, and a storage has no more bytes than the file. Archive members are uncompressed and together no larger
than the file. The tensors of the requested set are together no larger than the file either. Every storage is read once.
`plain_pickle` limits everything besides the tensors.
"""

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np

from resjax.system.errors import BadInput, check
from resjax.weights.kinds import PICKLES, describe, describe_archive
from resjax.weights.plain_pickle import MOST_BYTES, Inert, Name, PickleReader
from resjax.weights.reading import Stored, refusing
from resjax.weights.sets import choose_set

DTYPES: dict[str, Any] = {
    "torch.DoubleStorage": np.float64, "torch.FloatStorage": np.float32, "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": ml_dtypes.bfloat16, "torch.LongStorage": np.int64, "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16, "torch.CharStorage": np.int8, "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of files before PyTorch 1.6, which are not archives
MOST_AXES = 8
SPREAD = ("a shard of a tensor (FSDP); gather it with get_model_state_dict and "
          "StateDictOptions(full_state_dict=True)")
LARGEST_DIRECTORY = 1 << 23  # bytes; 1.1 million for 1202 layers with momentum and an average


@dataclass(frozen=True, slots=True)
class Storage:
    """The memory of tensors, with its number in the file, its dtype and its number of elements."""

    key: str
    dtype: np.dtype[Any]
    count: int

    @property
    def bytes(self) -> int:
        """Return the size in bytes."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage, in units of elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Return the size in bytes."""
        return math.prod(self.shape) * self.storage.dtype.itemsize


Load = Callable[[Storage], bytes]


def read_torch(file: Path, key: str | None = None) -> Stored:
    """Read the tensors and the `arch` of a file that `torch.save` wrote, with a state_dict or a checkpoint with one.

    `arch` is the name of the network, which many scripts store, or "". `key` chooses one of several sets. Raises
    BadInput, naming the file, if it is damaged, has no state_dict, has several although no `key` is given, or is larger
    than three copies of resjax's largest network.
    """
    with refusing(file, "PyTorch file"), file.open("rb") as stream:
        content, load = (open_archive if zipfile.is_zipfile(stream) else open_stream)(stream, file)
        tensors = choose_set(content, Tensor, str(file), key)
        if sum(tensor.bytes for tensor in tensors.values()) > file.stat().st_size:
            raise ValueError("its tensors are larger than the file")
        arch = content.get("arch")
        return Stored(read_views(tensors, load), arch[:100] if isinstance(arch, str) else "")


def read_views(tensors: dict[str, Tensor], load: Load) -> dict[str, np.ndarray]:
    """Read the tensors of a set. Every storage is read once, even if several tensors share it."""
    views: dict[Storage, list[str]] = {}
    for name, tensor in tensors.items():
        views.setdefault(tensor.storage, []).append(name)
    arrays = {}
    for storage, names in views.items():
        elements = np.frombuffer(load(storage), storage.dtype)
        if len(elements) < storage.count:
            raise ValueError(f"storage {storage.key} is cut off")
        arrays.update({name: view(tensors[name], elements) for name in names})
    return {name: arrays[name] for name in tensors}


def view(tensor: Tensor, storage: np.ndarray) -> np.ndarray:
    """Copy a tensor from its storage. Raises ValueError if the tensor exceeds the storage."""
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 not in tensor.shape and max(last + 1, math.prod(tensor.shape)) > len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset:], tensor.shape, strides, writeable=False).copy()


def rebuild(maker: Name, arguments: tuple[Any, ...]) -> Any:
    """Return the tensor or size that a call of a PyTorch function creates; None for any other call."""
    state: Any = None
    if str(maker) == "torch._tensor._rebuild_from_type_v2":  # which creates a tensor with attributes
        maker, _, arguments, state = arguments
    match str(maker):
        case "torch._utils._rebuild_wrapper_subclass":
            _, _, shape, *_ = arguments
            fields = state[-1] if isinstance(state, tuple) and state else state  # the slots of (attributes, slots)
            local = fields.get("_local_tensor") if isinstance(fields, dict) else None
            whole = isinstance(local, Tensor) and local.shape == shape
            return local if whole else Inert(SPREAD)
        case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2":
            storage, offset, shape, strides, *_ = arguments
            if not isinstance(storage, Storage):
                return Inert(storage.maker if isinstance(storage, Inert) else str(maker))
            if max(len(shape), len(strides)) > MOST_AXES or not all(map(is_size, (offset, *shape, *strides))):
                raise ValueError("a tensor's place in its storage is not a list of sizes")
            return Tensor(storage, offset, tuple(shape), tuple(strides))
        case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state":
            return arguments[0]
        case "torch.Size":
            return tuple(arguments[0][:MOST_AXES + 1])
    return None


def is_size(value: Any) -> bool:
    """Return whether a value is a plausible number of elements."""
    return type(value) is int and 0 <= value < 1 << 62


def find_storage(identity: Any) -> Storage | Inert:
    """Return the storage that a persistent id refers to."""
    kind, name, key, _, count, *view = identity[:6]
    if kind != "storage" or any(part is not None for part in view) or not isinstance(name, Name):
        raise ValueError(f"unknown persistent id {str(kind)[:50]!r}")
    if not is_size(count) or not isinstance(key, str):
        raise ValueError("a storage without a number or a size")
    return Storage(key, np.dtype(DTYPES[str(name)]), count) if str(name) in DTYPES else Inert(str(name))


def open_archive(stream: IO[bytes], file: Path) -> tuple[Any, Load]:
    """Open a file in the format since PyTorch 1.6: an archive with one member per storage."""
    archive = open_zip(stream, file)
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"an archive with {len(pickles)} members data.pkl")
    root, size = pickles[0].removesuffix("data.pkl"), archive.getinfo(pickles[0]).file_size
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise BadInput(f"{file}: it was written on a big-endian machine; save it again on another")
    check(size <= MOST_BYTES, f"{file}: contains {size:,} bytes besides its tensors; save only the state_dict")
    content = PickleReader(archive.read(pickles[0]), str(file), rebuild, find_storage).load()
    return content, lambda storage: archive.read(f"{root}data/{storage.key}")


def open_zip(stream: IO[bytes], file: Path) -> zipfile.ZipFile:
    """Open an archive with uncompressed members and unique names. Raises BadInput for other archives.

    The checks precede the reading of any member. Members can share bytes of the file, so the sum of their sizes is
    checked too.
    """
    size = file.stat().st_size
    bounded = Bounded(stream, LARGEST_DIRECTORY)
    archive = zipfile.ZipFile(bounded)
    bounded.most = size
    names, members = archive.namelist(), archive.infolist()
    if kind := describe_archive(names):
        raise BadInput(f"{file}: {kind}")
    check(len(set(names)) == len(names), f"{file}: a member of the archive occurs twice")
    check(all(member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1 for member in members),
          f"{file}: its members are compressed or encrypted, unlike those of PyTorch and Keras; unpack it and save the "
          "weights again")
    check(sum(member.file_size for member in members) <= size, f"{file}: its members are larger than the file")
    return archive


class Bounded:
    """A stream from which `ZipFile` reads the directory. It refuses directories that would need far more memory."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.stream, self.most = stream, most
        self.seek, self.tell, self.seekable, self.close = stream.seek, stream.tell, stream.seekable, stream.close

    def read(self, size: int = -1) -> bytes:
        if size > self.most:
            raise ValueError("the archive has too many members for a network")
        return self.stream.read(size if size >= 0 else self.most)


def open_stream(stream: IO[bytes], file: Path) -> tuple[Any, Load]:
    """Open a file in the format before PyTorch 1.6: consecutive pickles, then the storages."""
    stream.seek(0)
    storages: dict[str, Storage] = {}

    def listed(identity: Any) -> Storage | Inert:
        storage = find_storage(identity)
        return storages.setdefault(storage.key, storage) if isinstance(storage, Storage) else storage

    reader = PickleReader(stream.read(MOST_BYTES), str(file), rebuild, listed)
    magic = reader.load()
    if isinstance(magic, dict) and (kind := describe(PICKLES, magic)):
        raise BadInput(f"{file}: {kind}")
    if magic != MAGIC or reader.load() != PROTOCOL:
        raise ValueError("it does not start like one")
    reader.load()  # skips the description of the machine that wrote the file
    content, keys = reader.load(), reader.load()
    position, starts = reader.stream.tell(), {}
    for key in keys:
        stream.seek(position)
        count, storage = int.from_bytes(stream.read(8), "little", signed=True), storages[key]
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} elements, not {storage.count}")
        starts[key] = position + 8
        position += 8 + storage.bytes
    if position > file.stat().st_size:
        raise ValueError("storages are cut off")

    def load(storage: Storage) -> bytes:
        stream.seek(starts[storage.key])
        return stream.read(storage.bytes)

    return content, load
