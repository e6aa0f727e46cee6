"""What belongs to weights and is no tensor, in the JSON beside them: architecture, classes, preprocessing.

Ours is `model.json`; timm and Hugging Face transformers have their own.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from resjax.data import Preprocessing
from resjax.experiment import Architecture, Data, Photographs, Positive, Resize
from resjax.models.variants import IMAGENET
from resjax.network import Network, imagenet_classes
from resjax.system.errors import BadInput, check
from resjax.system.files import digest, read_json, write_json
from resjax.system.serialization import Must, check_fields, from_json

TIMM = {f"resnet{depth}": depth for depth in IMAGENET}  # its other names are of other networks
RESIZE = {"bilinear": "pillow-bilinear", "bicubic": "pillow-bicubic", 2: "pillow-bilinear", 3: "pillow-bicubic"}
HARMLESS = {"in_chans", "num_classes"}  # the tensors tell these too
ColourOrder = Literal["RGB", "BGR"]
Side = Annotated[int, Must("lie in 1 ... 4096", lambda side: 1 <= side <= 4096)]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The entry `preprocessing`: the input is (pixels * value_range / 255 - mean) / std, channel by channel."""

    mean: tuple[float, ...] = ()
    """Of each channel; empty where `mean_image` says that there is one for each pixel."""
    mean_image: str = ""
    """A file beside this one: a NumPy array `[height, width, channels]`, the per-pixel mean."""
    std: tuple[Positive, ...] = ()
    """Of each channel; empty where nothing is divided, as in the paper."""
    value_range: Positive = 255.0
    """What 255 becomes before the mean is subtracted: mostly 255 or 1."""
    channel_order: ColourOrder = "RGB"
    size: Side = 224
    """Height of the crop, in pixels."""
    width: Side | None = None
    """Its width, where it is no square."""
    shorter_side: Side | None = None
    """The shorter side that an image is resized to before it is cropped, in pixels; see `Preprocessing`."""
    resize: Resize = "area"

    def __post_init__(self) -> None:
        check_fields(self, "preprocessing.")
        check(bool(self.mean) != bool(self.mean_image), "preprocessing: give either mean or mean_image")
        check(Path(self.mean_image).name == self.mean_image, "preprocessing.mean_image names a file in the same folder")
        check(not self.std or not self.mean or len(self.std) == len(self.mean),
              f"preprocessing: mean has {len(self.mean)} channels and std {len(self.std)}")
        check(self.size <= (self.shorter_side or self.size),
              f"preprocessing: size {self.size} and shorter_side {self.shorter_side}; the crop is the smaller")

    def read(self, folder: Path, channels: int) -> Preprocessing:
        """Turn it into the preprocessing of pixels of 0 to 255 in RGB. Raises BadInput where the mean is no such."""
        order, scale = slice(None, None, -1 if self.channel_order == "BGR" else 1), 255 / self.value_range
        shape = (self.size, self.width or self.size, channels)
        if self.mean_image:
            mean = read_mean_image(folder / self.mean_image)
        else:
            mean = np.broadcast_to(np.array(self.mean, np.float64), (*shape[:2], len(self.mean)))
        check(mean.shape == shape and len(self.std) in (0, channels),
              f"{folder}: the mean is of {mean.shape} and std of {len(self.std)} channels, for images of {shape}")
        return Preprocessing((scale * mean[..., order]).astype(np.float32),
                             tuple(scale * value for value in self.std[order]), self.shorter_side, self.resize)


def read_mean_image(file: Path) -> np.ndarray:
    """Read a mean image, which says its size before it is made room for. Raises BadInput."""
    try:
        with file.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize > file.stat().st_size:
                raise ValueError("it states more than it holds, or other things than numbers")
        mean = np.asarray(np.load(file, allow_pickle=False), np.float64)
    except (OSError, ValueError, EOFError, TypeError, MemoryError) as error:
        raise BadInput(f"{file}: not a readable mean image ({error})") from None
    check(bool(np.isfinite(mean).all()), f"{file}: it holds a value that is not finite")
    return mean


def entry_of(images: Preprocessing, order: ColourOrder = "RGB") -> Entry:
    """Describe a preprocessing, for pixels of 0 to 255 in that order of colours."""
    turned, (height, width, channels) = slice(None, None, -1 if order == "BGR" else 1), images.image_shape
    colours = np.asarray(images.mean).reshape(-1, channels)
    one = bool((colours == colours[0]).all())
    return Entry(mean=tuple(colours[0, turned].tolist()) if one else (), mean_image="" if one else "mean.npy",
                 std=images.std[turned], channel_order=order, size=height, width=None if width == height else width,
                 shorter_side=images.shorter_side, resize=images.resize)


