"""Files around weights that state more than they hold, hold more than they state, or are something else. Each function
writes into an empty folder and returns what to load.
"""

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from campaign import hostile_pickles

MILLION = hostile_pickles.MILLION
DATA = np.arange(hostile_pickles.COUNT, dtype=np.float32).tobytes()
Make = Callable[[Path], Path]


def archive(folder: Path, content: bytes, name: str = "a.pth", **settings: int) -> Path:
    """Write a pickle as PyTorch does since 1.6."""
    with zipfile.ZipFile(folder / name, "w", **settings) as out:
        out.writestr("archive/data.pkl", content.replace(b"MARKER", bytes(folder / "marker")))
        out.writestr("archive/data/0", DATA)
    return folder / name


def stream(folder: Path, content: bytes) -> Path:
    """Write a pickle as PyTorch did before."""
    head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
    keys = b"\x80\x02](" + hostile_pickles.text("0") + b"e."
    (folder / "a.pth").write_bytes(head + content + keys + struct.pack("<q", len(DATA) // 4) + DATA)
    return folder / "a.pth"


def pickles() -> Iterator[tuple[str, Make]]:
    for kind, contents in hostile_pickles.KINDS.items():
        for name, content in contents():
            yield f"pickle: {kind}: {name}", partial(archive, content=content)
            yield f"pickle, old: {kind}: {name}", partial(stream, content=content)


def put(name: str, content: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def sparse(name: str, begin: bytes, size: int) -> Make:
    def make(folder: Path) -> Path:
        with (folder / name).open("wb") as out:
            out.write(begin)
            out.truncate(size)
        return folder / name

    return make


def archives() -> Iterator[tuple[str, Make]]:
    """Archives that lie."""
    state = hostile_pickles.state()
    for name, method in (("deflate", zipfile.ZIP_DEFLATED), ("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        yield f"members compressed by {name}", partial(archive, content=state, compression=method)
        yield f"a bomb compressed by {name}", partial(archive, content=state + bytes(50 * MILLION), compression=method)
    whole = archive_bytes({"a/data.pkl": state, "a/data/0": DATA})
    directory = whole.index(b"PK\x01\x02")

    def many(entry: bytes, count: int) -> bytes:
        end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entry) * count, directory, 0)
        return whole[:directory] + entry * count + end

    length = 46 + struct.unpack("<H", whole[directory + 28:directory + 30])[0]
    entry = whole[directory:directory + length]
    yield "a directory of 300,000 members", put("a.pth", many(entry, 300_000))
    yield "a directory of 50,000 members", put("a.pth", many(entry, 50_000))
    yield "20,000 members that share their bytes", put("a.pth", overlapping(20_000))
    for offset, name in ((20, "compressed size"), (24, "size"), (42, "place"), (28, "length of a name"), (16, "checksum"),
                         (8, "flags"), (10, "method"), (6, "version"), (30, "length of extras"), (32, "length of a comment")):
        for value in (b"\xff\xff", b"\x01\x00", b"\x00\x80"):
            position = directory + offset
            yield f"a wrong {name} {value.hex()}", put("a.pth", whole[:position] + value + whole[position + 2:])
    yield "no pickle", put("a.pth", archive_bytes({"a/x": b""}))
    yield "two pickles", put("a.pth", archive_bytes({"a/data.pkl": state, "b/data.pkl": state}))
    yield "a pickle of 100 MB", put("a.pth", archive_bytes({"a/data.pkl": bytes(100 * MILLION)}))
    yield "a program of TorchScript", put("a.pth", archive_bytes({"a/data.pkl": state, "a/constants.pkl": b""}))
    yield "an archive of arrays", put("a.npz", archive_bytes({"a.npy": b""}))
    yield "a sparse file of 20 GB", sparse("a.pth", whole, 20_000 * MILLION)
    yield "a sparse file of 5 GB", sparse("a.pth", whole, 5_000 * MILLION)
    yield "an old sparse file of 5 GB", sparse("a.pth", b"\x80\x02", 5_000 * MILLION)


def archive_bytes(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        for name, value in members.items():
            out.writestr(name, value)
    return content.getvalue()


def overlapping(count: int) -> bytes:
    """Write an archive whose directory names the same million bytes many times, and a pickle that uses each."""
    names = tuple(f"layer1.{k}.conv1.weight" for k in range(count))
    pickled = b"\x80\x02}(" + b"".join(hostile_pickles.text(name) + hostile_pickles.tensor(
        hostile_pickles.storage(hostile_pickles.text(str(k)))) for k, name in enumerate(names)) + b"u."
    out = io.BytesIO(archive_bytes({"a/data.pkl": pickled, "a/data/0": bytes(4 * MILLION)}))
    archive = zipfile.ZipFile(out, "a")
    first = archive.getinfo("a/data/0")
    for k in range(1, count):
        member = zipfile.ZipInfo(f"a/data/{k}")
        member.header_offset, member.CRC = first.header_offset, first.CRC
        member.file_size = member.compress_size = first.file_size
        archive.filelist.append(member)
    archive._didModify = True  # so that the directory is written again
    archive.close()
    return out.getvalue()


def header(content: object, data: bytes = b"", size: int | None = None) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def safetensors() -> Iterator[tuple[str, Make]]:
    """Headers that lie, and indices."""
    def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    good = {"conv1.weight": entry([4], 0, 16)}
    data, stem = bytes(16), "conv1.weight"
    heads = {
        "length of 2**63": header(good, data, 1 << 63), "length of the file": header(good, data, 200),
        "length 0": header(good, data, 0), "nested": header(b"{" + b'"a":[' * MILLION, data),
        "a list": header([], data), "nothing": header({}, data), "too short": header({stem: entry([4], 0, 16)}, b""),
        "too long": header(good, bytes(999)), "negative": header({stem: entry([-4], 0, 16)}, data),
        "overflow": header({stem: entry([1 << 62, 4], 0, 16)}, data), "wide": header({stem: entry([1 << 63], 0, 0)}),
        "empty but wide": header({stem: entry([1 << 62, 0], 0, 0)}), "no type": header({stem: {"shape": [4]}}, data),
        "another type": header({stem: entry([4], 0, 16, "F33")}, data), "F8": header({stem: entry([16], 0, 16, "F8_E4M3")}, data),
        "complex": header({stem: entry([2], 0, 16, "C64")}, data), "a real size": header(b'{"a":{"dtype":"F32","shape":[4.5],"data_offsets":[0,16]}}', data),
        "backwards": header({stem: entry([4], 16, 0)}, data), "a hole": header({stem: entry([1], 12, 16)}, data),
        "two in one place": header({stem: entry([4], 0, 16), "b": entry([4], 0, 16)}, data),
        "20,000 in one place": header({f"a{k}": entry([4], 0, 16) for k in range(20_000)}, data),
        "50,000 of nothing": header({f"a{k}": entry([0], 0, 0) for k in range(50_000)}),
        "200,000 of nothing": header({f"a{k}": entry([0], 0, 0) for k in range(200_000)}),
        "a long name": header({"a" * MILLION: entry([4], 0, 16)}, data), "control characters": header({"\x1b[2J": entry([4], 0, 16)}, data),
        "not UTF-8": header(b'{"\xff":1}', data), "long metadata": header({"__metadata__": {"a": "b" * 7 * MILLION}, **good}, data),
        "metadata of numbers": header({"__metadata__": {"a": 1}, **good}, data)}
    for name, content in heads.items():
        yield f"safetensors: {name}", put("a.safetensors", content)
    yield "safetensors: 3 GB of header", sparse("a.safetensors", struct.pack("<Q", 3_000 * MILLION) + b"{", 3_100 * MILLION)
    for name, places in {"elsewhere": {"a": "../a.safetensors"}, "from the root": {"a": "/etc/passwd"}, "missing": {"a": "b.safetensors"},
                         "a number": {"a": 1}, "a list": {"a": []}, "itself": {"a": "a.safetensors.index.json"}, "none": {},
                         "2,000 files": {f"a{k}": f"{k}.safetensors" for k in range(2000)}}.items():
        yield f"index: {name}", put("model.safetensors.index.json", json.dumps({"weight_map": places}).encode())
    yield "index: nested", put("model.safetensors.index.json", b"[" * MILLION)
    yield "index: 20 MB", put("model.safetensors.index.json", b" " * 20 * MILLION)
    yield "index: no map", put("model.safetensors.index.json", b"[]")


def keras(change: Callable[[h5py.File, h5py.Group], object], old: bool = True) -> Make:
    """Write a Keras file with one layer; `change` gets the file and the layer's group."""
    def make(folder: Path) -> Path:
        with h5py.File(folder / "a.h5", "w") as out:
            out.attrs.update({"layer_names": np.array(["conv1_conv"], "S")} if old else {})
            layer = out.create_group("conv1_conv" if old else "layers/conv2d/vars")
            layer.attrs.update({"weight_names": np.array(["0", "1"], "S")} if old else {"name": "conv1_conv"})
            layer["1"] = np.ones(4, np.float32)
            change(out, layer)
        return folder / "a.h5"

    return make


def hdf5() -> Iterator[tuple[str, Make]]:
    """HDF5 that expands, points elsewhere or goes round in circles."""
    def other(out: h5py.File, layer: h5py.Group, make: Callable[[h5py.File, str], object]) -> None:
        with h5py.File(Path(out.filename).with_name("other.h5"), "w") as there:
            there["x"] = np.ones((7, 7, 3, 64), np.float32)
        make(out, f"{layer.name}/0")

    def virtual(out: h5py.File, name: str) -> None:
        layout = h5py.VirtualLayout((7, 7, 3, 64), np.float32)
        layout[...] = h5py.VirtualSource("other.h5", "x", (7, 7, 3, 64))
        out.create_virtual_dataset(name, layout)

    def names(count: int, length: int = 8) -> Callable[[h5py.File, h5py.Group], object]:
        return lambda out, layer: out.attrs.create("layer_names", np.array(["a" * length] * count, "S"))

    large = {"shape": (1 << 15, 1 << 15), "dtype": "f4"}
    changes: dict[str, Callable[[h5py.File, h5py.Group], object]] = {
        "compressed": lambda o, g: g.create_dataset("0", data=np.zeros((2000, 2000), "f4"), compression="gzip"),
        "in pieces": lambda o, g: g.create_dataset("0", data=np.zeros((10, 10), "f4"), chunks=(5, 5)),
        "4 GB in pieces, none written": lambda o, g: g.create_dataset("0", chunks=(5, 5), **large),
        "4 GB, none written": lambda o, g: g.create_dataset("0", **large),
        "2**62 bytes, none written": lambda o, g: g.create_dataset("0", (1 << 30, 1 << 30), "f4", chunks=(1, 1)),
        "empty but wide": lambda o, g: g.create_dataset("0", (0, 1 << 40), "f4"),
        "without a place": lambda o, g: g.create_dataset("0", data=h5py.Empty("f4")),
        "in another file": lambda o, g: g.create_dataset("0", (4,), "f4", external=[("/etc/passwd", 0, 16)]),
        "a link to a name": lambda o, g: g.__setitem__("0", h5py.SoftLink("/conv1_conv/1")),
        "a link to itself": lambda o, g: g.__setitem__("0", h5py.SoftLink(f"{g.name}/0")),
        "a link to another file": lambda o, g: other(o, g, lambda f, n: f.__setitem__(n, h5py.ExternalLink("other.h5", "x"))),
        "virtual": lambda o, g: other(o, g, virtual), "a group": lambda o, g: g.create_group("0"),
        "a type": lambda o, g: g.__setitem__("0", np.dtype("f4")), "a string": lambda o, g: g.__setitem__("0", "x" * MILLION),
        "strings": lambda o, g: g.create_dataset("0", data=["x"] * 1000, dtype=h5py.string_dtype()),
        "a compound": lambda o, g: g.create_dataset("0", (4,), [("a", "f4"), ("b", "i8")]),
        "arrays": lambda o, g: g.create_dataset("0", (4,), np.dtype(("f4", (5,)))),
        "references": lambda o, g: g.create_dataset("0", data=[g.ref], dtype=h5py.ref_dtype),
        "enumerated": lambda o, g: g.create_dataset("0", (4,), h5py.enum_dtype({"A": 1})),
        "complex": lambda o, g: g.__setitem__("0", np.ones(4, np.complex64)), "missing": lambda o, g: None,
        "a circle": lambda o, g: g.__setitem__("0", o["/"]), "32 axes": lambda o, g: g.create_dataset("0", data=np.ones((1,) * 32, "f4")),
        "3,000 names": names(3_000), "7,000 names": names(7_000), "a long name": names(1, 60_000),
        "a name that is no text": lambda o, g: o.attrs.create("layer_names", np.array([b"\xff\xfe"], "S")),
        "names that are numbers": lambda o, g: o.attrs.create("layer_names", np.arange(9)),
        "a name with dots": lambda o, g: o.attrs.create("layer_names", np.array(["../../conv1_conv"], "S"))}
    for name, change in changes.items():
        yield f"hdf5, old: {name}", keras(change)
        yield f"hdf5: {name}", keras(change, old=False)

    def circle(out: h5py.File, layer: h5py.Group) -> None:
        layer["0"] = np.ones((3, 3, 3, 4), np.float32)
        out["layers/conv2d/again"] = out["layers"]

    def deep(out: h5py.File, layer: h5py.Group) -> None:
        layer["0"] = np.ones((3, 3, 3, 4), np.float32)
        out.create_group("layers" + "/a" * 1000)

    yield "hdf5: groups in a circle", keras(circle, old=False)
    yield "hdf5: groups 1,000 deep", keras(deep, old=False)
    def renamed(name: str | None) -> Callable[[h5py.File, h5py.Group], None]:
        def change(out: h5py.File, layer: h5py.Group) -> None:
            layer["0"] = np.ones((3, 3, 3, 4), np.float32)
            del layer.attrs["name"]
            layer.attrs.update({} if name is None else {"name": name})

        return change

    yield "hdf5: a layer without a name", keras(renamed(None), old=False)
    yield "hdf5: a name of 60,000 letters", keras(renamed("a" * 60_000), old=False)
    yield "hdf5: a sparse file of 5 GB", sparse("a.h5", b"\x89HDF\r\n\x1a\n", 5_000 * MILLION)
    yield "keras: no HDF5 in it", put("a.keras", archive_bytes({"model.weights.h5": b"x" * 100}))
    yield "keras: nothing in it", put("a.keras", archive_bytes({"config.json": b"{}"}))
    yield "keras: two kinds in one", put("a.pth", archive_bytes({"model.weights.h5": b"", "a/data.pkl": hostile_pickles.state()}))


def others() -> Iterator[tuple[str, Make]]:
    """What is no file of weights, under names of weights."""
    contents = {"nothing": b"", "a byte": b"\x80", "zeros": bytes(1000), "ones": b"\xff" * 1000, "noise": np.random.default_rng(0).bytes(5000),
                "a page": b"<!DOCTYPE html><html>", "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                "gzip": b"\x1f\x8b\x08" + bytes(99), "tar": bytes(257) + b"ustar" + bytes(512), "json": b"{}", "text": b"hello"}
    for name, content in contents.items():
        for ending in (".pth", ".safetensors", ".h5", ".keras", ".ckpt", ".xyz"):
            yield f"{name} as {ending}", put(f"a{ending}", content)
    yield "a folder as .pth", lambda folder: (folder / "a.pth").mkdir() or folder / "a.pth"  # type: ignore[func-returns-value]
    yield "a pipe as .pth", lambda folder: os.mkfifo(folder / "a.pth") or folder / "a.pth"  # type: ignore[func-returns-value]
    yield "a link to itself", lambda folder: (folder / "a.pth").symlink_to("a.pth") or folder / "a.pth"  # type: ignore[func-returns-value]
    yield "a device", lambda folder: (folder / "a.pth").symlink_to("/dev/zero") or folder / "a.pth"  # type: ignore[func-returns-value]


def constructions() -> Iterator[tuple[str, Make]]:
    """List all."""
    for kind in (pickles, archives, safetensors, hdf5, others):
        yield from kind()
