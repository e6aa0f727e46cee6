"""Reads weights from Keras files (`.h5`, `.weights.h5` and `.keras`)."""

import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from resjax.system.errors import BadInput, check
from resjax.system.files import LARGEST_JSON
from resjax.weights.reading import Stored, refusing, shown
from resjax.weights.torch_pickle import Bounded, open_zip

LAYOUT = Path(__file__).with_name("hdf5_layout.py")
INSIDE, CONFIG = "model.weights.h5", "config.json"  # members of an archive
SECONDS = 120  # wall-clock time, generous for busy machines; `hdf5_layout` limits processor time


def read_keras(file: Path) -> Stored:
    """Read the weights and the epsilons of the batch norms from HDF5, in a file of its own or in a `.keras` archive.

    Weights are named `LAYER/kernel`, `LAYER/gamma` and so on. Raises BadInput, naming the file, if it is damaged or
    compressed, refers to other files, or states more than it contains.
    """
    tensors: dict[str, np.ndarray] = {}
    total = 0
    with refusing(file, "Keras weights file"), file.open("rb") as stream:
        start, size, config = find_hdf5(file)
        layout = read_layout(file, start)
        for name, kind, shape, offset in layout["weights"]:
            dtype = np.dtype(kind)
            length = math.prod(shape) * dtype.itemsize
            total += length
            check(name not in tensors, f"{shown(name)} occurs twice")
            if offset < 0 or offset + length > size or total > size:
                raise ValueError(f"{name} is cut off")
            stream.seek(start + offset)
            tensors[name] = np.frombuffer(stream.read(length), dtype).reshape(shape)
        return Stored(tensors, epsilons=epsilons([layout["config"], config]))


def find_hdf5(file: Path) -> tuple[int, int, Any]:
    """Return the first byte and the size of the HDF5 data, and the configuration of the model in an archive."""
    with Bounded(file.open("rb", buffering=0)) as stream:
        if stream.read(2) != b"PK":
            return 0, file.stat().st_size, {}
        archive = open_zip(stream)
        check(archive.getinfo(CONFIG).file_size <= LARGEST_JSON, f"{CONFIG} in it is too large")
        with archive.open(INSIDE):
            start = stream.tell()  # the content of the member begins after its header
        return start, archive.getinfo(INSIDE).file_size, json.loads(archive.read(CONFIG))


def read_layout(file: Path, start: int) -> Any:
    """Find name, dtype, shape and offset of the weights in a separate process, which a damaged file may crash."""
    settings = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_USE_FILE_LOCKING": "FALSE"}
    # -P prevents imports from the script's folder and the current folder
    command = [sys.executable, "-P", str(LAYOUT), str(file), str(start)]
    reason = "incomplete or invalid Keras weights file (HDF5 finds no end); download it again"
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, timeout=SECONDS, check=False)
        if done.returncode == 0:
            return json.loads(done.stdout)
        reason = [reason, *done.stderr.decode(errors="replace").splitlines()][-1]
    raise BadInput(shown(reason, 300))


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
    with suppress(Exception), Bounded(file.open("rb", buffering=0)) as stream:
        return INSIDE in open_zip(stream).namelist()
    return False
