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

import numpy as np
from campaign import hostile_pickles

MILLION, INDEX = hostile_pickles.MILLION, "model.safetensors.index.json"
DATA = np.arange(hostile_pickles.COUNT, dtype=np.float32).tobytes()
Make = Callable[[Path], Path]


def archive(folder: Path, content: bytes, name: str = "a.pth", **settings: int) -> Path:
    """Write a pickle as PyTorch does since 1.6."""
    with zipfile.ZipFile(folder / name, "w", **settings) as out:
        out.writestr("archive/data.pkl", content.replace(b"MARKER", bytes(folder / "marker")))
        out.writestr("archive/data/0", DATA)
    return folder / name


def stream(folder: Path, content: bytes, keys: bytes = b"\x80\x02](" + hostile_pickles.text("0") + b"e.") -> Path:
    """Write a pickle as PyTorch did before."""
    head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
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
        counts = (0, 0, count & 0xFFFF, count & 0xFFFF, len(entry) * count, directory, 0)
        end = b"PK\x05\x06" + struct.pack("<HHHHIIH", *counts)
        return whole[:directory] + entry * count + end

    length = 46 + struct.unpack("<H", whole[directory + 28:directory + 30])[0]
    entry = whole[directory:directory + length]
    yield "a directory of 300,000 members", put("a.pth", many(entry, 300_000))
    yield "a directory of 50,000 members", put("a.pth", many(entry, 50_000))
    yield "20,000 members that share their bytes", put("a.pth", overlapping(20_000))
    for offset, name in ((20, "compressed size"), (24, "size"), (42, "place"), (28, "name's length"), (16, "checksum"),
                         (8, "flags"), (10, "method"), (6, "version"), (30, "extra length"), (32, "comment's length")):
        for value in (b"\xff\xff", b"\x01\x00", b"\x00\x80"):
            position = directory + offset
            yield f"a wrong {name} {value.hex()}", put("a.pth", whole[:position] + value + whole[position + 2:])
    yield "no pickle", put("a.pth", archive_bytes({"a/x": b""}))
    yield "two pickles", put("a.pth", archive_bytes({"a/data.pkl": state, "b/data.pkl": state}))
    yield "a pickle of 100 MB", put("a.pth", archive_bytes({"a/data.pkl": bytes(100 * MILLION)}))
    yield "a TorchScript program", put("a.pth", archive_bytes({"a/data.pkl": state, "a/constants.pkl": b""}))
    yield "an archive of arrays", put("a.npz", archive_bytes({"a.npy": b""}))
    yield "an old file with shared tuples for a key", lambda folder: stream(
        folder, state, keys=b"\x80\x02](" + hostile_pickles.SHARED + b"e.")
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
        "another type": header({stem: entry([4], 0, 16, "F33")}, data),
        "F8": header({stem: entry([16], 0, 16, "F8_E4M3")}, data),
        "complex": header({stem: entry([2], 0, 16, "C64")}, data),
        "a real size": header({stem: {**entry([4], 0, 16), "shape": [4.5]}}, data),
        "backwards": header({stem: entry([4], 16, 0)}, data), "a hole": header({stem: entry([1], 12, 16)}, data),
        "two in one place": header({stem: entry([4], 0, 16), "b": entry([4], 0, 16)}, data),
        "20,000 in one place": header({f"a{k}": entry([4], 0, 16) for k in range(20_000)}, data),
        "50,000 of nothing": header({f"a{k}": entry([0], 0, 0) for k in range(50_000)}),
        "200,000 of nothing": header({f"a{k}": entry([0], 0, 0) for k in range(200_000)}),
        "a long name": header({"a" * MILLION: entry([4], 0, 16)}, data),
        "control characters": header({"\x1b[2J": entry([4], 0, 16)}, data), "not UTF-8": header(b'{"\xff":1}', data),
        "long metadata": header({"__metadata__": {"a": "b" * 7 * MILLION}, **good}, data),
        "metadata of numbers": header({"__metadata__": {"a": 1}, **good}, data)}
    for name, content in heads.items():
        yield f"safetensors: {name}", put("a.safetensors", content)
    yield "safetensors: 3 GB of header", sparse("a.safetensors", struct.pack("<Q", 3_000 * MILLION) + b"{",
                                                3_100 * MILLION)
    indices: dict[str, object] = {
        "elsewhere": "../a.safetensors", "from the root": "/etc/passwd", "missing": "b.safetensors", "a number": 1,
        "a list": [], "itself": INDEX}
    for name, place in indices.items():
        yield f"index: {name}", put(INDEX, json.dumps({"weight_map": {"a": place}}).encode())
    many = {f"a{k}": f"{k}.safetensors" for k in range(2000)}
    for name, text in {"none": b'{"weight_map": {}}', "2,000 files": json.dumps({"weight_map": many}).encode(),
                       "nested": b"[" * MILLION, "20 MB": b" " * 20 * MILLION, "no map": b"[]"}.items():
        yield f"index: {name}", put(INDEX, text)


def others() -> Iterator[tuple[str, Make]]:
    """What is no file of weights, under names of weights."""
    contents = {
        "nothing": b"", "a byte": b"\x80", "zeros": bytes(1000), "ones": b"\xff" * 1000, "json": b"{}", "text": b"hi",
        "noise": np.random.default_rng(0).bytes(5000), "a page": b"<!DOCTYPE html><html>",
        "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "gzip": b"\x1f\x8b\x08" + bytes(99), "tar": bytes(257) + b"ustar" + bytes(512)}
    for name, content in contents.items():
        for ending in (".pth", ".safetensors", ".h5", ".keras", ".ckpt", ".xyz"):
            yield f"{name} as {ending}", put(f"a{ending}", content)
    makers: dict[str, Callable[[Path], object]] = {
        "a folder": Path.mkdir, "a pipe": os.mkfifo, "a link to itself": lambda file: file.symlink_to(file.name),
        "a device": lambda file: file.symlink_to("/dev/zero")}
    for name, maker in makers.items():
        yield name, partial(made, maker)


def made(maker: Callable[[Path], object], folder: Path) -> Path:
    maker(folder / "a.pth")
    return folder / "a.pth"
