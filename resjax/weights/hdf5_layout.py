"""Locates the weights in a Keras file. The command `python hdf5_layout.py FILE START` prints their layout as JSON.

The HDF5 library follows every reference in a file, even if the references form a cycle. It therefore runs in a separate
process with limited memory and time. This process reports only where the numbers are, and `keras_files` then reads the
numbers. The HDF5 data begin at byte `START` of `FILE`, because they may be a member of an archive. The output contains
the model's configuration and the name, dtype, shape and offset of each weight. If the file is refused, the reason is
the last line of the error output. This file is a script and imports nothing from resjax.
"""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import h5py

LEAVES = {0: (), 1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}
MOST = 20_000  # largest number of layers or weights; Keras's ResNet-152 has 932
LONGEST = 1000  # largest length of a name
DEEPEST = 8  # deepest nesting of groups
LARGEST_CONFIG = 1 << 23  # characters; 0.3 million for ResNet-152
SECONDS, MEMORY = 8, 1 << 29


class Window(io.BufferedReader):
    """A file from byte `start` on, presented as a file."""

    start = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return super().seek(offset + (self.start if whence == io.SEEK_SET else 0), whence) - self.start

    def tell(self) -> int:
        return super().tell() - self.start


def limit_process() -> None:
    """Limit the memory and time of this process, if the system supports it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])  # on Linux
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def child(group: Any, path: str) -> Any:
    """Follow a path through groups inside the file. Exits for a link, and raises KeyError for a missing path."""
    for part in path.split("/"):
        if not isinstance(group.get(part, getlink=True), (h5py.HardLink, type(None))):
            sys.exit(f"{path} is a link to another place")
        group = group[part]
    return group


def texts(group: Any, attribute: str) -> list[str]:
    """Read names from an attribute."""
    ident = group.attrs.get_id(attribute)
    if (len(ident.shape) != 1 or ident.shape[0] > MOST or ident.dtype.itemsize > LONGEST
            or (ident.shape[0] and h5py.check_string_dtype(ident.dtype) is None)):  # an empty list has any type
        sys.exit(f"{attribute} is not a list of names")
    return [name.decode() if isinstance(name, bytes) else name for name in group.attrs[attribute]]


def locate_weight(name: str, weight: Any) -> tuple[str, str, list[int], int]:
    """Return the location of a weight. Exits unless it is stored contiguously and unfiltered in this file."""
    if not isinstance(weight, h5py.Dataset):
        sys.exit(f"{name} is not an array")
    offset = weight.id.get_offset()
    if offset is None and weight.size:
        sys.exit(f"{name} is compressed, chunked or in another file, or was never written; save it with Keras")
    kind = "bfloat16" if weight.attrs.get("dtype") == "bfloat16" else weight.dtype.str
    if weight.dtype.kind not in "biuf" and kind != "bfloat16":
        sys.exit(f"{name} has dtype {weight.dtype}, which weights cannot have")
    return name, kind, list(weight.shape), offset or 0


Layers = Iterator[tuple[str, Any, list[str]]]
"""Layers by name, each with its group and the paths of its weights in the group."""


def named_layers(root: Any) -> Layers:
    """List the layers of a file that Keras 1 or 2, or `model.save("NAME.h5")` of Keras 3, has written.

    The weights of a nested network are named after their own layers, as in `LAYER/kernel`.
    """
    for layer in texts(root, "layer_names"):
        group, inner = child(root, layer), dict[str, list[str]]()
        names = texts(group, "weight_names")
        for name in names:
            inner.setdefault(name.rpartition("/")[0].rpartition("/")[2], []).append(name)
        if len(names) in LEAVES or len(inner) == 1:
            inner = {layer: names}
        for own, paths in inner.items():
            yield own, group, paths


def saved_layers(group: Any, depth: int = 0) -> Layers:
    """List the layers of Keras 3's own format, where a group `vars` stores the layer's name."""
    if depth > DEEPEST or len(group) > MOST:
        sys.exit("too many groups for a network")
    for part in group:
        inner = child(group, part)
        if not isinstance(inner, h5py.Group) or part == "seed_generator":  # of dropout, which has no weights
            continue
        if part == "vars" and len(inner):
            if not isinstance(name := inner.attrs.get("name"), str):
                sys.exit("its layers have no names; load it with Keras and save it again with a newer version")
            yield name, inner, [str(number) for number in range(len(inner))]
        elif part != "vars":
            yield from saved_layers(inner, depth + 1)


def weights(opened: Any) -> Iterator[tuple[str, str, list[int], int]]:
    """List every weight, as `LAYER/kernel`, `LAYER/gamma` and so on. As in Keras, their order identifies them."""
    root = child(opened, "model_weights") if "model_weights" in opened else opened
    if "layer_names" not in root.attrs and "layers" not in opened:
        sys.exit("its layers have no names; save it with model.save('NAME.keras')")
    for layer, group, paths in (
            named_layers(root) if "layer_names" in root.attrs else saved_layers(child(opened, "layers"))):
        if len(paths) not in LEAVES:
            sys.exit(f"{layer} has {len(paths)} weights, more than any layer of a ResNet")
        for leaf, path in zip(LEAVES[len(paths)], paths, strict=True):
            yield locate_weight(f"{layer}/{leaf}", child(group, path))


def main(path: str, start: str) -> None:
    """Print the layout of a file, or exit with the reason why it has none."""
    limit_process()
    try:
        with Window(Path(path).open("rb", buffering=0)) as window:
            window.start = int(start)
            opened = h5py.File(window, "r")
            if opened.userblock_size:
                sys.exit("it does not start with the HDF5 header")
            layout, config = list(islice(weights(opened), MOST + 1)), opened.attrs.get("model_config", "{}")
            if len(layout) > MOST or len(config) > LARGEST_CONFIG:
                sys.exit("too many weights or settings for a network")
            print(json.dumps({"weights": layout, "config": json.loads(config)}))
    except Exception as error:  # any error of the library for a damaged file
        sys.exit(f"incomplete or invalid Keras weights file ({str(error)[:200] or type(error).__name__}); "
                 "download it again")


if __name__ == "__main__":
    main(*sys.argv[1:])
