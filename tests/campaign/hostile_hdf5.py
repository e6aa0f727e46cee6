"""HDF5 that states more than it holds, expands, points elsewhere or goes round in circles, as Keras's files would."""

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from campaign.hostile_files import Make, archive_bytes, put, sparse
from campaign.hostile_pickles import MILLION, state


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

    def linked(out: h5py.File, name: str) -> None:
        out[name] = h5py.ExternalLink("other.h5", "x")

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
        "a link to another file": lambda o, g: other(o, g, linked), "virtual": lambda o, g: other(o, g, virtual),
        "a group": lambda o, g: g.create_group("0"), "a type": lambda o, g: g.__setitem__("0", np.dtype("f4")),
        "a string": lambda o, g: g.__setitem__("0", "x" * MILLION),
        "strings": lambda o, g: g.create_dataset("0", data=["x"] * 1000, dtype=h5py.string_dtype()),
        "a compound": lambda o, g: g.create_dataset("0", (4,), [("a", "f4"), ("b", "i8")]),
        "arrays": lambda o, g: g.create_dataset("0", (4,), np.dtype(("f4", (5,)))),
        "references": lambda o, g: g.create_dataset("0", data=[g.ref], dtype=h5py.ref_dtype),
        "enumerated": lambda o, g: g.create_dataset("0", (4,), h5py.enum_dtype({"A": 1})),
        "complex": lambda o, g: g.__setitem__("0", np.ones(4, np.complex64)), "missing": lambda o, g: None,
        "a circle": lambda o, g: g.__setitem__("0", o["/"]),
        "32 axes": lambda o, g: g.create_dataset("0", data=np.ones((1,) * 32, "f4")),
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
    yield "keras: two kinds in one", put("a.pth", archive_bytes({
        "model.weights.h5": b"", "a/data.pkl": state()}))
