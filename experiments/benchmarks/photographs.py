"""Measures how many images per second one core decodes and crops with resjax and with Pillow.

    python experiments/benchmarks/photographs.py [--folder PATH]

The photographs are the JPEGs in the given folder. Without `--folder`, they are sections of 500x375 pixels from
scikit-learn's two sample photographs, saved as JPEGs of quality 90. Every fourth section is stored on its side, with an
EXIF orientation. Pillow decodes the photographs and rotates them by EXIF. It resizes (antialiased, bilinear), crops and
mirrors them as torchvision's transforms do. Both libraries are timed alternately in one process and thread, for the
paper's crops (shorter side 256 to 480) and for crops of 8 to 100 % of the area. The script prints one JSON line with
the median images per second, the ratios of resjax's rates to Pillow's, and the number of cores that resjax would need
for 2,500 images per second.
"""

import json
import math
import os
import statistics
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from PIL import ExifTags, Image, ImageOps
from sklearn.datasets import load_sample_images

from resjax import Photographs
from resjax.data import ImageFiles, random_box
from resjax.data.stream import training_example

RATE = 2_500  # images per second, the expected training speed of ResNet-50 on one H100
Crop = Literal["scale", "area"]


def encoded_photographs(folder: Path | None, count: int) -> list[bytes]:
    """Read or create the JPEGs."""
    if folder is not None:
        return [file.read_bytes() for file in sorted(folder.rglob("*.[jJ][pP]*"))[:count]]
    random, encoded = np.random.default_rng(0), []
    for number in range(count):
        whole = load_sample_images().images[number % 2]
        top, left = random.integers(whole.shape[0] - 374), random.integers(whole.shape[1] - 499)
        out, exif = BytesIO(), Image.Exif()
        exif[ExifTags.Base.Orientation] = 1 if number % 4 else 6
        Image.fromarray(whole[top:top + 375, left:left + 500]).save(out, "jpeg", quality=90, exif=exif)
        encoded.append(out.getvalue())
    return encoded


def ours(encoded: list[bytes], crop: Crop) -> Callable[[int, np.random.Generator], object]:
    """Return a function that makes the i-th crop as in training."""
    names, labels = np.array([b"x"] * len(encoded)), np.zeros(len(encoded), np.int32)
    files, data = ImageFiles(names, labels, encoded.__getitem__), Photographs(crop=crop)
    return lambda index, random: training_example(files, data, index, random)


def common(encoded: list[bytes], crop: Crop) -> Callable[[int, np.random.Generator], object]:
    """Return a function that makes the i-th crop with Pillow."""
    data = Photographs(crop=crop)

    def make(index: int, random: np.random.Generator) -> np.ndarray:
        image = ImageOps.exif_transpose(Image.open(BytesIO(encoded[index]))).convert("RGB")
        if crop == "scale":
            scale = random.integers(256, 480, endpoint=True) / min(image.size)
            image = image.resize((math.ceil(image.width * scale), math.ceil(image.height * scale)),
                                 Image.Resampling.BILINEAR)
            left, top = random.integers(image.width - 223), random.integers(image.height - 223)
            image = image.crop((left, top, left + 224, top + 224))
        else:
            box = random_box(image.height, image.width, data, random)
            corners = box.left, box.top, box.left + box.width, box.top + box.height
            image = image.crop(tuple(map(round, corners))).resize((224, 224), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image)

    return make


def main(folder: Path | None = None, images: int = 100, rounds: int = 9) -> None:
    """Time both libraries, alternating between them.

    Args:
        folder: A folder of JPEGs. By default, JPEGs are made from scikit-learn's photographs.
        images: Number of images.
        rounds: Number of timings of each library. The medians are printed.
    """
    encoded = encoded_photographs(folder, images)
    crops: tuple[Crop, ...] = ("scale", "area")
    ways = {f"{way.__name__}_{crop}": way(encoded, crop) for crop in crops for way in (ours, common)}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, make in ways.items():
            random, start = np.random.default_rng(number), time.perf_counter()
            for index in range(len(encoded)):
                make(index, random)
            if number:  # the first round is a warm-up
                rates[name].append(len(encoded) / (time.perf_counter() - start))
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(json.dumps({
        "images": len(encoded), "mean_kilobytes": round(sum(map(len, encoded)) / len(encoded) / 1000, 1),
        "machine_cores": os.cpu_count(), "images_per_second_and_core": {name: round(r) for name, r in median.items()},
        "ratio": {crop: round(median[f"ours_{crop}"] / median[f"common_{crop}"], 2) for crop in crops},
        "cores_for_2500_images_per_second": {crop: round(RATE / median[f"ours_{crop}"], 1) for crop in crops},
    }))


if __name__ == "__main__":
    tyro.cli(main)
