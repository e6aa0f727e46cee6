"""Shared parts of the exchange benchmark: six photographs, random networks, and the other libraries' logits."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

SIZES = ((500, 375), (640, 427), (500, 334), (1024, 683), (235, 235), (375, 500))  # width, height
Logits = Callable[[Sequence[Path]], np.ndarray]


class Case(NamedTuple):
    """A file or folder written by another library: its name, path, logits, loading hints, and expected refusal.

    The expected refusal is a part of the error message. It is empty if resjax must load the file.
    """

    target: Path
    logits: Logits | None = None
    settings: dict[str, Any] = {}  # noqa: RUF012
    refused: str = ""


def photographs(folder: Path) -> list[Path]:
    """Write six photographs of different sizes, made from scikit-learn's two sample photographs."""
    from sklearn.datasets import load_sample_images

    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    files = []
    for number, size in enumerate(SIZES):
        source = (china, flower)[number % 2]
        if size[1] > size[0]:
            source = source.transpose(Image.Transpose.ROTATE_90)
        scale = max(size[0] / source.width, size[1] / source.height)
        large = source.resize((round(scale * source.width), round(scale * source.height)), Image.Resampling.BICUBIC)
        left, top = (large.width - size[0]) // 2, (large.height - size[1]) // 2
        files.append(folder / f"{number}-{size[0]}x{size[1]}.jpg")
        large.crop((left, top, left + size[0], top + size[1])).save(files[-1], quality=92)
    return files


def randomized(model: Any, seed: int = 0) -> Any:
    """Draw batch statistics far from their initial values, and a last layer whose logits vary between images."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return model.eval()


def opened(file: Path, mode: str = "RGB") -> Image.Image:
    with Image.open(file) as image:
        return image.convert(mode)


def by(model: Any, transform: Any, mode: str = "RGB") -> Logits:
    """Compute logits of photographs with a PyTorch network and a transform of Pillow images."""
    def logits(files: Sequence[Path]) -> np.ndarray:
        with torch.inference_mode():
            seen = [model.eval()(transform(opened(file, mode))[None]) for file in files]
        return torch.cat([getattr(one, "logits", one) for one in seen]).float().numpy()

    return logits
