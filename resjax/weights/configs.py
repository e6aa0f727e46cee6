"""Reads descriptions of weights: timm's and transformers' JSON files, and the entry `arch` of PyTorch checkpoints.

Settings that change the network or its input are either followed exactly or refused with an error that names them.
"""

import math
import re
from pathlib import Path
from typing import Any

from resjax.experiment import Architecture
from resjax.models.families import IMAGENET, VGG_STAGES
from resjax.system.errors import BadInput, check
from resjax.system.files import read_json
from resjax.system.serialization import from_json
from resjax.weights.metadata import IMAGENET_COLOURS, Metadata

RESNETS, VGGS = {f"resnet{depth}": depth for depth in IMAGENET}, {f"vgg{depth}": depth for depth in VGG_STAGES}
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's filters, by number
TENSOR_FILTERS = 4  # for antialiased tensors, torchvision supports only this many, the first ones
SAME_SIZE = "because images must have the same size"
HARMLESS = {"in_chans", "num_classes"}  # the tensors show these settings too
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
CLIP = {"resample": 3, "size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
PROCESSORS: dict[str, dict[str, Any]] = {  # processors that only resize, crop and scale, with their defaults
    "BitImageProcessor": CLIP, "CLIPImageProcessor": CLIP,
    "ConvNextImageProcessor": {"resample": 3, "size": {"shortest_edge": 384}, **HALF},
    "ViTImageProcessor": {"resample": 2, "size": {"height": 224, "width": 224}, **HALF},
    "DeiTImageProcessor": {"resample": 3, "size": {"height": 256, "width": 256}, "do_center_crop": True,
                           "crop_size": 224, **HALF}}
UNKNOWN_CHANGES = ("do_pad", "do_flip_channel_order", "rescale_offset", "include_top", "do_crop_margin")


def read_config(folder: Path) -> Metadata:
    """Read `config.json`, and the `preprocessor_config.json` beside it. Raises BadInput for an unsupported network."""
    file = folder / "config.json"
    config, images = read_json(file), folder / "preprocessor_config.json"
    try:
        if "pretrained_cfg" in config or config.get("model_type") == "timm_wrapper":
            return from_timm(config)
        if config.get("model_type") == "resnet":
            return from_transformers(config, read_json(images) if images.is_file() else {})
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise BadInput(f"{file}: not in the format of timm or transformers ({type(error).__name__}: {error})") from None
    kind = config.get("model_type") or config.get("architectures") or config.get("architecture")
    raise BadInput(f"{file}: describes {kind!r}; resjax reads only ResNets from timm and transformers")


def architecture_of(name: str) -> dict[str, Any] | None:
    """Return the architecture that has this name in timm or torchvision; None for other names."""
    short = name.lower().removeprefix("tv_").partition(".")[0]
    if short in VGGS:
        return {"family": "vgg", "depth": VGGS[short], "shortcut": "plain"}
    if short in RESNETS:
        return {"family": "imagenet", "depth": RESNETS[short], "shortcut": "B", "stride_in": "3x3"}
    return None


def check_arch(arch: str, source: str) -> Architecture | None:
    """Return the architecture that `arch` in a checkpoint names; None for a custom name.

    Raises BadInput for other networks of timm or torchvision, such as resnetblur18, whose tensors look like
    ResNet-18's. The names of such networks have letters directly before or after the number.
    """
    if (known := architecture_of(arch)) is not None:
        return from_json(known, Architecture)
    other = re.match(r"(resnet|vgg)(?!\d+([_.]|$))[a-z]*\d", arch.lower())  # all other networks have different tensors
    check(other is None, f"{source}: its arch is {arch!r}, which is not a network of the paper; the paper's "
                         f"networks in timm and torchvision are {', '.join((*RESNETS, *VGGS))}")
    return None


def from_timm(config: dict[str, Any]) -> Metadata:
    """Read timm's description, which has an `architecture`, and the preprocessing in `pretrained_cfg`."""
    name, images = config["architecture"], config.get("pretrained_cfg") or {}
    changed = {key: value for key, value in (config.get("model_args") or {}).items()
               if key not in HARMLESS and (key, value) != ("global_pool", "avg")}
    architecture = architecture_of(name)
    if architecture is None or changed:
        raise BadInput(f"{name!r}{f' with {changed}' if changed else ''} is not a network of the paper; "
                       f"the paper's networks in timm are {', '.join((*RESNETS, *VGGS))}")
    labels = images.get("label_names") or config.get("label_names") or []
    return from_json({"architecture": architecture, "classes": label_names(dict(enumerate(labels))),
                      "preprocessing": timm_images(images)}, Metadata)


def timm_images(images: dict[str, Any]) -> dict[str, Any]:
    """Return the preprocessing of timm's evaluation transform."""
    images = {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center",
              **IMAGENET_COLOURS, **{key: value for key, value in images.items() if value}}
    size, width = map(int, images["input_size"][-2:])
    kernel, mode = images["interpolation"], images["crop_mode"]
    check(kernel in FILTERS, f"interpolation is {kernel!r}; it must be one of {', '.join(FILTERS)}")
    check(mode == "squash" or (mode == "center" and size == width),
          f"crop_mode is {mode!r} with crops of {size}x{width}; it must be 'squash', or 'center' with square crops")
    sides = tuple(math.floor(side / images["crop_pct"]) for side in (size, width))
    resized = {"squash": sides} if mode == "squash" else {"shorter_side": sides[0]}
    return {"mean": images["mean"], "std": images["std"], "value_range": 1.0, "size": size, "width": width, **resized,
            "resize": f"pillow-{kernel}", "crop": "half-even"}


def from_transformers(config: dict[str, Any], images: dict[str, Any]) -> Metadata:
    """Read transformers' description of blocks, stride and class names, and its image processor's preprocessing."""
    kind, blocks = config["layer_type"], tuple(config["depths"])
    depth = next((depth for depth, table in IMAGENET.items() if table == (kind, blocks)), None)
    if depth is None or config.get("hidden_act", "relu") != "relu" or config.get("downsample_in_first_stage"):
        raise BadInput(f"{kind} blocks {blocks}, hidden_act {config.get('hidden_act')!r}, downsample_in_first_stage "
                       f"{config.get('downsample_in_first_stage')}: not a network of the paper")
    return from_json({
        "architecture": {"family": "imagenet", "depth": depth, "shortcut": "B",
                         "stride_in": "1x1" if config.get("downsample_in_bottleneck") else "3x3"},
        "classes": label_names({int(number): name for number, name in (config.get("id2label") or {}).items()}),
        "preprocessing": processed_images(images) if images else None}, Metadata)


def label_names(labels: dict[int, Any]) -> list[Any]:
    """Return the class names; none if they are only transformers' default names."""
    if all(name == f"LABEL_{number}" for number, name in labels.items()):
        return []
    return [labels[number] for number in range(len(labels))]


def processed_images(said: dict[str, Any]) -> dict[str, Any]:
    """Return the preprocessing of transformers' image processor.

    The processor works on tensors or, if its name ends in Pil, on Pillow images.
    """
    name = said.get("image_processor_type") or said.get("feature_extractor_type") or processor_for(said)
    short = name.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast").removesuffix("Pil")
    check(short in PROCESSORS, f"image_processor_type is {name!r}; it must be one of {', '.join(PROCESSORS)}")
    images = PROCESSORS[short] | said
    for key in UNKNOWN_CHANGES:
        check(not images.get(key), f"{key} is {images.get(key)}, which is not supported")
    check(images.get("do_resize") is not False, f"do_resize is false; resjax needs a size and a crop, {SAME_SIZE}")
    library, filters = ("pillow", FILTERS) if name.endswith("Pil") else ("torch", FILTERS[:TENSOR_FILTERS])
    number = 2 if images["resample"] is None else int(images["resample"])
    check(0 <= number < len(filters), f"resample is {number}, which {name} does not have")
    if not images.get("do_normalize", True):
        images |= {"image_mean": [0.0] * len(images["image_mean"]), "image_std": []}
    scaled = images.get("do_rescale", True)
    return {"mean": images["image_mean"], "std": images["image_std"],
            "value_range": 255 * images.get("rescale_factor", 1 / 255) if scaled else 255.0,
            **resize_and_crop(short, images), "resize": f"{library}-{filters[number]}"}


def processor_for(said: dict[str, Any]) -> str:
    """Choose the image processor for settings that do not name one.

    The choice is ConvNext's processor, which is transformers' default for ResNets. If the settings have a crop or a
    height and width, which ConvNext's processor does not support, another one is chosen.
    """
    if isinstance(said.get("size"), dict) and "height" in said["size"]:
        return "ViTImageProcessor"
    return "CLIPImageProcessor" if said.get("do_center_crop") else "ConvNextImageProcessor"


def resize_and_crop(short: str, images: dict[str, Any]) -> dict[str, Any]:
    """Read the size that an image processor resizes to, and its crop size."""
    size: Any = images["size"]
    crop: Any = images.get("crop_size")
    is_cropped = images.get("do_center_crop")
    if isinstance(size, int):
        size = dict.fromkeys(PROCESSORS[short]["size"], size)
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    check(size.keys() in ({"height", "width"}, {"shortest_edge"}),
          f"size is {size}; it must have shortest_edge, or height and width")
    resized: dict[str, Any] = {"squash": (size["height"], size["width"])} if "height" in size else {
        "shorter_side": size["shortest_edge"]}
    if short == "ConvNextImageProcessor":  # which always crops below 384 pixels
        edge = int(size["shortest_edge"])
        size = {"height": edge, "width": edge}
        resized = {"squash": (edge, edge)} if edge >= 384 else {
            "shorter_side": int(edge / (images.get("crop_pct") or 224 / 256))}
    check(is_cropped or "height" in size, "do_center_crop is false and size has only shortest_edge; resjax needs a "
                                          f"crop_size, or a height and width, {SAME_SIZE}")
    crop = crop if is_cropped else size
    return {**resized, "size": crop["height"], "width": crop["width"]}
