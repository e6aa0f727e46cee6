"""Checks that other libraries, given files that resjax exported, compute the same logits as resjax."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import keras_files
import numpy as np
import onnxruntime
import timm_files
import torch_files
from peers import Case, Logits

import resjax
from resjax.weights import Format

Make = Callable[[Path], Case]


def of_resjax(network: resjax.Network, files: Sequence[Path]) -> np.ndarray:
    """Compute logits of photographs with resjax."""
    pixels = np.stack([network.preprocessing.prepare(file.read_bytes(), file.name) for file in files])
    return np.asarray(jax.jit(network.model.apply)(network.variables, network.preprocessing.normalize(pixels)))


def by_card(folder: Path, part: int) -> Logits:
    """Compute logits of photographs with one of the code examples of a model card, which blank lines separate."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    assert code is not None
    ways = code[1].split("\n\n")
    way = ("from PIL import Image\n" if part else "") + ways[part]

    def logits(files: Sequence[Path]) -> np.ndarray:
        found, here = [], Path.cwd()
        os.chdir(folder)
        try:
            for file in files:
                names: dict[str, Any] = {}
                exec(way.replace("photo.jpg", str(file)), names)
                found.append(np.asarray(names["logits"].detach() if hasattr(names["logits"], "detach") else
                                        names["logits"]))
        finally:
            os.chdir(here)
        return np.concatenate(found)

    return logits


def by_onnx(folder: Path, network: resjax.Network) -> Logits:
    def logits(files: Sequence[Path]) -> np.ndarray:
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        pixels = np.stack([network.preprocessing.prepare(file.read_bytes(), file.name) for file in files])
        return np.asarray(session.run(None, {"pixels": pixels})[0])

    return logits


def back(first: Make, to: Format, part: int = 0, **change: Any) -> Make:
    """Load another library's file, export the network, and compute logits of photographs from the exported files."""
    def make(folder: Path) -> Case:
        (folder / "in").mkdir()
        case = first(folder / "in")
        network = resjax.load(case.target, **case.settings)
        if change:
            network = network._replace(preprocessing=network.preprocessing.replace(**change))
        out = resjax.export(network, to, folder / "out")
        logits = by_onnx(out, network) if to == "onnx" else by_card(out, part)
        return Case(out, logits, {"of": network})

    return make


def cases() -> Iterator[tuple[str, Make]]:
    near = timm_files.folder_of_transformers("ConvNextImageProcessor", size={"shortest_edge": 224})
    for name in ("resnet18", "resnet50"):
        settings = {"stride_in": "3x3"} if name == "resnet50" else {}
        first = torch_files.plain(name, **settings)
        yield f"torchvision's {name} to timm", back(first, "torchvision")
        yield f"torchvision's {name} to torchvision", back(first, "torchvision", 1)
        yield f"torchvision's {name} to ONNX Runtime", back(first, "onnx")
    yield "torchvision's resnet18 to transformers, by Pillow", back(torch_files.plain("resnet18"), "huggingface",
                                                                    crop="floor")
    yield "timm's resnet18 to timm", back(timm_files.folder_of_timm("resnet18"), "torchvision")
    yield "timm's resnet18, squashed, to timm", back(
        timm_files.folder_of_timm("resnet18", images={"crop_mode": "squash", "crop_pct": 0.9}), "torchvision")
    yield "timm's vgg16 to timm", back(timm_files.folder_of_timm("vgg16"), "torchvision")
    yield "timm's vgg16 to ONNX Runtime", back(timm_files.folder_of_timm("vgg16"), "onnx")
    yield "transformers' resnet18 to transformers", back(near, "huggingface")
    yield "transformers' resnet18, at 384, to transformers", back(
        timm_files.folder_of_transformers("ConvNextImageProcessor", size={"shortest_edge": 384}), "huggingface")
    yield "Keras's ResNet50 to Keras", back(keras_files.whole("a.keras", classes=10), "keras")
    yield "Keras's ResNet50 to ONNX Runtime", back(keras_files.whole("a.keras", classes=10), "onnx")
    yield "Keras's VGG16 to Keras", back(keras_files.whole("a.keras", "VGG16", classes=10), "keras")
