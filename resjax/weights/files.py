"""Reads weights files as named arrays. A file's content, not its name, determines its format."""

from collections.abc import Callable, Mapping
from pathlib import Path

import ml_dtypes
from safetensors import safe_open

from resjax.system.errors import BadInput, check
from resjax.system.files import read_json
from resjax.weights.keras_files import is_keras_archive, read_keras
from resjax.weights.kinds import READ_AT, describe_file
from resjax.weights.locate import Tensors
from resjax.weights.reading import Stored, refusing, shown
from resjax.weights.torch_pickle import read_torch

INDEX = ".index.json"  # index of a network in several safetensors files
MOST_TENSORS = 1 << 14  # the 1202-layer network has 7,208
MOST_ELEMENTS = 1 << 28  # ResNet-152 with 50,000 classes has 160 million
LARGEST_FILE = 3 * 8 * MOST_ELEMENTS  # bytes of float64 weights, momentum and averaged weights
MOST_SHARDS = 64
LARGEST_HEADER = 1 << 23  # bytes of a safetensors header; 0.67 million for 1202 layers
LONGEST_NAME = 200
STARTS = {b"\x89HDF\r\n\x1a\n": ".h5", b"PK\x03\x04": ".pt", b"\x80": ".pt"}
SUFFIXES = (".safetensors", ".pt", ".pth", ".th", ".bin", ".tar", ".ckpt", ".h5", ".hdf5", ".keras")


def read_tensors(file: Path, key: str | None = None) -> Tensors:
    """Read the tensors of a file by name, as `read_stored` does."""
    return read_stored(file, key).tensors


def read_stored(file: Path, key: str | None = None) -> Stored:
    """Read every tensor of a file of safetensors (or an index of several), PyTorch, or Keras (`.h5` and `.keras`).

    `key` chooses one of several sets of weights in a PyTorch file. No code in a file is executed. Memory and time are
    bounded by the size of the file and by that of resjax's largest networks. Raises BadInput, naming the file, if it is
    missing, damaged or of another kind.
    """
    check(file.is_file(), f"{file}: no such file")
    size = file.stat().st_size
    check(size <= LARGEST_FILE, f"{file}: {size:,} bytes are more than any network of the paper needs")
    kind = file_kind(file)
    check(key is None or kind == ".pt", f"{file}: contains only one set of weights; omit --key")
    stored = read_torch(file, key) if kind == ".pt" else READERS[kind](file)
    check(bool(stored.tensors), f"{file}: contains no tensors")
    check_tensors(stored.tensors, file)
    return stored


def check_tensors(tensors: Tensors, file: Path) -> None:
    """Raise BadInput for more tensors or numbers than resjax's largest networks have, or invalid names or types."""
    elements = sum(tensor.size for tensor in tensors.values())
    check(len(tensors) <= MOST_TENSORS and elements <= MOST_ELEMENTS,
          f"{file}: {len(tensors):,} tensors of {elements:,} numbers are more than any network of the paper has")
    for name, tensor in tensors.items():
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise BadInput(f"{file}: {shown(name)} is not the name of a tensor")
        if tensor.dtype.kind not in "biuf" and tensor.dtype != ml_dtypes.bfloat16:
            raise BadInput(f"{file}: {name} has dtype {tensor.dtype}, which weights cannot have")


def file_kind(file: Path) -> str:
    """Determine the format of a file from its first bytes. Raises BadInput, describing the file, for other formats."""
    try:
        with file.open("rb") as stream:
            begin = stream.read(READ_AT)
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    if file.name.endswith(INDEX):
        return INDEX
    if begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") <= LARGEST_HEADER:  # a header and its length
        return ".safetensors"
    for start, kind in STARTS.items():
        if begin.startswith(start):
            return ".keras" if start[:2] == b"PK" and is_keras_archive(file) else kind
    raise BadInput(f"{file}: {describe_file(begin, file)}")


def read_safetensors(file: Path) -> Tensors:
    """Read a safetensors file. Raises BadInput if it is damaged."""
    with refusing(file, "safetensors file"), safe_open(file, framework="np") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def read_index(file: Path) -> Tensors:
    """Read a network from several safetensors files listed in an index. Raises BadInput if they do not match."""
    places = read_places(file)
    tensors: Tensors = {}
    for shard in sorted(set(places.values())):
        check((file.parent / shard).is_file(),
              f"{file}: {shown(shard)}, which contains a part of the network, is missing")
        part = read_tensors(file.parent / shard)
        check_tensors(tensors | part, file)
        for name in part:
            if places.get(name) != shard:
                raise BadInput(f"{file}: {shown(shard)} contains {shown(name)}, which the index does not list")
        tensors |= part
    for name, shard in places.items():
        if name not in tensors:
            raise BadInput(f"{file}: {shown(name)} is not in {shown(shard)}")
    return tensors


def read_places(file: Path) -> dict[str, str]:
    """Read from the index which file in the same folder contains each tensor. Raises BadInput for an invalid index."""
    places = read_json(file, "weight_map")["weight_map"]
    check(isinstance(places, dict), f"{file}: weight_map must be an object with the file of each tensor")
    for shard in places.values():
        check(isinstance(shard, str) and Path(shard).name == shard and shard.endswith(".safetensors"),
              f"{file}: {shown(shard)} is not a safetensors file in the same folder")
    shards = set(places.values())
    check(len(shards) <= MOST_SHARDS, f"{file}: {len(shards)} files are more than any network of the paper needs")
    return dict(places)


READERS: Mapping[str, Callable[[Path], Stored]] = {
    ".safetensors": lambda file: Stored(read_safetensors(file)), INDEX: lambda file: Stored(read_index(file)),
    ".h5": read_keras, ".keras": read_keras}
