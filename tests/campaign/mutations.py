"""Whole files of weights, small, and what a bad disk, a cut connection or somebody's hand makes of them."""

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from campaign import hostile_pickles
from campaign.hostile_files import stream
from networks import random_network
from safetensors.numpy import save_file

import resjax
from resjax.weights.files import read_tensors

KINDS = {".pth": 3, ".pt": 2, ".th": 2, ".safetensors": 2, ".h5": 0.3, ".keras": 0.2}  # how often; HDF5's are slow


def honest_files(folder: Path) -> list[Path]:
    """Write a network of eight layers in every kind of file; Keras's is a few layers only."""
    exported = resjax.export(random_network(depth=8, classes=tuple("abcdefghij")), "akamaster", folder / "whole")
    tensors = read_tensors(exported / "model.safetensors")
    save_file(tensors, folder / "resnet.safetensors")
    (folder / "resnet.pth").write_bytes(pickled(tensors))
    (folder / "resnet.pt").write_bytes(pickled(tensors))  # mutated within its pickle, with right checksums
    stream(folder, hostile_pickles.state()).rename(folder / "old.th")
    with h5py.File(folder / "old.h5", "w") as old:
        keras(old, [f"conv1_{k}" for k in range(20)])
    with h5py.File(folder / "inside", "w") as new:
        for number in range(20):
            group = new.create_group(f"layers/conv2d_{number}/vars")
            group.attrs["name"] = f"conv1_{number}"
            group["0"], group["1"] = np.ones((3, 3, 3, 4), np.float32), np.ones(4, np.float32)
    with zipfile.ZipFile(folder / "new.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {}}))
        archive.write(folder / "inside", "model.weights.h5")
    names = ("resnet.pth", "resnet.pt", "old.th", "resnet.safetensors", "old.h5", "new.keras")
    return [folder / name for name in names]


def keras(file: h5py.File, layers: list[str]) -> None:
    """Write layers as Keras 2 did."""
    file.attrs["layer_names"] = np.array(layers, "S")
    for layer in layers:
        group = file.create_group(layer)
        group.attrs["weight_names"] = np.array(["kernel:0", "bias:0"], "S")
        group["kernel:0"], group["bias:0"] = np.ones((3, 3, 3, 4), np.float32), np.ones(4, np.float32)


def pickled(tensors: dict[str, np.ndarray]) -> bytes:
    """Write a state_dict as PyTorch does, without it."""
    whole, sizes, text = hostile_pickles.whole, hostile_pickles.sizes, hostile_pickles.text
    items = b""
    for number, (name, tensor) in enumerate(tensors.items()):
        kind = {"float32": "FloatStorage", "int64": "LongStorage"}[tensor.dtype.name]
        where = hostile_pickles.storage(text(str(number)), whole(tensor.size), kind)
        strides = tuple(stride // tensor.itemsize for stride in tensor.strides)
        items += text(name) + hostile_pickles.tensor(where, whole(0), sizes(tensor.shape), sizes(strides))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}(" + items + b"u.")
        for number, tensor in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{number}", tensor.tobytes())
    return out.getvalue()


def mutate(content: bytes, source: random.Random) -> bytes:
    """Change some bytes: most often few, and near the beginning or the end, where files say what they hold."""
    changed = bytearray(content)
    for _ in range(source.choice((1, 1, 1, 2, 4, 16))):
        size = len(changed)
        if not size:
            break
        near = source.choice((size, min(size, 2000)))
        place = source.randrange(near) if source.random() < 0.7 else size - 1 - source.randrange(near)
        other, length = source.randrange(size), source.choice((1, 2, 4, 8, 64))
        match source.randrange(9):
            case 0 | 1 | 2:
                changed[place] = source.randrange(256)
            case 3:
                changed[place] ^= 1 << source.randrange(8)
            case 4:
                changed[place:place + length] = source.choice((b"\xff", b"\0", b"\x7f", b"9")) * length
            case 5:
                changed[place:place + length] = changed[other:other + length]
            case 6:
                del changed[place:place + length]
            case 7:
                changed[place:place] = source.choice((source.randbytes(length), changed[other:other + length]))
            case 8:
                del changed[source.choice((place, other)):]
    return bytes(changed)


def resealed(content: bytes, source: random.Random) -> bytes:
    """Change the pickle in an archive and write the archive whole again, so that its checksums hold."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            member = old.read(name)
            new.writestr(name, mutate(member, source) if name.endswith("data.pkl") else member)
    return out.getvalue()


def mutated(honest: list[Path], source: random.Random, count: int) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """Make so many mutations, of files of every kind."""
    contents = {file.suffix: file.read_bytes() for file in honest}
    for number in range(count):
        (kind,) = source.choices(list(KINDS), list(KINDS.values()))
        content = (resealed if kind == ".pt" else mutate)(contents[kind], source)
        yield f"mutation {number} of {kind}", partial(write, name=f"a{kind}", content=content)


def write(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name
