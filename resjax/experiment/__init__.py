"""A run is a value: frozen, checked when it is made, comparable, and readable back from its JSON."""

from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resjax.experiment.fields import Count, In32Bits, Natural, NonNegative, Positive
from resjax.experiment.optimizer import Optimizer
from resjax.experiment.own import Own
from resjax.models.formulas import Sizes, count
from resjax.models.variants import Option, StrideIn, check_depth, network_title
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
    """A network of the paper: plain, with one of the three shortcuts, or the VGG network that it is compared with."""

    family: Literal["cifar", "imagenet", "vgg"] = "cifar"
    """cifar: the nets of section 4.2, for small images. imagenet: those of Table 1. vgg: their reference."""
    depth: Count = 20
    """Weighted layers. cifar: 6n+2, that is 8, 14, 20, 26, 32, ... imagenet: 18, 34, 50, 101, 152. vgg: 16, 19, which
    have neither shortcuts nor batch norm."""
    shortcut: Option = "A"
    """A: identity, zeros for new channels. B: projection where dimensions change. C: projection everywhere."""
    stride_in: StrideIn = "1x1"
    """Which convolution of a bottleneck has the stride: the first 1x1 as in the paper ("v1"), or the 3x3 ("v1.5")."""
    initialization: Literal["fan_in", "fan_out"] = "fan_in"
    """The mode of He's initialisation; the paper leaves it open."""
    ghost_batch_size: Count = 64
    """Images that share batch-norm statistics: 64, because the paper's batch of 128 was split over two GPUs."""
    unroll: Natural = 8
    """Up to this many identical blocks of a stage are unrolled; longer stages are compiled as a loop."""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """The precision of convolutions and of the last layer; parameters and statistics are float32."""
    frozen_batch_norm: bool = False
    """Keep the batch statistics of the pretrained weights, as appendix A of the paper does."""

    __repr__ = shortly

    def __post_init__(self) -> None:
        check_fields(self, "architecture.")
        check_depth(self.family, self.depth)
        for name, usual in OF_RESNETS.items() if self.family == "vgg" else ():
            check(getattr(self, name) == usual,
                  f"architecture.{name.replace('_', '-')} is a choice of residual networks; VGG has {usual!r}")

    def model(self, classes: int) -> "ResNet | VGG":
        """Build the network for this number of classes."""
        from resjax.models import VGG, cifar_resnet, imagenet_resnet  # here, as runs are listed without JAX

        if self.family == "vgg":
            return VGG(self.depth, classes)
        build = cifar_resnet if self.family == "cifar" else imagenet_resnet
        return build(self.depth, self.shortcut, classes, stride_in=self.stride_in, initialization=self.initialization,
                     ghost_batch_size=self.ghost_batch_size, frozen_batch_norm=self.frozen_batch_norm,
                     unroll=self.unroll, precision=self.precision)

    def title(self) -> str:
        """Name the network as its weights define it: "ResNet B-50 v1 in ImageNet form", "plain-20 in CIFAR form"."""
        return network_title(self.family, self.depth, self.shortcut, self.stride_in)


@dataclass(frozen=True, kw_only=True)
class Data(Named):
    """Small images of one size, held in memory: their source, and how they are augmented (section 4.2)."""

    source: str = "digits"
    """`digits`, `tfds:NAME` (a prepared TFDS set) or `folder:PATH` (one folder per class). `arrays`: those given to
    `resjax.train` in Python."""
    directory: Path | None = None
    """The folder of prepared TFDS sets; by default RESJAX_DATA, else TFDS's own ~/tensorflow_datasets."""
    size: Count | None = None
    """Resize the shorter side to this many pixels and crop the centre to a square; unset, all images must have one
    size."""
    resize: Resize = "pillow-bicubic"
    """area: average over areas where images shrink, else linear. pillow-, torch-: as Pillow or PyTorch does."""
    std: tuple[Positive, ...] = ()
    """Divisors of the colours, for weights made elsewhere; the paper divides by nothing."""
    validation_images: Natural = 0
    """Training images held out for validation: 5000 for the paper's 45k/5k split of CIFAR-10."""
    pad: Natural = 4
    """Zero padding on each side, in pixels, before a random crop of the original size."""
    flip: bool = True
    """Mirror half of the training images, at random."""

    __repr__ = shortly

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        if self.source != "arrays":
            check_source(self.source, "digits", "tfds:NAME", "folder:PATH")


@dataclass(frozen=True, kw_only=True)
class Photographs(Named):
    """Photographs of any size, decoded as they are needed: their source, and how they are augmented (section 3.4)."""

    source: str = "tfds:imagenet2012"
    """`folder:PATH` (one folder per class), `tars:PATH` (a folder with ImageNet's official archives) or `tfds:NAME`
    (a prepared TFDS set)."""
    directory: Path | None = None
    """The folder of prepared TFDS sets; by default RESJAX_DATA, else TFDS's own ~/tensorflow_datasets."""
    size: Annotated[int, Must("be at least 32, as the network halves it five times", lambda n: n >= 32), In32Bits] = 224
    """Height and width of the crops that the network is trained on, in pixels."""
    crop: Literal["scale", "area"] = "scale"
    """scale: the shorter side resized at random within `shorter_side`, then a crop (section 3.4). area: a crop of 8 to
    100 % of the area with an aspect ratio of 3:4 to 4:3 (Szegedy et al. 2015), resized."""
    shorter_side: tuple[Count, Count] = (256, 480)
    """The range of the shorter side for `crop` scale, in pixels."""
    test_shorter_side: Count = 256
    """The shorter side of test images before they are cropped, in pixels."""
    resize: Resize = "area"
    """area: average over areas where images shrink, else linear. pillow-, torch-: as Pillow or PyTorch does."""
    std: tuple[Positive, ...] = ()
    """Divisors of the colours, for weights made elsewhere; the paper divides by nothing."""
    flip: bool = True
    """Mirror half of the training images, at random."""
    colour_noise: NonNegative = 0.1
    """Standard deviation of the noise along the principal components of the colours (Krizhevsky et al. 2012)."""
    workers: Natural | None = None
    """Processes that decode images; by default one per core. With 0, threads of the training process decode them."""
    broken_images: Natural = 10
    """How many unreadable training images to tolerate: each is named and replaced by another. One more stops the
    run."""

    __repr__ = shortly

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        check_source(self.source, "folder:PATH", "tars:PATH", "tfds:NAME")
        check(self.size <= self.shorter_side[0] <= self.shorter_side[1],
              f"data.shorter-side is {self.shorter_side}; it is two sides that rise, from data.size {self.size} on")
        check(self.test_shorter_side >= self.size,
              f"data.test-shorter-side is {self.test_shorter_side}; it is at least data.size {self.size}")


