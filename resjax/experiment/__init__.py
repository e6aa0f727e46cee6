"""Describes runs as frozen dataclasses, which are checked on creation, can be compared, and can be read from JSON."""

from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resjax.experiment.fields import Count, In32Bits, Natural, NonNegative, Positive
from resjax.experiment.optimizer import Optimizer
from resjax.experiment.own import Own
from resjax.models.families import Option, StrideIn, check_depth, network_title
from resjax.models.formulas import Sizes, count
from resjax.system.errors import check
from resjax.system.serialization import (
    IN_PYTHON,
    Must,
    Named,
    check_fields,
    check_ghosts,
    check_source,
    list_differences,
    shortly,
)

if TYPE_CHECKING:
    from resjax.models import VGG, ResNet

OF_RESNETS = {"stride_in": "1x1", "initialization": "fan_in", "precision": "float32", "frozen_batch_norm": False}

Resize = Literal["area", "pillow-nearest", "pillow-box", "pillow-bilinear", "pillow-hamming", "pillow-bicubic",
                 "pillow-lanczos", "torch-nearest", "torch-bilinear", "torch-bicubic", "torch-lanczos"]

__all__ = ["Architecture", "Data", "Experiment", "Optimizer", "Own", "Photographs", "Resize", "image_shape"]


@dataclass(frozen=True, kw_only=True)
class Architecture(Named):
    """A network of the paper: plain, residual (with one of three kinds of shortcuts), or VGG for comparison."""

    family: Literal["cifar", "imagenet", "vgg"] = "cifar"
    """cifar: networks of section 4.2, for small images. imagenet: networks of Table 1. vgg: VGG, for comparison."""
    depth: Count = 20
    """The number of weighted layers. cifar: 6n+2, that is 8, 14, 20, 26, 32, ... imagenet: 18, 34, 50, 101 or 152. vgg:
    16 or 19, without shortcuts or batch norm."""
    shortcut: Option = "A"
    """A: identity, with zeros for new channels. B: projection where dimensions change. C: projection in every block."""
    stride_in: StrideIn = "1x1"
    """The bottleneck convolution that has the stride: the first 1x1 as in the paper ("v1"), or the 3x3 ("v1.5")."""
    initialization: Literal["fan_in", "fan_out"] = "fan_in"
    """The mode of He's initialisation. The paper does not specify it."""
    ghost_batch_size: Count = 64
    """The number of images that share batch-norm statistics. The paper split its batch of 128 over two GPUs."""
    unroll: Natural = 8
    """Unroll up to this many identical blocks of a stage. Longer stages are compiled as a loop."""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """The precision of convolutions and, except with bfloat16, of the last layer. Parameters and statistics are always
    float32."""
    frozen_batch_norm: bool = False
    """Keep the batch statistics of the pretrained weights, as in appendix A of the paper."""

    __repr__ = shortly

    def __post_init__(self) -> None:
        check_fields(self, "architecture.")
        check_depth(self.family, self.depth)
        for name, usual in OF_RESNETS.items() if self.family == "vgg" else ():
            check(getattr(self, name) == usual,
                  f"architecture.{name.replace('_', '-')} applies only to residual networks; VGG needs {usual!r}")

    def model(self, classes: int) -> "ResNet | VGG":
        """Build the network for a number of classes."""
        from resjax.models import VGG, cifar_resnet, imagenet_resnet  # imported here: listing runs needs no JAX

        if self.family == "vgg":
            return VGG(self.depth, classes)
        build = cifar_resnet if self.family == "cifar" else imagenet_resnet
        return build(self.depth, self.shortcut, classes, stride_in=self.stride_in, initialization=self.initialization,
                     ghost_batch_size=self.ghost_batch_size, frozen_batch_norm=self.frozen_batch_norm,
                     unroll=self.unroll, precision=self.precision)

    def title(self) -> str:
        """Return the network's name, such as "ResNet B-50 v1 in ImageNet form" or "plain-20 in CIFAR form"."""
        return network_title(self.family, self.depth, self.shortcut, self.stride_in)


