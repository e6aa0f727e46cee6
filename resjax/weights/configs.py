"""The config.json of others: timm's and Hugging Face transformers', and how transformers prepares images."""

from pathlib import Path
from typing import Any

from resjax.errors import BadInput
from resjax.serialization import from_json
from resjax.variants import IMAGENET
from resjax.weights.metadata import Metadata, read_json

TIMM = {f"resnet{depth}": depth for depth in IMAGENET}  # its other names are of other networks
RESIZE = {"bilinear": "pillow-bilinear", "bicubic": "pillow-bicubic", 2: "pillow-bilinear", 3: "pillow-bicubic"}
HARMLESS = {"in_chans", "num_classes"}  # the tensors tell these too


def read_config(folder: Path) -> Metadata:
    """Read `config.json`, and `preprocessor_config.json` beside it. Raises BadInput for another network than ours."""
    file = folder / "config.json"
    config, images = read_json(file), folder / "preprocessor_config.json"
    try:
        if "pretrained_cfg" in config:
            return from_timm(config)
        if config.get("model_type") == "resnet":
            return from_transformers(config, read_json(images) if images.is_file() else {})
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise BadInput(f"{file}: not as timm or transformers write it ({type(error).__name__}: {error})") from None
    kind = config.get("model_type") or config.get("architectures")
    raise BadInput(f"{file}: it tells of {kind!r}; timm's and transformers' ResNets can be read")


def from_timm(config: dict[str, Any]) -> Metadata:
    """Read timm's: `architecture`, and under `pretrained_cfg` how its images are prepared."""
    name, images = config["architecture"], config["pretrained_cfg"]
    changed = {key: value for key, value in (config.get("model_args") or {}).items()
               if key not in HARMLESS and (key, value) != ("global_pool", "avg")}
    if name not in TIMM or changed:
        raise BadInput(f"{name!r}{f' with {changed}' if changed else ''} is no network of the paper; of timm's those "
                       f"are {', '.join(TIMM)}")
    size = int(images["input_size"][-1])
    return from_json({
        "architecture": {"family": "imagenet", "depth": TIMM[name], "shortcut": "B", "stride_in": "3x3"},
        "classes": images.get("label_names") or [],
        "preprocessing": {"mean": images["mean"], "std": images["std"], "value_range": 1.0, "size": size,
                          "shorter_side": int(size / images.get("crop_pct", 0.875)),
                          "resize": RESIZE.get(images.get("interpolation"), "area")}}, Metadata)


def from_transformers(config: dict[str, Any], images: dict[str, Any]) -> Metadata:
    """Read transformers': blocks, stride, class names; and how its image processor prepares images."""
    kind, blocks = config["layer_type"], tuple(config["depths"])
    depth = next((depth for depth, table in IMAGENET.items() if table == (kind, blocks)), None)
    if depth is None or config.get("hidden_act", "relu") != "relu" or config.get("downsample_in_first_stage"):
        raise BadInput(f"{kind} blocks {blocks}, hidden_act {config.get('hidden_act')!r}, downsample_in_first_stage "
                       f"{config.get('downsample_in_first_stage')}: no network of the paper")
    labels = {int(number): str(name) for number, name in (config.get("id2label") or {}).items()}
    if all(name == f"LABEL_{number}" for number, name in labels.items()):  # transformers' own, where nobody named any
        labels = {}
    return from_json({
        "architecture": {"family": "imagenet", "depth": depth, "shortcut": "B",
                         "stride_in": "1x1" if config.get("downsample_in_bottleneck") else "3x3"},
        "classes": [labels[number] for number in range(len(labels))],
        "preprocessing": prepared_images(images) if images else None}, Metadata)


def prepared_images(images: dict[str, Any]) -> dict[str, Any]:
    """Read how an image processor resizes, crops and scales."""
    def pixels(value: Any) -> int:
        return int(value if isinstance(value, int) else value.get("shortest_edge") or value["height"])

    edge = pixels(images["size"])
    crop = pixels(images["crop_size"]) if images.get("do_center_crop") and "crop_size" in images else edge
    normalized = images.get("do_normalize", True)
    return {"mean": images["image_mean"] if normalized else [0.0] * 3, "std": images["image_std"] if normalized else [],
            "value_range": 255 * images.get("rescale_factor", 1 / 255) if images.get("do_rescale", True) else 255.0,
            "size": crop, "shorter_side": int(edge / images["crop_pct"]) if "crop_pct" in images else edge,
            "resize": RESIZE.get(images.get("resample"), "area")}
