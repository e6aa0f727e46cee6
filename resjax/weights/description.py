"""What belongs to weights and is no tensor: architecture, classes, and how pixels become the input."""

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from resjax.errors import BadInput, check
from resjax.experiment import Architecture
from resjax.network import Network
from resjax.record import from_json

LARGEST_JSON = 1 << 23  # bytes
LARGEST_SIDE = 4096  # pixels, of an image that a network is to look at


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The input is (pixels * value_range / 255 - mean) / std, for pixels of 0 to 255, channel by channel."""

    mean: tuple[float, ...] = ()
    """Of each channel; empty where `mean_image` says that there is one for each pixel."""
    mean_image: str = ""
    """A file beside this one: a NumPy array `[height, width, channels]`, the per-pixel mean."""
    std: tuple[float, ...] = ()
    """Of each channel; empty where nothing is divided, as in the paper."""
    value_range: float = 255.0
    """What 255 becomes before the mean is subtracted: mostly 255 or 1."""
    channel_order: Literal["RGB", "BGR"] = "RGB"
    size: int = 224
    """Height and width of the crop, in pixels."""
    shorter_side: int = 256
    """The shorter side that an image is resized to before it is cropped, in pixels."""

    def __post_init__(self) -> None:
        check(bool(self.mean) != bool(self.mean_image), "preprocessing: give either mean or mean_image")
        check(Path(self.mean_image).name == self.mean_image, "preprocessing.mean_image names a file in the same folder")
        check(not self.std or not self.mean or len(self.std) == len(self.mean),
              f"preprocessing: mean has {len(self.mean)} channels and std {len(self.std)}")
        check(all(map(math.isfinite, self.mean)), f"preprocessing.mean is {self.mean}; it is finite")
        check(all(0 < value < math.inf for value in self.std), f"preprocessing.std is {self.std}; it is above 0")
        check(0 < self.value_range < math.inf, f"preprocessing.value_range is {self.value_range}; it is above 0")
        check(1 <= self.size <= self.shorter_side,
              f"preprocessing: size {self.size} and shorter_side {self.shorter_side}; the crop is the smaller")
        check(self.shorter_side <= LARGEST_SIDE,
              f"preprocessing.shorter_side is {self.shorter_side}; {LARGEST_SIDE} pixels are the most")


IMAGENET_COLOURS = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "value_range": 1.0}
CIFAR10_COLOURS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "value_range": 1.0}
SMALL = {"size": 32, "shorter_side": 32}
USUAL = {  # what each family does to its images, where nothing beside the weights says it
    ("torchvision", "imagenet"): Preprocessing(**IMAGENET_COLOURS),
    ("huggingface", "imagenet"): Preprocessing(**IMAGENET_COLOURS),
    ("keras", "imagenet"): Preprocessing(mean=(103.939, 116.779, 123.68), channel_order="BGR"),
    ("keras-2016", "imagenet"): Preprocessing(mean=(103.939, 116.779, 123.68), channel_order="BGR"),
    ("torchvision", "cifar"): Preprocessing(**CIFAR10_COLOURS, **SMALL),  # as chenyaofo/pytorch-cifar-models
    ("akamaster", "cifar"): Preprocessing(**IMAGENET_COLOURS, **SMALL),
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known of weights beside their tensors; None or empty where it is not."""

    name: str = ""
    architecture: Architecture | None = None
    classes: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None


def read_description(file: Path) -> Description:
    """Read a JSON file such as `export` writes. Raises BadInput, naming it, where it is not one."""
    try:
        return from_json(read_json(file), Description)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None


def read_json(file: Path) -> dict[str, Any]:
    """Read an object from a JSON file. Raises BadInput."""
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise ValueError("it is too large")
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not a readable JSON file ({error})") from None
    check(isinstance(content, dict), f"{file}: it holds no JSON object")
    return content


@cache
def imagenet_classes() -> dict[str, str]:
    """Map ImageNet's 1,000 classes, WordNet's ids in their usual order, to their names."""
    lines = files("resjax.weights").joinpath("imagenet_classes.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if not line.startswith("#"))


def known_classes(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return WordNet's ids for 1,000 classes that are unnamed or named as ImageNet's are; else the names."""
    ids, ours = tuple(imagenet_classes()), imagenet_classes().values()
    if count != len(ids) or len(names) not in (0, count):
        return names
    alike = sum(bool(set(a.split(", ")) & set(b.split(", "))) for a, b in zip(names, ours, strict=True)) if names else 0
    return ids if not names or alike > 0.95 * count else names  # some lists spell a few names in another way


def class_name(network: Network, label: int) -> str:
    """Name a class for people: "tench (n01440764)"."""
    if not network.classes:
        return f"class {label}"
    name = network.classes[label]
    meaning = imagenet_classes().get(name)
    return f"{meaning.split(', ')[0]} ({name})" if meaning else name
