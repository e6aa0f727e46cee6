"""Describes our preprocessing in the formats of timm and transformers, and lists what these formats cannot express."""

import math
from typing import Any

import numpy as np

from resjax.data import Preprocessing
from resjax.experiment.fields import Format
from resjax.network import Network
from resjax.weights.configs import FILTERS
from resjax.weights.metadata import ColourOrder, PreprocessingEntry, preprocessing_entry


def filter_of(images: PreprocessingEntry) -> str:
    """Return the Pillow filter that resizes in the same way, or nearly the same way."""
    return "bilinear" if images.resize == "area" else images.resize.partition("-")[2]


def shorter(images: PreprocessingEntry) -> int:
    """Return the shorter side to which images are resized."""
    return images.shorter_side or min(images.size, images.width or images.size)


def mean_colour_entry(images: Preprocessing, order: ColourOrder = "RGB") -> PreprocessingEntry:
    """Describe a preprocessing with its mean colour, because other libraries cannot subtract a mean image."""
    colour = np.asarray(images.mean, np.float64).mean((0, 1)).astype(np.float32)
    return preprocessing_entry(images.replace(mean=np.broadcast_to(colour, images.image_shape)), order)


def preprocessing_differences(network: Network, to: Format) -> list[str]:
    """List what the other library cannot do and replaces by its closest alternative."""
    images, architecture = preprocessing_entry(network.preprocessing), network.architecture
    if to in ("resjax", "stablehlo", "onnx", "akamaster") or architecture is None or architecture.family == "cifar":
        return []
    whose, rules = {"torchvision": ("torchvision and timm", "pillow"), "keras": ("Keras's load_img", "pillow"),
                    "huggingface": ("transformers", "torch pillow")}[to]
    differences = ["subtracts the mean colour instead of the mean image"] if images.mean_image else []
    if max(network.preprocessing.image_shape[:2]) > 32:
        differences += resizing_differences(images, to, rules)
    return [f"{whose}: {text}" for text in differences]


def resizing_differences(images: PreprocessingEntry, to: Format, rules: str) -> list[str]:
    """List the differences in size, given the names of the resizing rules that the other library has."""
    differences = []
    if images.resize.partition("-")[0] not in rules.split():
        differences.append(f"resizes images with {filter_of(images)} instead of {images.resize}")
    if to == "keras":
        if images.squash != (images.size, images.width or images.size):
            differences.append("squashes images instead of cropping them")
    elif images.crop != ("floor" if to == "huggingface" else "half-even") and not images.squash:
        differences.append("rounds half a pixel the other way when it crops an odd border")
    return differences


def timm_config(network: Network) -> dict[str, Any] | None:
    """Describe a network for `timm.create_model("local-dir:...")`; None if timm has no such network."""
    architecture, images = network.architecture, mean_colour_entry(network.preprocessing)
    if architecture is None or architecture.family == "cifar":
        return None
    size, width = images.size, images.width or images.size
    sides = images.squash or (shorter(images),) * 2
    part = size / sides[0]
    part = part if math.floor(size / part) == sides[0] else size / (sides[0] + 0.5)  # timm rounds down
    name = f"{'vgg' if architecture.family == 'vgg' else 'resnet'}{architecture.depth}"
    return {"architecture": name, "num_classes": network.outputs,
            "num_features": 4096 if architecture.family == "vgg" else 2048 if architecture.depth >= 50 else 512,
            "pretrained_cfg": {
                "tag": "resjax", "custom_load": False,
                "input_size": [network.preprocessing.image_shape[-1], size, width],
                "fixed_input_size": False, "interpolation": filter_of(images), "crop_pct": part,
                "crop_mode": "squash" if images.squash else "center", "mean": [value / 255 for value in images.mean],
                "std": deviations(images), "num_classes": network.outputs, "pool_size": None,
                "first_conv": "features.0" if architecture.family == "vgg" else "conv1",
                "classifier": "head.fc" if architecture.family == "vgg" else "fc",
                "label_names": list(network.classes)}}


def deviations(images: PreprocessingEntry) -> list[float]:
    """Return the divisors of the colours, for colours from 0 to 1."""
    return [value / 255 for value in images.std or (1.0,) * len(images.mean)]


def processor_config(images: PreprocessingEntry) -> dict[str, Any]:
    """Describe a preprocessing for transformers' AutoImageProcessor."""
    size = ({"height": images.squash[0], "width": images.squash[1]} if images.squash else
            {"shortest_edge": shorter(images)})
    return {"image_processor_type": "BitImageProcessor", "do_resize": True,
            "resample": FILTERS.index(filter_of(images)), "size": size, "do_center_crop": True,
            "crop_size": {"height": images.size, "width": images.width or images.size}, "do_rescale": True,
            "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": len(images.mean) == 3,
            "image_mean": [value / 255 for value in images.mean], "image_std": deviations(images)}
