"""Files of weights to named arrays, whoever wrote them."""

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from resjax.errors import BadInput
from resjax.weights.torch_pickle import read_torch

Tensors = dict[str, np.ndarray]
LEAVES = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}


def read_tensors(file: Path) -> Tensors:
    """Read every tensor of a file by name: `.safetensors`, `.pt`, `.pth`, `.th`, `.bin` (PyTorch) or `.h5` (Keras).

    No code in a file is run. Raises BadInput, naming the file, where it is missing, damaged or of another kind.
    """
    read = READERS.get(file.suffix.lower())
    if read is None:
        raise BadInput(f"{file}: a file of weights ends in {', '.join(READERS)}")
    if not file.is_file():
        raise BadInput(f"{file}: no such file")
    tensors = read(file)
    if not tensors:
        raise BadInput(f"{file}: it holds no tensor")
    odd = next((name for name, tensor in tensors.items() if tensor.dtype.kind not in "biuf"
                and tensor.dtype != ml_dtypes.bfloat16), None)
    if odd is not None:
        raise BadInput(f"{file}: {odd} holds {tensors[odd].dtype}, not numbers that weights are kept in")
    return tensors


def read_safetensors(file: Path) -> Tensors:
    """Read a safetensors file."""
    try:
        with safe_open(file, framework="np") as opened:
            return {name: np.asarray(opened.get_tensor(name)) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(f"{file}: not a whole safetensors file ({error}); get it again") from None


def read_keras(file: Path) -> Tensors:
    """Read the weights of a Keras `.h5` file, by the names of their layers: `LAYER/kernel`, `LAYER/gamma` ...

    What a layer's weights are is told by their order, as Keras itself does.
    """
    import h5py  # here, as it takes every start of resjax 35 ms

    tensors: Tensors = {}
    try:
        with h5py.File(file, "r") as opened:
            root = opened.get("model_weights", opened)
            if "layer_names" not in root.attrs:
                raise BadInput(f"{file}: its layers have no names; write it by model.save('NAME.h5')")
            for layer in map(as_text, root.attrs["layer_names"]):
                names = [as_text(name) for name in root[layer].attrs["weight_names"]]
                if len(names) not in (0, *LEAVES):
                    raise BadInput(f"{file}: {layer} has {len(names)} weights; no layer of a ResNet has so many")
                for leaf, name in zip(LEAVES.get(len(names), ()), names, strict=True):
                    tensors[f"{layer}/{leaf}"] = np.asarray(root[layer][name])
    except BadInput:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{file}: not a whole Keras file of weights ({error}); get it again") from None
    return tensors


def as_text(name: bytes | str) -> str:
    """Decode a name in an HDF5 file."""
    return name.decode() if isinstance(name, bytes) else name


READERS: dict[str, Callable[[Path], Tensors]] = {
    ".safetensors": read_safetensors, ".pt": read_torch, ".pth": read_torch, ".th": read_torch, ".bin": read_torch,
    ".h5": read_keras}