@dataclass(frozen=True, kw_only=True)
class Data(Named):
    """The source and augmentation of small images of equal size, which are kept in memory (section 4.2)."""

    source: str = "digits"
    """The source of the images: `digits` (scikit-learn's handwritten digits), `tfds:NAME` (a prepared TensorFlow
    Dataset), `folder:PATH` (one folder per class) or `arrays` (arrays that you pass to `resjax.train` in Python)."""
    directory: Path | None = None
    """The folder of prepared TensorFlow Datasets. Defaults to RESJAX_DATA or, if unset, ~/tensorflow_datasets."""
    size: Count | None = None
    """Resize the shorter side of each image to this many pixels, and take the central square. If unset, all images must
    have the same size."""
    resize: Resize = "pillow-bicubic"
    """The resize filter. area: average over areas to shrink, and interpolate linearly to enlarge. pillow-* and torch-*:
    resize as Pillow and PyTorch do."""
    std: tuple[Positive, ...] = ()
    """Divide the colour channels by these values, one per channel. Weights of other libraries may require this."""
    validation_images: Natural = 0
    """The number of training images held out for validation, such as 5000 for the paper's 45k/5k split of CIFAR-10."""
    pad: Natural = 4
    """The zero padding on each side, in pixels, before a random crop of the original size."""
    flip: bool = True
    """Flip each training image horizontally with probability 1/2."""

    __repr__ = shortly

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        if self.source != "arrays":
            check_source(self.source, "digits", "tfds:NAME", "folder:PATH")


@dataclass(frozen=True, kw_only=True)
class Photographs(Named):
    """The source and augmentation of photographs of any size, which are decoded when needed (section 3.4)."""

    source: str = "tfds:imagenet2012"
    """The source of the images: `folder:PATH` (one folder per class), `tars:PATH` (a folder with ImageNet's official
    archives) or `tfds:NAME` (a prepared TensorFlow Dataset)."""
    directory: Path | None = None
    """The folder of prepared TensorFlow Datasets. Defaults to RESJAX_DATA or, if unset, ~/tensorflow_datasets."""
    size: Annotated[int, Must("be at least 32; the network halves it five times", lambda n: n >= 32), In32Bits] = 224
    """The height and width of the training crops, in pixels."""
    crop: Literal["scale", "area"] = "scale"
    """scale: resize the shorter side to a random length within `shorter_side`, then crop (section 3.4). area: crop 8 to
    100 % of the area with an aspect ratio of 3:4 to 4:3, then resize (Szegedy et al. 2015)."""
    shorter_side: tuple[Count, Count] = (256, 480)
    """The range of the shorter side for `crop` scale, in pixels."""
    test_shorter_side: Count = 256
    """The shorter side of test images before they are cropped, in pixels."""
    resize: Resize = "area"
    """The resize filter. area: average over areas to shrink, and interpolate linearly to enlarge. pillow-* and torch-*:
    resize as Pillow and PyTorch do."""
    std: tuple[Positive, ...] = ()
    """Divide the colour channels by these values, one per channel. Weights of other libraries may require this."""
    flip: bool = True
    """Flip each training image horizontally with probability 1/2."""
    colour_noise: NonNegative = 0.1
    """The standard deviation of the noise along the principal components of the colours (Krizhevsky et al. 2012)."""
    workers: Natural | None = None
    """The number of processes that decode images, by default one per core. With 0, images are decoded in threads."""
    broken_images: Natural = 10
    """The number of unreadable training images to tolerate. resjax reports each one and uses another image instead. One
    more unreadable image stops the run."""

    __repr__ = shortly

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        check_source(self.source, "folder:PATH", "tars:PATH", "tfds:NAME")
        check(self.size <= self.shorter_side[0] <= self.shorter_side[1],
              f"data.shorter-side is {self.shorter_side}; it must be two sides in ascending order, at least "
              f"data.size {self.size}")
        check(self.test_shorter_side >= self.size,
              f"data.test-shorter-side is {self.test_shorter_side}; it must be at least data.size {self.size}")


