"""Where the weights lie in a Keras file: `python hdf5_layout.py FILE START SIZE` prints it in JSON, and reads none.

HDF5's library follows whatever a file states, round in circles too, so it works here in a process of its own, with
little memory and time; the numbers are then read by `keras_files`, which needs to know only their places. The HDF5
file is `SIZE` bytes from `START` on, as it may be a member of an archive. Printed are the name, type, shape and offset
of each weight and the epsilon of each batch norm, or an error. This file runs as a script and imports nothing of ours.
"""

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

LEAVES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}
MOST = 20_000  # layers, and weights; Keras's ResNet-152 has 932
LONGEST = 1000  # characters of a name
DEEPEST = 8  # groups within groups
SECONDS, MEMORY = 8, 1 << 29


class Refused(Exception):
    """What the file is instead of Keras's weights."""


class Window(io.RawIOBase):
    """A part of a file as a file."""

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
    """Let the system end this process where it takes too much, if it has such limits."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            memory = int(file.read().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    except (ImportError, OSError, ValueError):
        pass


def child(group: Any, path: str) -> Any:
    """Follow a path through groups in the file itself. Raises Refused for a link, KeyError where it ends."""
    import h5py  # here, so that the rest can be read without it

    for part in path.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise KeyError(f"{path} is missing")
        if not isinstance(link, h5py.HardLink):
            raise Refused(f"{path} is a link to elsewhere")
        group = group[part]
    return group


def texts(group: Any, attribute: str) -> list[str]:
    """Read the names in an attribute."""
    ident = group.attrs.get_id(attribute)
    if len(ident.shape) != 1 or ident.shape[0] > MOST or ident.dtype.itemsize > LONGEST:
        raise Refused(f"{attribute} is no list of names")
    names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs[attribute]]
    if any(not isinstance(name, str) or len(name) > LONGEST for name in names):
        raise Refused(f"{attribute} is no list of names")
    return names


def locate_weight(name: str, weight: Any) -> tuple[str, str, list[int], int]:
    """Tell where a weight lies. Raises Refused unless it lies in one piece, as it is, in the file itself."""
    import h5py

    if not isinstance(weight, h5py.Dataset):
        raise Refused(f"{name} is no array")
    if weight.is_virtual or weight.external or weight.chunks or weight.compression or len(weight.shape) > LONGEST:
        raise Refused(f"{name} is compressed, in pieces or in another file; save it as Keras does")
    offset = weight.id.get_offset()
    if offset is None and weight.size:
        raise Refused(f"{name} was never written")
    kind = "bfloat16" if weight.attrs.get("dtype") == "bfloat16" else weight.dtype.str
    return name, kind, list(weight.shape), offset or 0


def named_layers(root: Any) -> Iterator[tuple[str, list[Any]]]:
    """List the layers and their weights of a file by Keras 1 and 2, or by `model.save("NAME.h5")` of Keras 3. The
    weights of a network that is a layer of another are named by their own layers, `LAYER/kernel`.
    """
    for layer in texts(root, "layer_names"):
        group, inner = child(root, layer), dict[str, list[str]]()
        names = texts(group, "weight_names")
        for name in names:
            inner.setdefault(name.rpartition("/")[0].rpartition("/")[2], []).append(name)
        if len(names) in (0, *LEAVES) or len(inner) == 1:
            inner = {layer: names}
        for own, weights in inner.items():
            leaves_of(own, len(weights))  # before they are looked for
            yield own, [child(group, name) for name in weights]


def leaves_of(layer: str, count: int) -> tuple[str, ...]:
    """Tell what so many weights of a layer are. Raises Refused if no layer has as many."""
    if count not in (0, *LEAVES):
        raise Refused(f"{layer} has {count} weights; no layer of a ResNet has so many")
    return LEAVES.get(count, ())


def saved_layers(group: Any, depth: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """List the layers and their weights of Keras 3's own files, where a group `vars` knows the layer's name."""
    import h5py

    if depth > DEEPEST or len(group) > MOST:
        raise Refused("its groups are more than any network's")
    for part in group:
        inner = child(group, part)
        if not isinstance(inner, h5py.Group) or part == "seed_generator":  # of dropout: no weights
            continue
        if part == "vars" and len(inner):
            name = inner.attrs.get("name")
            if not isinstance(name, str) or len(name) > LONGEST:
                raise Refused("its layers have no names; load it by Keras and save it again by a newer one")
            yield name, [child(inner, str(number)) for number in range(min(len(inner), MOST))]
        elif part != "vars":
            yield from saved_layers(inner, depth + 1)


def weights(opened: Any) -> Iterator[tuple[str, str, list[int], int]]:
    """List every weight: `LAYER/kernel`, `LAYER/gamma` ... What a layer's weights are is told by their order, as by
    Keras itself.
    """
    root = child(opened, "model_weights") if "model_weights" in opened else opened
    if "layer_names" not in root.attrs and "layers" not in opened:
        raise Refused("its layers have no names; write it by model.save('NAME.keras')")
    layers = named_layers(root) if "layer_names" in root.attrs else saved_layers(child(opened, "layers"))
    for layer, found in layers:
        for leaf, weight in zip(leaves_of(layer, len(found)), found, strict=True):
            yield locate_weight(f"{layer}/{leaf}", weight)


def epsilons(config: Any) -> dict[str, float]:
    """Find what each batch norm adds to the variance, in the configuration of a Keras model."""
    found, rest = {}, [config]
    while rest:
        value = rest.pop()
        if isinstance(value, dict) and value.get("class_name") == "BatchNormalization":
            found[str(value["config"]["name"])] = float(value["config"]["epsilon"])
        rest += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return found


def main(path: str, start: str, size: str) -> dict[str, Any]:
    """Look into a file."""
    import h5py

    limit_process()
    try:
        with h5py.File(Window(path, int(start), int(size)), "r") as opened:
            if opened.userblock_size:
                raise Refused("something else comes first in it")
            found = []
            for number, weight in enumerate(weights(opened)):
                if number == MOST:
                    raise Refused("its weights are more than any network's")
                found.append(weight)
            return {"weights": found, "epsilons": epsilons(json.loads(opened.attrs.get("model_config", "{}")))}
    except Refused as error:
        return {"refused": str(error)}
    except MemoryError:
        raise
    except Exception as error:  # whatever the library makes of a damaged file
        return {"damaged": str(error) or type(error).__name__}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
