"""A run is a value: frozen, checked when it is made, comparable, and readable back from its JSON."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from resjax.errors import BadInput, check
from resjax.models import ResNet, cifar_resnet, imagenet_resnet
from resjax.record import flatten

FAMILIES = {"cifar": "CIFAR-10", "imagenet": "ImageNet"}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network of the paper, plain or with one of the three shortcuts."""

    family: Literal["cifar", "imagenet"] = "cifar"
    """cifar: the nets of section 4.2, for small images. imagenet: those of Table 1."""
    depth: int = 20
    """Weighted layers. cifar: 6n+2, that is 8, 14, 20, 26, 32, ... imagenet: 18, 34, 50, 101, 152."""
    shortcut: Literal["plain", "A", "B", "C"] = "A"
    """A: identity, zeros for new channels. B: projection where dimensions change. C: projection everywhere."""
    stride_in: Literal["1x1", "3x3"] = "1x1"
    """Where a bottleneck strides: in its first 1x1 as in the paper ("v1"), or in its 3x3 ("v1.5")."""
    initialization: Literal["fan_in", "fan_out"] = "fan_in"
    """Which side of a layer He's initialisation keeps the variance of; the paper leaves it open."""
    norm_group: int = 64
    """Images that share batch-norm statistics: the paper's batch of 128 lay on two GPUs."""
    unroll: int = 8
    """Stages of up to so many identical blocks are compiled block by block, longer ones as one loop."""
    precision: Literal["float32", "tensorfloat32", "bfloat16"] = "float32"
    """What the convolutions and the last layer compute in; parameters and statistics are float32."""
    std: tuple[float, ...] = ()
    """What each colour is divided by, for weights made elsewhere; the paper divides by nothing."""
    fixed_norm: bool = False
    """Train with the batch statistics of the weights that one starts from, as appendix A of the paper does."""

    def __post_init__(self) -> None:
        check(self.norm_group >= 1, f"architecture.norm-group is {self.norm_group}; it counts images, at least 1")
        check(all(value > 0 for value in self.std), f"architecture.std is {self.std}; each is above 0")
        self.model(classes=10)  # a wrong depth or shortcut is an error here, before anything compiles

    def model(self, classes: int) -> ResNet:
        """Build the network for so many classes."""
        try:
            settings: dict[str, Any] = {"initialization": self.initialization, "norm_group": self.norm_group,
                                        "fixed_norm": self.fixed_norm, "std": self.std, "unroll": self.unroll,
                                        "precision": self.precision}
            if self.family == "imagenet":
                return imagenet_resnet(self.depth, self.shortcut, classes, stride_in=self.stride_in, **settings)
            return cifar_resnet(self.depth, self.shortcut, classes, **settings)
        except ValueError as error:
            raise BadInput(f"architecture: {error}") from None

    def title(self) -> str:
        """Name the network, as far as its weights tell: "ResNet B-50 v1 for ImageNet", "plain-20 for CIFAR-10"."""
        bottleneck = self.family == "imagenet" and self.depth >= 50
        stride = ("v1" if self.stride_in == "1x1" else "v1.5") if bottleneck else ""
        kind = "plain" if self.shortcut == "plain" else f"ResNet {self.shortcut}"
        return " ".join(filter(None, (f"{kind}-{self.depth}", stride, f"for {FAMILIES[self.family]}")))


