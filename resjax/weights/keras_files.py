"""Reads weights from Keras files: `.h5`, `.weights.h5`, and `.keras` archives."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from resjax.system.errors import BadInput, check
from resjax.system.files import LARGEST_JSON
from resjax.weights import hdf5_layout
from resjax.weights.sets import shown
from resjax.weights.torch_pickle import BROKEN, open_zip, reason

INSIDE = "model.weights.h5"  # member of the archive
SECONDS = 120  # wall-clock, for busy machines; the limit in `hdf5_layout` is processor time
Weights = tuple[dict[str, np.ndarray], str, dict[str, float]]


def read_keras_archive(file: Path) -> Weights:
    """Read the weights of Keras 3's `.keras`, an archive with an uncompressed HDF5 file. Raises BadInput for others."""
    try:
        with file.open("rb") as stream:
            archive = open_zip(stream, file)
            member = archive.getinfo(INSIDE)
            stated = "config.json" in archive.namelist() and archive.getinfo("config.json").file_size <= LARGEST_JSON
            epsilons = hdf5_layout.epsilons(json.loads(archive.read("config.json"))) if stated else {}
            with archive.open(member):
                start = stream.tell()  # after the member's own header comes its content
    except BadInput:
        raise
    except (*BROKEN, RecursionError) as error:
        raise BadInput(f"{file}: incomplete or invalid Keras archive ({reason(error)}); download it again") from None
    tensors, _, _ = read_weights(file, start, member.file_size)
    return tensors, "", epsilons


def read_weights(file: Path, start: int, size: int) -> Weights:
    """Read the weights in HDF5 from a file or a part of it, and the epsilons of the batch norms.

    Weights are named `LAYER/kernel`, `LAYER/gamma` ... Raises BadInput, naming the file, if it is damaged or
    compressed, refers to other files, or states more than it contains.
    """
    tensors: dict[str, np.ndarray] = {}
    total = 0
    found = look_into(file, start, size)
    with file.open("rb") as stream:
        for name, kind, shape, offset in found["weights"]:
            dtype = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
            length = math.prod(shape) * dtype.itemsize
            total += length
            check(name not in tensors, f"{file}: {shown(name)} occurs twice")
            if dtype.kind not in "biuf" and kind != "bfloat16":
                raise BadInput(f"{file}: {shown(name)} has dtype {shown(dtype)}, which weights cannot have")
            if offset < 0 or offset + length > size or total > size:
                raise BadInput(f"{file}: incomplete Keras weights file ({shown(name)} is cut off); download it again")
            stream.seek(start + offset)
            tensors[name] = np.frombuffer(stream.read(length), dtype).reshape(shape)
    return tensors, "", found["epsilons"]


def look_into(file: Path, start: int, size: int) -> Any:
    """Locate the weights in a separate process, which a damaged file may crash: name, dtype, shape and offset."""
    settings = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_USE_FILE_LOCKING": "FALSE"}
    # -P: do not import from the script's or the current folder
    command = [sys.executable, "-P", hdf5_layout.__file__, str(file), str(start), str(size)]
    try:
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, timeout=SECONDS, check=True)
        found = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        raise BadInput(f"{file}: incomplete Keras weights file (HDF5 finds no end); download it again") from None
    if "refused" in found:
        raise BadInput(f"{file}: {shown(found['refused'], 200)}")
    if "damaged" in found:
        raise BadInput(f"{file}: incomplete Keras weights file ({shown(found['damaged'], 200)}); download it again")
    return found


def is_keras_archive(file: Path) -> bool:
    """Return whether an archive is Keras's rather than PyTorch's."""
    try:
        with file.open("rb") as stream:
            return INSIDE in open_zip(stream, file).namelist()
    except BROKEN:
        return False
