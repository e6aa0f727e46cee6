"""A detection run as a value: the network, its rules, the data and the training; frozen, checked when it is made."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from resjax.errors import check
from resjax.experiment import Optimizer
from resjax.record import flatten


class Backbone(NamedTuple):
    """A residual network by its blocks, of which the last stage works on regions and the others on images."""

    block: Literal["basic", "bottleneck"]
    blocks: tuple[int, ...]
    filters: int


RESNETS = {
    "resnet50": Backbone("bottleneck", (3, 4, 6, 3), 64),
    "resnet101": Backbone("bottleneck", (3, 4, 23, 3), 64),
    "resnet18": Backbone("basic", (2, 2, 2, 2), 64),
    "small": Backbone("basic", (2, 2, 2), 32),  # stride 8, to train from scratch on a few hundred images
    "tiny": Backbone("basic", (1, 1, 1), 16)}
BACKBONES = ("vgg16", *RESNETS)


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Faster R-CNN with a residual network (appendix A of the paper), or with VGG-16 as in Ren et al. 2015."""

    backbone: str = "resnet101"
    """resnet50, resnet101 or vgg16; resnet18, or small or tiny, which are narrower and have a stride of 8 pixels."""
    anchor_sizes: tuple[float, ...] = (128.0, 256.0, 512.0)
    """Square roots of the anchors' areas, in pixels of the resized image."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Heights of the anchors over their widths."""
    pooling: Literal["max", "align"] = "max"
    """How regions are pooled: max as in the paper, or align, without rounding (He et al. 2017)."""
    stride_in: Literal["1x1", "3x3"] = "1x1"
    """Where a bottleneck strides: in its first 1x1 as in the paper, or in its 3x3."""
    frozen_batch_norm: bool = True
    """Keep the batch statistics of the pre-trained weights, as appendix A does; without, those of the batch count."""
    ghost_batch_size: int = 1
    """Images that share batch-norm statistics where they are not frozen."""
    frozen_stages: int = 0
    """Stages, counted from the image on, that keep the weights they start from; with ResNets the first is conv1."""
    rpn_channels: int = 512
    """Channels of the 3x3 convolution before the proposals."""
    hidden: int = 4096
    """Units of VGG-16's two fully connected layers."""
    std: tuple[float, ...] = ()
    """What each colour is divided by, for weights made elsewhere; the paper divides by nothing."""

    def __post_init__(self) -> None:
        check(self.backbone in BACKBONES,
              f"detector.backbone is {self.backbone!r}; it is one of {', '.join(BACKBONES)}")
        for name in ("anchor_sizes", "anchor_ratios"):
            values = getattr(self, name)
            check(bool(values) and all(value > 0 for value in values),
                  f"detector.{name.replace('_', '-')} is {values}; it is one number above 0 or several")
        for name in ("ghost_batch_size", "rpn_channels", "hidden"):
            check(getattr(self, name) >= 1, f"detector.{name.replace('_', '-')} is {getattr(self, name)}; at least 1")
        check(self.frozen_stages >= 0, f"detector.frozen-stages is {self.frozen_stages}; it must be >= 0")
        check(len(self.std) in (0, 3) and all(value > 0 for value in self.std),
              f"detector.std is {self.std}; it is empty or three numbers above 0")

    @property
    def stride(self) -> int:
        """Count the pixels between two positions of the shared map."""
        return 16 if self.backbone == "vgg16" else 4 * 2 ** (len(RESNETS[self.backbone].blocks) - 2)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Thresholds and counts of Faster R-CNN (Ren et al. 2015): what is proposed, learnt from and detected."""

    anchors: int = 256
    """Anchors of an image that a step learns from, at most half of them positive."""
    anchor_positive: float = 0.7
    anchor_negative: float = 0.3
    suppression: float = 0.7
    """The overlap above which the better of two proposals suppresses the other."""
    smallest: float = 16.0
    """The shortest side of a proposal, in pixels."""
    train_candidates: int = 12_000
    """Anchors that come to the suppression in training, and below the proposals that it leaves."""
    train_proposals: int = 2_000
    test_candidates: int = 6_000
    test_proposals: int = 300
    rois: int = 128
    """Regions of an image that a step learns from, at most a quarter of them with an object."""
    foreground: float = 0.5
    """The overlap from which on a region shows an object."""
    background: tuple[float, float] = (0.0, 0.5)
    """The overlaps of background: from 0 as in later versions; the first began at 0.1."""
    deviations: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    """What the deltas of the detector are divided by, so that they have a variance of about 1."""
    class_suppression: float = 0.3
    """The overlap above which the better of two detections of one class suppresses the other."""
    lowest_score: float = 0.01
    detections: int = 100
    """Detections of an image at most."""

    def __post_init__(self) -> None:
        for name in ("anchors", "train_candidates", "train_proposals", "test_candidates", "test_proposals", "rois",
                     "detections"):
            check(getattr(self, name) >= 1, f"sampling.{name.replace('_', '-')} is {getattr(self, name)}; at least 1")
        for name in ("anchor_positive", "anchor_negative", "suppression", "foreground", "class_suppression"):
            value = getattr(self, name)
            check(0 < value <= 1, f"sampling.{name.replace('_', '-')} is {value}; an overlap lies in (0, 1]")
        check(self.anchor_negative <= self.anchor_positive,
              "sampling.anchor-negative is above sampling.anchor-positive")
        check(0 <= self.background[0] < self.background[1] <= 1,
              f"sampling.background is {self.background}; it is two overlaps that rise within [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Scenery:
    """Images with boxes: where they come from, and to which size they are brought."""

    source: str = "voc:PATH"
    """`voc:PATH` (JPEGImages, Annotations, ImageSets; in PATH, or in folders such as VOC2007 in it), `coco:PATH`
    (annotations/instances_SPLIT.json and the folder SPLIT of images) or `scenes` (composed of the embedded digits)."""
    train: tuple[str, ...] = ("VOC2007/trainval", "VOC2012/trainval")
    """The sets of images to train on: FOLDER/SET of VOC's layout, or SET where PATH has no such folders."""
    test: tuple[str, ...] = ("VOC2007/test",)
    """The sets of images to measure on."""
    classes: tuple[str, ...] = ()
    """The names of the classes; unset, those of the training images."""
    shorter_side: int = 600
    """The shorter side of the resized images, in pixels."""
    longer_side: int = 1_000
    """The most that the longer side may have; where it would have more, the shorter one has less."""
    flip: bool = True
    """Mirror half of the training images, at random."""

    def __post_init__(self) -> None:
        kind, _, path = self.source.partition(":")
        check((kind in ("voc", "coco") and bool(path)) or self.source == "scenes",
              f"data.source is {self.source!r}; it is 'voc:PATH', 'coco:PATH' or 'scenes'")
        check(32 <= self.shorter_side <= self.longer_side,
              f"data.shorter-side is {self.shorter_side}; it lies from 32 to data.longer-side {self.longer_side}")
        check(bool(self.train) and bool(self.test), "data.train and data.test each name at least one set of images")


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One training run of a detector, whole: two equal ones give the same bits on the same machine."""

    name: str
    """What the run is called in its result and in tables."""
    detector: Detector = field(default_factory=Detector)
    sampling: Sampling = field(default_factory=Sampling)
    data: Scenery = field(default_factory=Scenery)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(peak=0.001, drop_steps=(80_000,), weight_decay=5e-4))
    initialize_from: str = ""
    """Pre-trained weights: a run's workdir, a file, or OWNER/NAME on the Hugging Face Hub. Unset, all are drawn."""
    seed: int = 0
    """Decides the initial parameters and every batch."""
    steps: int = 110_000
    """Updates of the parameters."""
    batch_size: int = 1
    """Images of a step."""
    log_steps: int = 20
    """Steps between two lines of the log; each is the mean over them."""
    evaluate_steps: int = 110_000
    """Steps between two evaluations of the test images."""
    checkpoint_steps: int = 1_000
    """Steps between two checkpoints; one more is written at the end, and when the run is interrupted."""

    def __post_init__(self) -> None:
        check(0 <= self.seed < 2**32, f"seed is {self.seed}; it lies in 0 ... 4294967295")
        for name in ("steps", "batch_size", "log_steps", "evaluate_steps", "checkpoint_steps"):
            check(getattr(self, name) >= 1, f"{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1")
        check(self.optimizer.body_rate == 1,
              "optimizer.body-rate is for classifiers; detector.frozen-stages keeps layers as they are")
        ghost = self.detector.ghost_batch_size
        check(self.detector.frozen_batch_norm or self.batch_size % ghost == 0,
              f"batch-size {self.batch_size} is not a multiple of detector.ghost-batch-size {ghost}")

    def differences(self, other: "Detection") -> list[str]:
        """Name the fields, with both values, by which the two lead to different results."""
        mine, theirs = flatten(self), flatten(other)
        return [f"{key}: {mine[key]!r}, here {theirs[key]!r}" for key in mine
                if key != "checkpoint_steps" and mine[key] != theirs[key]]