@dataclass(frozen=True, kw_only=True)
class Experiment(Named):
    """Everything that determines a training run: two equal experiments give the same bits on the same machine."""

    kind = "classification"
    name: str
    """The run's name in its result and in tables."""
    architecture: Architecture = field(default_factory=Architecture)
    data: Data | Photographs = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    initialize_from: str = ""
    """Weights to start from: a run directory, a file, OWNER/NAME on the Hugging Face Hub, or a network that comes with
    resjax, such as resnet20. Their mean image is kept; if the classes
    differ, the last layer is initialised at random."""
    seed: Annotated[int, Must("lie in 0 ... 4294967295", lambda seed: 0 <= seed < 2**32)] = 0
    """The seed of the initial parameters and of every batch."""
    steps: Count = 64_000
    """Updates of the parameters ("iterations" in the paper)."""
    batch_size: Count = 128
    """Images per step over all devices: a multiple of `architecture.ghost_batch_size`."""
    log_steps: Count = 100
    """Steps between two lines of the log; each line is a mean over these steps."""
    evaluate_steps: Count = 1_000
    """Steps between two evaluations of the validation images."""
    evaluate_test: bool = False
    """Evaluate the test images at these steps too, as in Figure 6, and not only after the last step."""
    checkpoint_steps: Count = 1_000
    """Steps between two checkpoints; one more is written at the end, and when the run is interrupted."""
    precise_batch_norm_steps: Natural = 100
    """After training, average the batch statistics over this many training batches, as the authors did. 0: keep moving
    averages."""
    own: Annotated[Own, tyro.conf.Suppress, tyro.conf.Fixed] = field(default=Own(), metadata=IN_PYTHON)
    """Python objects that JSON cannot hold: a network, an optimizer, a loss."""

    __repr__ = shortly

    def __post_init__(self) -> None:
        check_fields(self)
        check(self.steps + self.precise_batch_norm_steps < 2**31,
              "steps and precise-batch-norm-steps together must fit in 32 bits")
        channels = image_shape(self.data)[-1]
        check(len(self.data.std) in (0, channels) or self.data.source == "arrays",
              f"data.std has {len(self.data.std)} values, and images of {channels} channels")
        check(bool(self.initialize_from) or not self.architecture.frozen_batch_norm,
              "architecture.frozen-batch-norm keeps the statistics of the weights that --initialize-from names, and "
              "none are named")
        check(self.architecture.family != "vgg", "architecture.family is 'vgg', whose weights are evaluated and "
                                                 "exported here, not trained; it is 'cifar' or 'imagenet'")
        check_ghosts(self.batch_size, self.architecture.ghost_batch_size, "architecture.ghost-batch-size")
        self.optimizer.check_length(self.steps)
        check(not self.optimizer.ema_decay or self.precise_batch_norm_steps > 0 or self.architecture.frozen_batch_norm,
              "optimizer.ema-decay averages the parameters, and precise-batch-norm-steps measures the batch statistics "
              "of the average: it is at least 1")

    @property
    def title(self) -> str:
        """Name the network: as the paper does, or a network of your own by its fields."""
        model = self.own.model
        return self.architecture.title() if model is None else repr(model) if is_dataclass(model) else "its own network"

    def differences(self, other: "Experiment") -> list[str]:
        """Name the fields in which two experiments differ so that their results differ; see `list_differences`.

        With a cosine schedule, different `steps` count as a difference: such a run cannot be extended.
        """
        return list_differences(self, other, longer=self.optimizer.schedule == "steps")

    def sizes(self) -> Sizes | None:
        """Count parameters and multiply-adds, with 10 classes for CIFAR's networks and 1,000 for ImageNet's.

        None for a network of your own.
        """
        return None if self.own.model else self.of_the_paper()

    def of_the_paper(self) -> Sizes:
        """Count parameters and multiply-adds of the paper's network that `architecture` names."""
        return count(self.architecture, image_shape(self.data), 10 if self.architecture.family == "cifar" else 1000)

    def work(self) -> float:
        """Count the multiply-adds of all steps, to compare the cost of runs; rough for a network of your own."""
        return float(self.of_the_paper().macs * self.steps * self.batch_size)


def image_shape(data: Data | Photographs) -> tuple[int, int, int]:
    """Return height, width and channels of what the network sees; of a folder or set without `size`, CIFAR's."""
    size = data.size or 32
    return (8, 8, 1) if data.source == "digits" else (size, size, 3)
