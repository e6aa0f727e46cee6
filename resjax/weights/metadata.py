"""Facts about weights besides the tensors: architecture, classes and preprocessing.

`model.json` is resjax's own format for them. `weights/configs.py` reads the formats of timm and transformers.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from resjax.data import Crop, Preprocessing
from resjax.experiment import Architecture, Data, Photographs, Resize
from resjax.experiment.fields import Positive
from resjax.network import Network, imagenet_classes
from resjax.system.errors import BadInput, check
from resjax.system.files import digest, read_json, write_json
from resjax.system.serialization import Must, check_fields, from_json

ColourOrder = Literal["RGB", "BGR"]
Side = Annotated[int, Must("be in 1 ... 4096", lambda side: 1 <= side <= 4096)]


@dataclass(frozen=True, kw_only=True)
class PreprocessingEntry:
    """The entry `preprocessing`. The network's input is (pixels * value_range / 255 - mean) / std for each channel."""

    mean: tuple[float, ...] = ()
    """The mean of each channel. Empty if `mean_image` gives the mean of each pixel."""
    mean_image: str = ""
    """A file in the same folder with the per-pixel mean, a NumPy array `[height, width, channels]`."""
    std: tuple[Positive, ...] = ()
    """The standard deviation of each channel. Empty, as in the paper, if pixels are not divided."""
    value_range: Positive = 255.0
    """The value that 255 is scaled to before the mean is subtracted, usually 255 or 1."""
    channel_order: ColourOrder = "RGB"
    size: Side = 224
    """The height of the crop, in pixels."""
    width: Side | None = None
    """The width of the crop, if it is not square."""
    shorter_side: Side | None = None
    """The shorter side of the resized image before the crop, in pixels. See `Preprocessing`."""
    squash: tuple[Side, Side] | None = None
    """The height and width of the resized image, if its aspect ratio is not kept."""
    resize: Resize = "area"
    crop: Crop = "floor"
    """The rounding if the crop is half a pixel beside the centre. See `centre_crop`."""

    def __post_init__(self) -> None:
        check_fields(self, "preprocessing.")
        check(bool(self.mean) != bool(self.mean_image), "preprocessing: give either mean or mean_image")
        check(Path(self.mean_image).name == self.mean_image, "preprocessing.mean_image must be a file in the same "
                                                             "folder")
        check(not self.std or not self.mean or len(self.std) == len(self.mean),
              f"preprocessing: mean has {len(self.mean)} channels, but std has {len(self.std)}")
        check(self.squash is None or self.shorter_side is None, "preprocessing: give either shorter_side or squash")
        crop = self.size, self.width or self.size
        resized = self.squash or (self.shorter_side or max(crop),) * 2
        check(crop[0] <= resized[0] and crop[1] <= resized[1],
              f"preprocessing: the crop is {crop[0]}x{crop[1]}, of an image resized to "
              f"{self.squash or self.shorter_side}; the crop must fit into it")

    def read(self, folder: Path, channels: int) -> Preprocessing:
        """Convert the entry to a `Preprocessing` of RGB pixels from 0 to 255. Raises BadInput for an invalid mean."""
        order, scale = slice(None, None, -1 if self.channel_order == "BGR" else 1), 255 / self.value_range
        shape = (self.size, self.width or self.size, channels)
        if self.mean_image:
            mean = read_mean_image(folder / self.mean_image)
        else:
            mean = np.broadcast_to(np.array(self.mean, np.float64), (*shape[:2], len(self.mean)))
        check(mean.shape == shape and len(self.std) in (0, channels),
              f"{folder}: the mean has shape {mean.shape} and std has {len(self.std)} channels, but images have "
              f"{shape}")
        std = self.std or (() if scale == 1 else (1.0,) * channels)
        return Preprocessing((scale * mean[..., order]).astype(np.float32),
                             tuple(scale * value for value in std[order]), self.shorter_side, self.resize, self.squash,
                             self.crop)


def read_mean_image(file: Path) -> np.ndarray:
    """Read a mean image, and check its stated size before allocating it. Raises BadInput if the file is invalid."""
    try:
        with file.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize > file.stat().st_size:
                raise ValueError("it does not contain the numbers that its header states")
        mean = np.asarray(np.load(file, allow_pickle=False), np.float64)
    except (OSError, ValueError, EOFError, TypeError, MemoryError) as error:
        raise BadInput(f"{file}: not a readable mean image ({error})") from None
    check(bool(np.isfinite(mean).all()), f"{file}: contains a value that is not finite")
    return mean


def preprocessing_entry(images: Preprocessing, order: ColourOrder = "RGB") -> PreprocessingEntry:
    """Describe a preprocessing for pixels from 0 to 255 in the given order of colours."""
    turned, (height, width, channels) = slice(None, None, -1 if order == "BGR" else 1), images.image_shape
    colours = np.asarray(images.mean).reshape(-1, channels)
    one = bool(np.ptp(colours, axis=0).max() < 1e-4)  # resizing a constant colour may change it by rounding
    return PreprocessingEntry(
        mean=tuple(colours[0, turned].tolist()) if one else (), mean_image="" if one else "mean.npy",
        std=images.std[turned], channel_order=order, size=height, width=None if width == height else width,
        shorter_side=images.shorter_side, squash=images.squash, resize=images.resize, crop=images.crop)