@dataclass(frozen=True, kw_only=True)
class Experiment(Named):
    """All settings of a training run. On the same CPU, equal experiments give identical results, bit for bit."""

    kind = "classification"
    name: str
    """The name of the run in result.json and in tables."""
    architecture: Architecture = field(default_factory=Architecture)
    data: Data | Photographs = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    initialize_from: str = ""
    """The weights to start from: a run directory, a file, OWNER/NAME on the Hugging Face Hub, or a network that comes
    with resjax, such as resnet20. Training then uses the mean image of these weights. If the classes of the images
    differ from those of the weights, the last layer is initialised at random."""
    seed: Annotated[int, Must("be in 0 ... 4294967295", lambda seed: 0 <= seed < 2**32)] = 0
    """The random seed for the initial parameters, and for the order and augmentation of the images."""
    steps: Count = 64_000
    """The number of parameter updates ("iterations" in the paper)."""
    batch_size: Count = 128
    """The total number of images per step on all devices. It must be a multiple of `architecture.ghost_batch_size`."""
    log_steps: Count = 100
    """The number of steps from one line of the log to the next. Each line reports means over these steps."""
    evaluate_steps: Count = 1_000
    """The number of steps between evaluations on the validation images."""
    evaluate_test: bool = False
    """Evaluate on the test images every `evaluate_steps` steps, as in Figure 6, and not only after the last step."""
    checkpoint_steps: Count = 1_000
    """The number of steps between checkpoints. The run also saves a checkpoint when it ends or is interrupted."""
    precise_batch_norm_steps: Natural = 100
    """After training, average the batch statistics over this many training batches, as the authors did. With 0, keep
    the moving averages."""
    own: Annotated[Own, tyro.conf.Suppress, tyro.conf.Fixed] = field(default=Own(), metadata=IN_PYTHON)
    """Python objects that replace parts of the run, such as a network, an optimizer or a loss."""

    __repr__ = shortly

    def __post_init__(self) -> None:
        check_fields(self)
        check(self.steps + self.precise_batch_norm_steps < 2**31,
              "the sum of steps and precise-batch-norm-steps must fit in 32 bits")
        channels, source = image_shape(self.data)[-1], self.data.source.partition(":")[0]
        check(len(self.data.std) in (0, channels) or (source in ("arrays", "tfds") and isinstance(self.data, Data)),
              f"data.std has {len(self.data.std)} values, but the images have {channels} channels")
        check(bool(self.initialize_from) or not self.architecture.frozen_batch_norm,
              "architecture.frozen-batch-norm needs pretrained statistics; give the weights with --initialize-from")
        check(self.architecture.family != "vgg", "architecture.family is 'vgg', which resjax can evaluate and "
                                                 "export but not train; it must be 'cifar' or 'imagenet'")
        check_ghosts(self.batch_size, self.architecture.ghost_batch_size, "architecture.ghost-batch-size")
        self.optimizer.check_length(self.steps)
        check(not self.optimizer.ema_decay or self.precise_batch_norm_steps > 0 or self.architecture.frozen_batch_norm,
              "optimizer.ema-decay needs batch statistics of the averaged parameters, so precise-batch-norm-steps "
              "must be at least 1")

    @property
    def title(self) -> str:
        """Return the network's name: as in the paper or, for a custom network, its class and fields."""
        if (model := self.own.model) is None:
            return self.architecture.title()
        return shortly(model) if is_dataclass(model) and not isinstance(model, type) else "its own network"

    def differences(self, other: "Experiment") -> list[str]:
        """List the fields that differ and affect the results; see `list_differences`.

        With a cosine schedule, or an optimizer that a function builds from the run, different `steps` also count as a
        difference, because such a run cannot be extended.
        """
        built = "its optimizer is a function of the run, which may use steps" if callable(other.own.optimizer) else ""
        return list_differences(self, other, self.optimizer.fixed or built)

    def sizes(self) -> Sizes | None:
        """Count parameters and multiply-adds, for CIFAR's 10 or ImageNet's 1,000 classes; None for a custom network."""
        return None if self.own.model else self.of_the_paper()

    def of_the_paper(self) -> Sizes:
        """Count parameters and multiply-adds of the paper's network that `architecture` names."""
        return count(self.architecture, image_shape(self.data), 10 if self.architecture.family == "cifar" else 1000)

    def work(self) -> float:
        """Count the multiply-adds of all steps, to compare the cost of runs; approximate for a custom network."""
        return float(self.of_the_paper().macs * self.steps * self.batch_size)


def image_shape(data: Data | Photographs) -> tuple[int, int, int]:
    """Return height, width and channels of the network's input; CIFAR's for a folder or data set without `size`."""
    size = data.size or 32
    return (8, 8, 1) if data.source == "digits" else (size, size, 3)