@dataclass(frozen=True, kw_only=True)
class Data:
    """Small images of one size, in memory; where they come from, and how section 4.2 changes them for training."""

    source: str = "digits"
    """`digits`, `tfds:NAME` (a prepared TFDS set) or `folder:PATH` (one folder per class)."""
    directory: Path | None = None
    """Where prepared TFDS sets lie; by default RESJAX_DATA, else TFDS's own ~/tensorflow_datasets."""
    size: int | None = None
    """Resize the images of a folder to this height and width, in pixels; unset, they must all be alike."""
    validation_images: int = 0
    """Training images held out for validation: 5000 for the paper's 45k/5k split of CIFAR-10."""
    pad: int = 4
    """Pixels of zeros on each side, before a random crop of the original size."""
    flip: bool = True
    """Mirror half of the training images, at random."""

    def __post_init__(self) -> None:
        check_source(self.source, "digits", "tfds:NAME", "folder:PATH")
        check(self.validation_images >= 0, f"data.validation-images is {self.validation_images}; it must be >= 0")
        check(self.pad >= 0, f"data.pad is {self.pad}; it must be >= 0")
        check(self.size is None or self.size >= 1, f"data.size is {self.size}; it counts pixels, at least 1")


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """JPEG photographs of any size, decoded as they are needed, and how section 3.4 changes them for training."""

    source: str = "tfds:imagenet2012"
    """`folder:PATH` (one folder per class), `tars:PATH` (a folder with ImageNet's official archives) or `tfds:NAME`
    (a prepared TFDS set)."""
    directory: Path | None = None
    """Where prepared TFDS sets lie; by default RESJAX_DATA, else TFDS's own ~/tensorflow_datasets."""
    size: int = 224
    """Height and width of the crops that the network is trained on, in pixels."""
    crop: Literal["scale", "area"] = "scale"
    """scale: the shorter side resized at random within `shorter_side`, then a crop (section 3.4). area: a crop of 8 to
    100 % of the area with an aspect ratio of 3:4 to 4:3 (Szegedy et al. 2015), resized."""
    shorter_side: tuple[int, int] = (256, 480)
    """The shortest and the longest shorter side for `crop` scale, in pixels."""
    test_shorter_side: int = 256
    """The shorter side of test images before they are cropped, in pixels."""
    flip: bool = True
    """Mirror half of the training images, at random."""
    colour_noise: float = 0.1
    """Standard deviation of the noise along the principal components of the colours (Krizhevsky et al. 2012)."""
    workers: int | None = None
    """Processes that decode; by default one for each core at hand. With 0, threads of the training process decode, as
    they do a handful of batches."""
    broken_images: int = 10
    """Training images that may be unreadable; each is named, and another takes its place. One more stops the run."""

    def __post_init__(self) -> None:
        check_source(self.source, "folder:PATH", "tars:PATH", "tfds:NAME")
        check(self.size >= 32, f"data.size is {self.size}; the network halves it five times, so it is at least 32")
        check(len(self.shorter_side) == 2 and self.size <= self.shorter_side[0] <= self.shorter_side[1],
              f"data.shorter-side is {self.shorter_side}; it is two sides that rise, from data.size {self.size} on")
        check(self.test_shorter_side >= self.size,
              f"data.test-shorter-side is {self.test_shorter_side}; it is at least data.size {self.size}")
        check(self.colour_noise >= 0, f"data.colour-noise is {self.colour_noise}; it must be >= 0")
        check(self.workers is None or self.workers >= 0, f"data.workers is {self.workers}; it must be >= 0")
        check(self.broken_images >= 0, f"data.broken-images is {self.broken_images}; it must be >= 0")