IMAGENET_COLOURS: Any = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "value_range": 1.0}
CIFAR10_COLOURS: Any = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010), "value_range": 1.0}
CIFAR100_COLOURS: Any = {"mean": (0.507, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2761), "value_range": 1.0}
CAFFE = PreprocessingEntry(mean=(103.939, 116.779, 123.68), channel_order="BGR", squash=(224, 224),
                           resize="pillow-nearest")
TORCH = PreprocessingEntry(**IMAGENET_COLOURS, shorter_side=256, resize="pillow-bilinear", crop="half-even")
TRANSFORMERS = PreprocessingEntry(**IMAGENET_COLOURS, shorter_side=256, resize="torch-bicubic")
USUAL = {  # library and preprocessing per family, for weights without a description
    ("torchvision", "imagenet"): ("torchvision", TORCH),
    ("huggingface", "imagenet"): ("transformers' ConvNextImageProcessor", TRANSFORMERS),
    ("keras", "imagenet"): ("load_img and preprocess_input of Keras", CAFFE),
    ("keras-2016", "imagenet"): ("load_img and preprocess_input of Keras", CAFFE),
    ("torchvision", "vgg"): ("torchvision", TORCH),
    ("keras", "vgg"): ("load_img and preprocess_input of Keras", CAFFE),
    ("torchvision", "cifar"): ("pytorch-cifar-models for CIFAR-10", PreprocessingEntry(**CIFAR10_COLOURS, size=32)),
    ("torchvision", "cifar, 100"): (
        "pytorch-cifar-models for CIFAR-100", PreprocessingEntry(**CIFAR100_COLOURS, size=32)),
    ("akamaster", "cifar"): ("pytorch_resnet_cifar10", PreprocessingEntry(**IMAGENET_COLOURS, size=32)),
}


def usual(family: str, images: str, classes: int) -> tuple[str, PreprocessingEntry] | None:
    """Return the library that usually writes such weights, and its preprocessing; None if there is no such library."""
    return USUAL.get((family, f"{images}, {classes}"), USUAL.get((family, images)))


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The facts about weights besides their tensors. A fact that is unknown is None or empty."""

    name: str = ""
    architecture: Architecture | None = None
    classes: tuple[str, ...] = ()
    preprocessing: PreprocessingEntry | None = None
    sha256: tuple[tuple[str, str], ...] = ()
    """The SHA-256 of each file in the same folder, by name."""

    def __post_init__(self) -> None:
        check_fields(self)


def write_metadata(network: Network, folder: Path, order: ColourOrder = "RGB") -> None:
    """Write `model.json`, which `load_weights` reads. If the mean is an image, write it as `mean.npy` first."""
    images = preprocessing_entry(network.preprocessing, order)
    if images.mean_image:
        np.save(folder / images.mean_image, network.mean[..., ::-1] if order == "BGR" else network.mean)
    layers = {name: getattr(network.architecture, name) for name in ("family", "depth", "shortcut", "stride_in")}
    beside = [(file.name, digest(file)) for file in sorted(folder.iterdir())]
    write_json(folder / "model.json", {"name": network.name, "architecture": layers, "classes": network.classes,
                                       "preprocessing": asdict(images), "sha256": beside})


def read_metadata(file: Path) -> Metadata:
    """Read a JSON file such as `export` writes. Raises BadInput, naming the file, if it is invalid."""
    content = read_json(file)
    try:
        metadata = from_json(content, Metadata)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    for name, sha256 in metadata.sha256:
        beside = file.parent / Path(name).name
        check(not beside.is_file() or digest(beside) == sha256,
              f"{beside}: has changed since its description was written (its SHA-256 differs); download "
              "both again")
    return metadata


def data_of(architecture: Architecture, images: Preprocessing) -> Data | Photographs:
    """Return the default location of a network's test images, which is TFDS's ImageNet or CIFAR-10."""
    size, side = images.image_shape[0], images.shorter_side or images.image_shape[0]
    if architecture.family == "cifar":
        return Data(source="tfds:cifar10", std=images.std, resize=images.resize)
    low = max(256, size)
    return Photographs(source="tfds:imagenet2012", size=size, test_shorter_side=side, shorter_side=(low, max(480, low)),
                       std=images.std, resize=images.resize)


def known_classes(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Return WordNet ids for 1,000 classes that are unnamed or have ImageNet's names, otherwise the given names."""
    ids, ours = tuple(imagenet_classes()), imagenet_classes().values()
    if count != len(ids) or len(names) not in (0, count):
        return names
    alike = sum(bool(set(a.split(", ")) & set(b.split(", "))) for a, b in zip(names, ours, strict=True)) if names else 0
    return ids if not names or alike > 0.95 * count else names  # some lists spell a few names differently