IMAGENET_COLOURS: Any = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "value_range": 1.0}
CIFAR10_COLOURS: Any = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "value_range": 1.0}
CIFAR100_COLOURS: Any = {"mean": (0.507, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2761), "value_range": 1.0}
CAFFE = Entry(mean=(103.939, 116.779, 123.68), channel_order="BGR", shorter_side=256)
TORCH = Entry(**IMAGENET_COLOURS, shorter_side=256, resize="pillow-bilinear")
USUAL = {  # whose the images' preparation is, and what: for each family, where nothing beside the weights says it
    ("torchvision", "imagenet"): ("torchvision", TORCH),
    ("huggingface", "imagenet"): ("Hugging Face transformers", TORCH),
    ("keras", "imagenet"): ("Keras applications", CAFFE),
    ("keras-2016", "imagenet"): ("Keras applications", CAFFE),
    ("torchvision", "vgg"): ("torchvision", TORCH),
    ("keras", "vgg"): ("Keras applications", CAFFE),
    ("torchvision", "cifar"): ("pytorch-cifar-models for CIFAR-10", Entry(**CIFAR10_COLOURS, size=32)),
    ("torchvision", "cifar, 100"): ("pytorch-cifar-models for CIFAR-100", Entry(**CIFAR100_COLOURS, size=32)),
    ("akamaster", "cifar"): ("pytorch_resnet_cifar10", Entry(**IMAGENET_COLOURS, size=32)),
}


def usual(family: str, images: str, classes: int) -> tuple[str, Entry] | None:
    """Say who made weights of a family, as it seems, and how they prepare images; None where nobody is known."""
    return USUAL.get((family, f"{images}, {classes}"), USUAL.get((family, images)))


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What is known of weights beside their tensors; None or empty where it is not."""

    name: str = ""
    architecture: Architecture | None = None
    classes: tuple[str, ...] = ()
    preprocessing: Entry | None = None
    sha256: tuple[tuple[str, str], ...] = ()
    """Of the files beside it, by name."""

    def __post_init__(self) -> None:
        check_fields(self)

    def check_files(self, folder: Path) -> None:
        """Raise BadInput where a file beside the description is not the one that it was written with."""
        for name, found in self.sha256:
            file = folder / Path(name).name
            check(not file.is_file() or digest(file) == found,
                  f"{file}: it is not the file that was written with its description (its SHA-256 is another); get "
                  "both again")


def write_metadata(network: Network, folder: Path, order: ColourOrder = "RGB") -> None:
    """Write `model.json`, which `load_weights` reads, last; and `mean.npy` where the mean is an image."""
    images = entry_of(network.preprocessing, order)
    if images.mean_image:
        np.save(folder / images.mean_image, network.mean[..., ::-1] if order == "BGR" else network.mean)
    layers = {name: getattr(network.architecture, name) for name in ("family", "depth", "shortcut", "stride_in")}
    beside = [(file.name, digest(file)) for file in sorted(folder.iterdir())]
    write_json(folder / "model.json", {"name": network.name, "architecture": layers, "classes": network.classes,
                                       "preprocessing": asdict(images), "sha256": beside})


def read_metadata(file: Path) -> Metadata:
    """Read a JSON file such as `export` writes. Raises BadInput, naming it, where it is not one."""
    content = read_json(file)
    try:
        found = from_json(content, Metadata)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    found.check_files(file.parent)
    return found


def data_of(architecture: Architecture, images: Preprocessing) -> Data | Photographs:
    """Tell where a network's test images are if nobody says: TFDS's ImageNet or CIFAR-10."""
    size, side = images.image_shape[0], images.shorter_side or images.image_shape[0]
    if architecture.family == "cifar":
        return Data(source="tfds:cifar10", std=images.std, resize=images.resize)
    low = max(256, size)
    return Photographs(source="tfds:imagenet2012", size=size, test_shorter_side=side, shorter_side=(low, max(480, low)),
                       std=images.std, resize=images.resize)


def known_classes(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return WordNet's ids for 1,000 classes that are unnamed or named as ImageNet's are; else the names."""
    ids, ours = tuple(imagenet_classes()), imagenet_classes().values()
    if count != len(ids) or len(names) not in (0, count):
        return names
    alike = sum(bool(set(a.split(", ")) & set(b.split(", "))) for a, b in zip(names, ours, strict=True)) if names else 0
    return ids if not names or alike > 0.95 * count else names  # some lists spell a few names in another way


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
