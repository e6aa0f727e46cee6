"""Reads weights from Keras files, which are `.h5`, `.weights.h5`, or `.keras` archives."""

import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from resjax.system.errors import check
from resjax.system.files import LARGEST_JSON
from resjax.weights.reading import DAMAGE, Stored, refusing, shown
from resjax.weights.torch_pickle import open_zip

LAYOUT = Path(__file__).with_name("hdf5_layout.py")
INSIDE = "model.weights.h5"  # the archive's member with the weights
SECONDS = 120  # wall-clock time, generous for busy machines; `hdf5_layout` limits processor time


def read_keras_archive(file: Path) -> Stored:
    """Read the weights of a `.keras` file, an archive with an uncompressed HDF5 file. Raises BadInput for others."""
    with refusing(file, "Keras archive"), file.open("rb") as stream:
        archive = open_zip(stream, file)
        member, config = archive.getinfo(INSIDE), b"{}"
        if "config.json" in archive.namelist() and archive.getinfo("config.json").file_size <= LARGEST_JSON:
            config = archive.read("config.json")
        with archive.open(member):
            start = stream.tell()  # the content of the member begins after its header
        return read_weights(file, start, member.file_size)._replace(epsilons=epsilons(json.loads(config)))


def read_weights(file: Path, start: int, size: int) -> Stored:
    """Read the weights in HDF5 from a file or a part of it, and the epsilons of the batch norms.

    Weights are named `LAYER/kernel`, `LAYER/gamma` and so on. Raises BadInput, naming the file, if it is damaged or
    compressed, refers to other files, or states more than it contains.
    """
    tensors: dict[str, np.ndarray] = {}
    total = 0
    layout = read_layout(file, start, size)
    with refusing(file, "Keras weights file"), file.open("rb") as stream:
        for name, kind, shape, offset in layout["weights"]:
            dtype = np.dtype(kind)
            length = math.prod(shape) * dtype.itemsize
            total += length
            check(name not in tensors, f"{file}: {shown(name)} occurs twice")
            if offset < 0 or offset + length > size or total > size:
                raise ValueError(f"{name} is cut off")
            stream.seek(start + offset)
            tensors[name] = np.frombuffer(stream.read(length), dtype).reshape(shape)
        return Stored(tensors, epsilons=epsilons(layout["config"]))


def read_layout(file: Path, start: int, size: int) -> Any:
    """Find name, dtype, shape and offset of the weights in a separate process, which a damaged file may crash."""
    settings = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_USE_FILE_LOCKING": "FALSE"}
    # -P prevents imports from the script's folder and the current folder
    command = [sys.executable, "-P", str(LAYOUT), str(file), str(start), str(size)]
    try:
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, timeout=SECONDS, check=True)
        layout = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        layout = {"refused": "incomplete or invalid Keras weights file (HDF5 finds no end); download it again"}
    check("refused" not in layout, f"{file}: {shown(layout.get('refused'), 300)}")
    return layout


def epsilons(config: Any) -> dict[str, float]:
    """Find the epsilon of each batch norm in the configuration of a Keras model."""
    norms, rest = {}, [config]
    while rest:
        value = rest.pop()
        if isinstance(value, dict) and value.get("class_name") == "BatchNormalization":
            norms[str(value["config"]["name"])] = float(value["config"]["epsilon"])
        rest += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return norms


def is_keras_archive(file: Path) -> bool:
    """Return whether an archive is Keras's rather than PyTorch's."""
    with suppress(*DAMAGE), file.open("rb") as stream:
        return INSIDE in open_zip(stream, file).namelist()
    return False
