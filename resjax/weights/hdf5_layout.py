"""Locates the weights in a Keras file: `python hdf5_layout.py FILE START SIZE` prints their layout as JSON.

The HDF5 library follows every reference in a file, even if the references form a circle. So it runs here in a separate
process with limited memory and time; `keras_files` then reads the numbers, given only their location. The HDF5 file has
`SIZE` bytes from `START`, since it may be a member of an archive. The output is the name, dtype, shape and offset of
each weight and the epsilon of each batch norm, or an error. This file is a script and imports nothing from resjax.
"""

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

LEAVES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}
MOST = 20_000  # numbers of layers and weights; Keras's ResNet-152 has 932
LONGEST = 1000  # length of a name
DEEPEST = 8  # nesting of groups
SECONDS, MEMORY = 8, 1 << 29


class Refused(Exception):
    """Describes a file that does not contain Keras weights."""


class Window(io.RawIOBase):
    """A part of a file, presented as a file."""

    def __init__(self, path: str, start: int, size: int) -> None:
        self.stream, self.start, self.size, self.position = open(path, "rb"), start, size, 0  # noqa: SIM115

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        self.stream.seek(self.start + self.position)
        content = self.stream.read(max(0, min(len(buffer), self.size - self.position)))
        buffer[:len(content)] = content
        self.position += len(content)
        return len(content)


def limit_process() -> None:
    """Limit the memory and time of this process, if the system supports it."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            memory = int(file.read().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    except (ImportError, OSError, ValueError):
        pass


def child(group: Any, path: str) -> Any:
    """Follow a path through groups inside the file. Raises Refused for a link, and KeyError if it does not exist."""
    import h5py  # imported here, so that the module works without it

    for part in path.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise KeyError(f"{path} is missing")
        if not isinstance(link, h5py.HardLink):
            raise Refused(f"{path} is a link to another place")
        group = group[part]
    return group


def texts(group: Any, attribute: str) -> list[str]:
    """Read names from an attribute."""
    ident = group.attrs.get_id(attribute)
    if len(ident.shape) != 1 or ident.shape[0] > MOST or ident.dtype.itemsize > LONGEST:
        raise Refused(f"{attribute} is not a list of names")
    names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs[attribute]]
    if any(not isinstance(name, str) or len(name) > LONGEST for name in names):
        raise Refused(f"{attribute} is not a list of names")
    return names


def locate_weight(name: str, weight: Any) -> tuple[str, str, list[int], int]:
    """Return the location of a weight. Raises Refused unless it is stored contiguously and unfiltered in this file."""
    import h5py

    if not isinstance(weight, h5py.Dataset):
        raise Refused(f"{name} is not an array")
    if weight.is_virtual or weight.external or weight.chunks or weight.compression or len(weight.shape) > LONGEST:
        raise Refused(f"{name} is compressed, chunked or in another file; save it with Keras")
    offset = weight.id.get_offset()
    if offset is None and weight.size:
        raise Refused(f"{name} was never written")
    kind = "bfloat16" if weight.attrs.get("dtype") == "bfloat16" else weight.dtype.str
    return name, kind, list(weight.shape), offset or 0


def named_layers(root: Any) -> Iterator[tuple[str, list[Any]]]:
    """List the layers and weights of a file by Keras 1 or 2, or by `model.save("NAME.h5")` of Keras 3.

    Weights of a nested network are named after their own layers, `LAYER/kernel`.
    """
    for layer in texts(root, "layer_names"):
        group, inner = child(root, layer), dict[str, list[str]]()
        names = texts(group, "weight_names")
        for name in names:
            inner.setdefault(name.rpartition("/")[0].rpartition("/")[2], []).append(name)
        if len(names) in (0, *LEAVES) or len(inner) == 1:
            inner = {layer: names}
        for own, weights in inner.items():
            leaves_of(own, len(weights))  # check before access
            yield own, [child(group, name) for name in weights]


def leaves_of(layer: str, count: int) -> tuple[str, ...]:
    """Name the weights of a layer, given their number. Raises Refused if no layer has this number of weights."""
    if count not in (0, *LEAVES):
        raise Refused(f"{layer} has {count} weights, more than any layer of a ResNet")
    return LEAVES.get(count, ())


def saved_layers(group: Any, depth: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """List the layers and weights of Keras 3's own format, where a group `vars` stores the layer's name."""
    import h5py

    if depth > DEEPEST or len(group) > MOST:
        raise Refused("too many groups for a network")
    for part in group:
        inner = child(group, part)
        if not isinstance(inner, h5py.Group) or part == "seed_generator":  # dropout: no weights
            continue
        if part == "vars" and len(inner):
            name = inner.attrs.get("name")
            if not isinstance(name, str) or len(name) > LONGEST:
                raise Refused("its layers have no names; load it with Keras and save it again with a newer version")
            yield name, [child(inner, str(number)) for number in range(min(len(inner), MOST))]
        elif part != "vars":
            yield from saved_layers(inner, depth + 1)


def weights(opened: Any) -> Iterator[tuple[str, str, list[int], int]]:
    """List every weight: `LAYER/kernel`, `LAYER/gamma` ... As in Keras, their order identifies them."""
    root = child(opened, "model_weights") if "model_weights" in opened else opened
    if "layer_names" not in root.attrs and "layers" not in opened:
        raise Refused("its layers have no names; save it with model.save('NAME.keras')")
    layers = named_layers(root) if "layer_names" in root.attrs else saved_layers(child(opened, "layers"))
    for layer, found in layers:
        for leaf, weight in zip(leaves_of(layer, len(found)), found, strict=True):
            yield locate_weight(f"{layer}/{leaf}", weight)


def epsilons(config: Any) -> dict[str, float]:
    """Find the epsilon of each batch norm in the configuration of a Keras model."""
    found, rest = {}, [config]
    while rest:
        value = rest.pop()
        if isinstance(value, dict) and value.get("class_name") == "BatchNormalization":
            found[str(value["config"]["name"])] = float(value["config"]["epsilon"])
        rest += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return found


def main(path: str, start: str, size: str) -> dict[str, Any]:
    """Inspect a file."""
    import h5py

    limit_process()
    try:
        with h5py.File(Window(path, int(start), int(size)), "r") as opened:
            if opened.userblock_size:
                raise Refused("it does not start with the HDF5 header")
            found = []
            for number, weight in enumerate(weights(opened)):
                if number == MOST:
                    raise Refused("too many weights for a network")
                found.append(weight)
            return {"weights": found, "epsilons": epsilons(json.loads(opened.attrs.get("model_config", "{}")))}
    except Refused as error:
        return {"refused": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # any error of the library for a damaged file
        return {"damaged": str(error) or type(error).__name__}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
