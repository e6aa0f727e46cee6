"""What belongs to weights and is no tensor, in the JSON beside them: architecture, classes, preprocessing."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from resjax.data import Preprocessing
from resjax.errors import BadInput, check
from resjax.experiment import Architecture, Data, Photographs, Positive, Resize
from resjax.files import write_json
from resjax.network import Network, imagenet_classes
from resjax.serialization import Must, check_fields, from_json

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
    """Read a mean image. Raises BadInput, naming the file, where it is none."""
    try:
        mean = np.asarray(np.load(file, allow_pickle=False), np.float64)
    except (OSError, ValueError, EOFError, TypeError) as error:
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
CAFFE = Entry(mean=(103.939, 116.779, 123.68), channel_order="BGR", shorter_side=256)
USUAL = {  # what each family does to its images, where nothing beside the weights says it
    ("torchvision", "imagenet"): Entry(**IMAGENET_COLOURS, shorter_side=256, resize="pillow-bilinear"),
    ("huggingface", "imagenet"): Entry(**IMAGENET_COLOURS, shorter_side=256, resize="pillow-bilinear"),
    ("keras", "imagenet"): CAFFE,
    ("keras-2016", "imagenet"): CAFFE,
    ("torchvision", "cifar"): Entry(**CIFAR10_COLOURS, size=32),  # as chenyaofo/pytorch-cifar-models
    ("akamaster", "cifar"): Entry(**IMAGENET_COLOURS, size=32),
}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What is known of weights beside their tensors; None or empty where it is not."""

    name: str = ""
    architecture: Architecture | None = None
    classes: tuple[str, ...] = ()
    preprocessing: Entry | None = None

    def __post_init__(self) -> None:
        check_fields(self)


def write_metadata(network: Network, folder: Path, order: ColourOrder = "RGB") -> None:
    """Write `model.json`, which `load_weights` reads, and `mean.npy` where the mean is an image."""
    images = entry_of(network.preprocessing, order)
    if images.mean_image:
        np.save(folder / images.mean_image, network.mean[..., ::-1] if order == "BGR" else network.mean)
    layers = {name: getattr(network.architecture, name) for name in ("family", "depth", "shortcut", "stride_in")}
    write_json(folder / "model.json", {"name": network.name, "architecture": layers, "classes": network.classes,
                                       "preprocessing": asdict(images)})


def read_metadata(file: Path) -> Metadata:
    """Read a JSON file such as `export` writes. Raises BadInput, naming it, where it is not one."""
    try:
        return from_json(read_json(file), Metadata)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None


def read_json(file: Path) -> dict[str, Any]:
    """Read an object from a JSON file. Raises BadInput."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not a readable JSON file ({error})") from None
    check(isinstance(content, dict), f"{file}: it holds no JSON object")
    return dict(content)


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
