"""The config.json of others: timm's and Hugging Face transformers', and how transformers prepares images."""

from pathlib import Path
from typing import Any

from resjax.errors import BadInput
from resjax.experiment import Architecture
from resjax.models.resnet import IMAGENET
from resjax.weights.description import Description, Preprocessing, read_json

TIMM = {f"resnet{depth}": depth for depth in IMAGENET}  # its other names are of other networks
HARMLESS = {"in_chans", "num_classes"}  # the tensors tell these too


def read_config(folder: Path) -> Description:
    """Read `config.json`, and `preprocessor_config.json` beside it. Raises BadInput for another network than ours."""
    file = folder / "config.json"
    config = read_json(file)
    try:
        if "pretrained_cfg" in config:
            return from_timm(config, file)
        if config.get("model_type") == "resnet":
            images = folder / "preprocessor_config.json"
            return from_transformers(config, read_json(images) if images.is_file() else {}, file)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{file}: not as timm or transformers write it ({type(error).__name__}: {error})") from None
    kind = config.get("model_type") or config.get("architectures")
    raise BadInput(f"{file}: it tells of {kind!r}; timm's and transformers' ResNets can be read")


def from_timm(config: dict[str, Any], file: Path) -> Description:
    """Read timm's: `architecture`, and under `pretrained_cfg` how its images are prepared."""
    name, images = config["architecture"], config["pretrained_cfg"]
    changed = {key: value for key, value in (config.get("model_args") or {}).items()
               if key not in HARMLESS and (key, value) != ("global_pool", "avg")}
    if name not in TIMM or changed:
        raise BadInput(f"{file}: {name!r}{f' with {changed}' if changed else ''} is no network of the paper; of timm's "
                       f"those are {', '.join(TIMM)}")
    size = int(images["input_size"][-1])
    return Description(
        architecture=Architecture(family="imagenet", depth=TIMM[name], shortcut="B", stride_in="3x3", norm_group=32),
        classes=tuple(images.get("label_names") or ()),
        preprocessing=Preprocessing(
            mean=tuple(images["mean"]), std=tuple(images["std"]), value_range=1.0, size=size,
            shorter_side=int(size / images.get("crop_pct", 0.875))))


def from_transformers(config: dict[str, Any], images: dict[str, Any], file: Path) -> Description:
    """Read transformers': blocks, stride, class names; and how its image processor prepares images."""
    kind, blocks = config["layer_type"], tuple(config["depths"])
    depth = next((depth for depth, table in IMAGENET.items() if table == (kind, blocks)), None)
    if depth is None or config.get("hidden_act", "relu") != "relu" or config.get("downsample_in_first_stage"):
        raise BadInput(f"{file}: {kind} blocks {blocks}, hidden_act {config.get('hidden_act')!r}, "
                       f"downsample_in_first_stage {config.get('downsample_in_first_stage')}: no network of the paper")
    labels = {int(number): str(name) for number, name in (config.get("id2label") or {}).items()}
    if all(name == f"LABEL_{number}" for number, name in labels.items()):  # transformers' own, where nobody named any
        labels = {}
    return Description(
        architecture=Architecture(family="imagenet", depth=depth, shortcut="B", norm_group=32,
                                  stride_in="1x1" if config.get("downsample_in_bottleneck") else "3x3"),
        classes=tuple(labels[number] for number in range(len(labels))),
        preprocessing=prepared_images(images) if images else None)


def prepared_images(images: dict[str, Any]) -> Preprocessing:
    """Read how an image processor resizes, crops and scales."""
    def pixels(value: Any) -> int:
        return int(value if isinstance(value, int) else value.get("shortest_edge") or value["height"])

    edge = pixels(images["size"])
    crop = pixels(images["crop_size"]) if images.get("do_center_crop") and "crop_size" in images else edge
    return Preprocessing(
        mean=tuple(images["image_mean"]), std=tuple(images["image_std"]),
        value_range=255 * images.get("rescale_factor", 1 / 255), size=crop,
        shorter_side=int(edge / images["crop_pct"]) if "crop_pct" in images else edge)


