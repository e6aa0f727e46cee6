"""Reads PyTorch's weights files without PyTorch and without executing any code in them.

The arrays never take more memory than the file's size, because of the following limits. A tensor has no more elements
than its storage, and a storage has no more bytes than the file. Archive members are uncompressed and together no larger
than the file. The tensors of the requested set are together no larger than the file either. Every storage is read once.
`plain_pickle` limits the memory and time for everything besides the tensors.
"""

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from resjax.system.errors import BadInput, check
from resjax.weights.kinds import PICKLES, describe, describe_archive
from resjax.weights.plain_pickle import MOST_ARGUMENTS, MOST_BYTES, Inert, Name, PickleReader
from resjax.weights.reading import Stored, refusing
from resjax.weights.sets import choose_set

DTYPES = {f"torch.{name}Storage": np.dtype(kind) for name, kind in {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": ml_dtypes.bfloat16, "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}.items()}
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


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage, in units of elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


Load = Callable[[str], bytes]
"""Reads the bytes of a storage, given its number in the file."""


def read_torch(file: Path, key: str | None = None) -> Stored:
    """Read the tensors and the `arch` of a file that `torch.save` wrote, with a state_dict or a checkpoint with one.

    `arch` is the name of the network, which many scripts store, or "". `key` chooses one of several sets. Raises
    BadInput, naming the file, if it is damaged, has no state_dict, has several although no `key` is given, or is larger
    than three copies of resjax's largest network.
    """
    with refusing(file, "PyTorch file"), Bounded(file.open("rb", buffering=0)) as stream:
        content, load = (open_archive if stream.read(2) == b"PK" else open_stream)(stream)
        tensors = choose_set(content, Tensor, key)
        if sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in tensors.values()) > file.stat().st_size:
            raise ValueError("its tensors are larger than the file")
        arch = content.get("arch")
        storages = {each: load(each) for each in dict.fromkeys(tensor.storage.key for tensor in tensors.values())}
        arrays = {name: view(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}
        return Stored(arrays, arch[:100] if isinstance(arch, str) else "")


def view(tensor: Tensor, content: bytes) -> np.ndarray:
    """Return a tensor of a storage with this content, without a copy. Raises ValueError if it exceeds the storage."""
    storage = np.frombuffer(content, tensor.storage.dtype)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    if len(storage) < tensor.storage.count:
        raise ValueError(f"storage {tensor.storage.key} is cut off")
    if 0 not in tensor.shape and max(last + 1, math.prod(tensor.shape)) > len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(storage[tensor.offset:], tensor.shape, strides, writeable=False)


def rebuild(maker: str, arguments: tuple[Any, ...]) -> Any:
    """Return the tensor or size that a call of a PyTorch function creates; None for any other call."""
    state: Any = None
    if maker == "torch._tensor._rebuild_from_type_v2":  # which creates a tensor with attributes
        function, _, inner, state = arguments
        maker, arguments = function.full, tuple(inner[:MOST_ARGUMENTS])
    match maker:
        case "torch._utils._rebuild_wrapper_subclass":
            fields = state[-1] if isinstance(state, tuple) and state else state  # the slots of (attributes, slots)
            local = fields.get("_local_tensor") if isinstance(fields, dict) else None
            return local if isinstance(local, Tensor) and local.shape == arguments[2] else Inert(SPREAD)
        case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2":
            storage, offset, shape, strides, *_ = arguments
            if not isinstance(storage, Storage):
                return Inert(storage.maker if isinstance(storage, Inert) else maker)
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
        raise ValueError("a persistent id that is not that of a storage")
    if not is_size(count) or not isinstance(key, str):
        raise ValueError("a storage without a number or a size")
    return Storage(key, DTYPES[name.full], count) if name.full in DTYPES else Inert(name.full)


def open_archive(stream: "Bounded") -> tuple[Any, Load]:
    """Open a file in the format since PyTorch 1.6: an archive with one member per storage."""
    archive = open_zip(stream)
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"an archive with {len(pickles)} members data.pkl")
    root, size = pickles[0].removesuffix("data.pkl"), archive.getinfo(pickles[0]).file_size
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise BadInput("it was written on a big-endian machine; save it again on another")
    check(size <= MOST_BYTES, f"contains {size:,} bytes besides its tensors; save only the state_dict")
    content = PickleReader(archive.read(pickles[0]), rebuild, find_storage).load()
    return content, lambda number: archive.read(f"{root}data/{number}")


def open_zip(stream: "Bounded") -> zipfile.ZipFile:
    """Open an archive with uncompressed members and unique names. Raises BadInput for other archives.

    The checks precede the reading of any member. Members can share bytes of the file, so the sum of their sizes is
    checked too.
    """
    archive = zipfile.ZipFile(stream)
    stream.most = stream.seek(0, io.SEEK_END)
    names, members = archive.namelist(), archive.infolist()
    if kind := describe_archive(names):
        raise BadInput(kind)
    check(len(set(names)) == len(names), "a member of the archive occurs twice")
    check(all(member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1 for member in members),
          "its members are compressed or encrypted, unlike those of PyTorch and Keras; unpack it and save the weights "
          "again")
    check(sum(member.file_size for member in members) <= stream.most, "its members are larger than the file")
    return archive


class Bounded(io.BufferedReader):
    """A file that refuses to read more than `most` bytes at once, because a directory takes more memory than that."""

    most = LARGEST_DIRECTORY

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > self.most:
            raise ValueError("the archive has too many members for a network")
        return super().read(size)


def open_stream(stream: "Bounded") -> tuple[Any, Load]:
    """Open a file in the format before PyTorch 1.6: consecutive pickles, then the storages."""
    storages: dict[str, Storage] = {}
    stream.most = stream.seek(0, io.SEEK_END)
    stream.seek(0)

    def listed(identity: Any) -> Storage | Inert:
        storage = find_storage(identity)
        return storages.setdefault(storage.key, storage) if isinstance(storage, Storage) else storage

    reader = PickleReader(stream.read(min(MOST_BYTES, stream.most)), rebuild, listed)
    magic = reader.load()
    if isinstance(magic, dict) and (kind := describe(PICKLES, magic)):
        raise BadInput(kind)
    if magic != MAGIC or reader.load() != PROTOCOL:
        raise ValueError("it does not start like one")
    reader.load()  # skips the description of the machine that wrote the file
    # a key that is not a string could take forever to hash
    content, keys = reader.load(), [key for key in reader.load() if isinstance(key, str)]
    stream.seek(reader.stream.tell())
    contents = {}
    for key in keys:
        count, storage = int.from_bytes(stream.read(8), "little", signed=True), storages[key]
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} elements, not {storage.count}")
        contents[key] = stream.read(min(count * storage.dtype.itemsize, stream.most))
    return content, contents.__getitem__