def check_source(source: str, *forms: str) -> None:
    """Raise BadInput unless a source is of one of the forms `KIND` or `KIND:WHAT`."""
    kind, _, what = source.partition(":")
    form = next((form for form in forms if form.partition(":")[0] == kind), None)
    check(form is not None, f"data.source is {source!r}; it is {', '.join(map(repr, forms[:-1]))} or {forms[-1]!r}")
    check((":" in (form or "")) == bool(what),
          f"data.source is {source!r}; write what to read after the colon: {form!r}")


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Stochastic gradient descent as in sections 3.4 and 4.2: v := momentum v + rate g, w := w - v."""

    peak: float = 0.1
    """The learning rate after the warm-up and before the first drop."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    weight_decay_scope: Literal["all", "kernels"] = "all"
    """Which parameters decay: all, or only the kernels of the convolutions and of the last layer."""
    drop_steps: tuple[int, ...] = (32_000, 48_000)
    """The steps at which the rate is divided by 10."""
    plateau_steps: int = 0
    """Also divide it by 10, three times at most, when the training error, averaged over so many steps, has not fallen
    twice in a row ("when the error plateaus", section 3.4); 0 never does."""
    warmup_rate: float = 0.01
    """The rate while the warm-up lasts."""
    warmup_steps: int = 0
    """A warm-up of fixed length: 400 is about what the paper's rule takes for 110 layers."""
    warmup_error: float = 100.0
    """A warm-up that lasts until the training error, in percent, is below this: the paper's rule is 80."""
    body_rate: float = 1.0
    """For fine-tuning, times the rate for all but the last layer. 0 leaves the parameters of those layers as they are,
    and with `architecture.fixed_norm` their statistics too."""

    def __post_init__(self) -> None:
        check(self.peak > 0, f"optimizer.peak is {self.peak}; a learning rate is above 0")
        check(self.warmup_rate > 0, f"optimizer.warmup-rate is {self.warmup_rate}; a learning rate is above 0")
        check(0 <= self.momentum < 1, f"optimizer.momentum is {self.momentum}; it lies in [0, 1)")
        check(self.weight_decay >= 0, f"optimizer.weight-decay is {self.weight_decay}; it must be >= 0")
        check(self.plateau_steps >= 0, f"optimizer.plateau-steps is {self.plateau_steps}; it must be >= 0")
        check(self.warmup_steps >= 0, f"optimizer.warmup-steps is {self.warmup_steps}; it must be >= 0")
        check(self.body_rate >= 0, f"optimizer.body-rate is {self.body_rate}; it must be >= 0")
        check(0 < self.warmup_error <= 100, f"optimizer.warmup-error is {self.warmup_error}; percent, in (0, 100]")
        check(all(a < b for a, b in zip((0, *self.drop_steps), self.drop_steps, strict=False)),
              f"optimizer.drop-steps is {self.drop_steps}; the steps must be above 0 and rise")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run, whole: two equal experiments give the same bits on the same machine."""

    name: str
    """What the run is called in its result and in tables."""
    architecture: Architecture = field(default_factory=Architecture)
    data: Data | Photographs = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    start: str = ""
    """Weights to start from in place of drawing them, for fine-tuning: a run's workdir, a file, or OWNER/NAME on the
    Hugging Face Hub. Their mean image stays; the last layer is drawn anew where there are other classes."""
    seed: int = 0
    """Decides the initial parameters and every batch."""
    steps: int = 64_000
    """Updates of the parameters ("iterations" in the paper)."""
    batch_size: int = 128
    log_steps: int = 100
    """Steps between two lines of the log; each is the mean over them."""
    evaluate_steps: int = 1_000
    """Steps between two evaluations of the validation images."""
    evaluate_test: bool = False
    """Evaluate the test images then too, as Figure 6 does, and not only after the last step."""
    checkpoint_steps: int = 1_000
    """Steps between two checkpoints; one more is written at the end, and when the run is interrupted."""
    statistics_steps: int = 100
    """Batches after the last step whose batch-norm statistics are averaged, as the authors did, to replace
    the moving averages; 0 keeps those."""

    def __post_init__(self) -> None:
        check(0 <= self.seed < 2**32, f"seed is {self.seed}; it lies in 0 ... 4294967295")
        for name in ("steps", "batch_size", "log_steps", "evaluate_steps", "checkpoint_steps"):
            value = getattr(self, name)
            check(value >= 1, f"{name.replace('_', '-')} is {value}; it must be at least 1")
        check(self.statistics_steps >= 0, f"statistics-steps is {self.statistics_steps}; it must be >= 0")
        channels = image_shape(self.data)[-1]
        check(len(self.architecture.std) in (0, channels),
              f"architecture.std has {len(self.architecture.std)} values, and images of {channels} channels")
        check(bool(self.start) or not self.architecture.fixed_norm,
              "architecture.fixed-norm keeps the statistics of the weights that --start names, and none are named")
        group = self.architecture.norm_group
        check(self.batch_size % group == 0,
              f"batch-size {self.batch_size} is not a multiple of architecture.norm-group {group}")

    def differences(self, other: "Experiment") -> list[str]:
        """Name the fields, with both values, by which the two lead to different results."""
        mine, theirs = flatten(self), flatten(other)
        housekeeping = {"data.directory", "data.workers", "checkpoint_steps"}  # these change no result
        return [f"{key}: {mine.get(key)!r}, here {theirs.get(key)!r}"
                for key in mine | theirs if key not in housekeeping and mine.get(key) != theirs.get(key)]


def image_shape(data: Data | Photographs) -> tuple[int, int, int]:
    """Return height, width and channels of what the network sees; of a folder or set without `size`, CIFAR's."""
    if data.source == "digits":
        return 8, 8, 1
    size = data.size or 32
    return size, size, 3
