"""Frozen dataclasses that describe detection runs: network, sampling, data and training. Their values are validated."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from resjax.detection.backbones import RESNETS
from resjax.experiment import Optimizer
from resjax.experiment.fields import Count, DistinctNames, In32Bits, Natural, NonNegative, Positive
from resjax.models.families import StrideIn
from resjax.system.errors import check
from resjax.system.serialization import Must, Named, check_fields, check_ghosts, check_source, list_differences

Overlap = Annotated[float, Must("be an overlap in (0, 1]", lambda x: 0 < x <= 1)]
SomeNumbers = Annotated[tuple[Positive, ...], Must("be one or more numbers", len)]
SomeNames = Annotated[tuple[str, ...], Must("name one or more sets of images", len)]


@dataclass(frozen=True, kw_only=True)
class Detector(Named):
    """Faster R-CNN with a residual network (appendix A of the paper), or with VGG-16 as in Ren et al. 2015."""

    backbone: Literal["vgg16", "resnet50", "resnet101", "resnet18", "small", "tiny"] = "resnet101"
    """The network that computes features. small and tiny are narrow ResNets with a stride of 8 pixels instead of 16."""
    anchor_sizes: SomeNumbers = (128.0, 256.0, 512.0)
    """The square roots of the anchor areas, in pixels of the resized image."""
    anchor_ratios: SomeNumbers = (0.5, 1.0, 2.0)
    """The aspect ratios of the anchors: height divided by width."""
    pooling: Literal["max", "align"] = "max"
    """The pooling of regions: max, as in the paper, or align, without rounding (He et al. 2017)."""
    stride_in: StrideIn = "1x1"
    """The bottleneck convolution that has the stride: the first 1x1, as in the paper, or the 3x3."""
    frozen_batch_norm: bool = True
    """Keep the batch statistics of the pretrained weights, as in appendix A. Otherwise, use those of each batch."""
    ghost_batch_size: Count = 1
    """The number of images that share batch-norm statistics, unless the statistics are frozen."""
    frozen_stages: Natural = 0
    """The number of frozen stages, counted from the input. In ResNets, the first stage is conv1, and the last stage,
    which processes regions, cannot be frozen."""
    rpn_channels: Count = 512
    """The number of channels of the 3x3 convolution before the proposals."""
    hidden: Count = 4096
    """The number of units in each of VGG-16's two fully connected layers."""
    global_context: bool = False
    """Concatenate the features of the whole image with those of each region (appendix B)."""
    precision: Literal["float32", "tensorfloat32"] = "float32"
    """The precision of convolutions and fully connected layers, on devices that offer a choice."""

    def __post_init__(self) -> None:
        check_fields(self, "detector.")
        most = 5 if self.backbone == "vgg16" else len(RESNETS[self.backbone].blocks)
        check(self.frozen_stages <= most, f"detector.frozen-stages is {self.frozen_stages}; {self.backbone} has {most} "
                                          "stages that process whole images")

    @property
    def stride(self) -> int:
        """The number of image pixels between neighbouring positions of the shared map."""
        return 16 if self.backbone == "vgg16" else 4 * 2 ** (len(RESNETS[self.backbone].blocks) - 2)


@dataclass(frozen=True, kw_only=True)
class Sampling(Named):
    """Thresholds and counts of Faster R-CNN (Ren et al. 2015) for proposals, training samples and detections."""

    anchors: Annotated[int, Must("be at least 2", lambda n: n >= 2), In32Bits] = 256
    """The number of anchors sampled per image and step. At most half of these anchors are positive."""
    anchor_positive: Overlap = 0.7
    """The minimum overlap (IoU) with an object for an anchor to be positive."""
    anchor_negative: Overlap = 0.3
    """An anchor is background if its overlap with every object is below this value."""
    suppression: Overlap = 0.7
    """Of two proposals that overlap by more than this value, only the one with the higher score is kept."""
    smallest: NonNegative = 16.0
    """The minimum side of a proposal, in pixels of the resized image."""
    train_candidates: Count = 12_000
    """The number of highest-scoring anchors per image that enter non-maximum suppression in training."""
    train_proposals: Count = 2_000
    """The maximum number of proposals per image after non-maximum suppression in training."""
    test_candidates: Count = 6_000
    """The number of highest-scoring anchors per image that enter non-maximum suppression in testing."""
    test_proposals: Count = 300
    """The maximum number of proposals per image after non-maximum suppression in testing."""
    rois: Annotated[int, Must("be at least 4", lambda n: n >= 4), In32Bits] = 128
    """The number of regions sampled per image and step. At most a quarter of these regions are foreground."""
    foreground: Overlap = 0.5
    """The minimum overlap with an object for a region to be foreground."""
    background: tuple[float, float] = (0.0, 0.5)
    """The range of overlaps for a region to be background. The first version of Faster R-CNN used 0.1 to 0.5."""
    deviations: tuple[Positive, Positive, Positive, Positive] = (0.1, 0.1, 0.2, 0.2)
    """The values that divide the box regression targets, so that their variance is about 1."""
    class_suppression: Overlap = 0.3
    """Of two detections of a class that overlap by more than this value, only the one with the higher score is kept."""
    lowest_score: Annotated[float, Must("be in [0, 1)", lambda score: 0 <= score < 1)] = 0.01
    """The score above which a region is a detection, from 0 to 1."""
    detections: Count = 100
    """The maximum number of detections per image."""

    def __post_init__(self) -> None:
        check_fields(self, "sampling.")
        check(self.anchor_negative <= self.anchor_positive,
              "sampling.anchor-negative must be at most sampling.anchor-positive")
        check(0 <= self.background[0] < self.background[1] <= 1,
              f"sampling.background is {self.background}; it must be two overlaps in ascending order, in [0, 1]")
        check(self.background[0] < self.foreground,
              f"sampling.background starts at {self.background[0]}; it must start below sampling.foreground")


@dataclass(frozen=True, kw_only=True)
class Scenery(Named):
    """The source of images with boxes, and how they are resized."""

    source: str = "voc:PATH"
    """The source of the images: `voc:PATH` (JPEGImages, Annotations and ImageSets in PATH, or in folders of PATH such
    as VOC2007), `coco:PATH` (annotations/instances_SET.json and the image folder SET) or `scenes` (images composed
    of digits)."""
    train: SomeNames = ("VOC2007/trainval", "VOC2012/trainval")
    """The names of the sets of training images, such as trainval. If PATH contains folders such as VOC2007, a name has
    the form VOC2007/trainval."""
    test: SomeNames = ("VOC2007/test",)
    """The names of the sets of test images, in the same form as those of the training images."""
    classes: DistinctNames = ()
    """The class names. If unset, they are taken from the training annotations, except that `voc:PATH` uses all 20 VOC
    classes if no others are annotated."""
    shorter_side: Annotated[int, Must("be at least 32", lambda n: n >= 32), In32Bits] = 600
    """The shorter side of the resized images, in pixels."""
    longer_side: Count = 1_000
    """The maximum longer side, in pixels. An image whose longer side would exceed it is resized to this longer side
    instead."""
    std: tuple[Positive, ...] = ()
    """Divide the colour channels by these values, one per channel. Weights of other libraries may require this."""
    flip: bool = True
    """Flip each training image horizontally with probability 1/2."""

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        check_source(self.source, "voc:PATH", "coco:PATH", "scenes")
        check(self.shorter_side <= self.longer_side,
              f"data.shorter-side is {self.shorter_side}; it must be at most data.longer-side {self.longer_side}")
        check(len(self.std) in (0, 3), f"data.std is {self.std}; it must be empty or have three numbers")
        unused = [name for name in ("train", "test", "classes") if getattr(self, name) != getattr(Scenery, name)]
        check(self.source != "scenes" or not unused, f"scenes do not accept data.{' or data.'.join(unused)}")


@dataclass(frozen=True, kw_only=True)
class Inference(Named):
    """How detections are computed in testing. The defaults are the baseline of Table 9."""

    box_refinement: bool = False
    """Classify and regress each predicted box again, merge both sets of boxes, and average boxes by voting (appendix
    B)."""
    scales: Annotated[tuple[Count, ...], Must("be empty, or have several sides in ascending order",
                                              lambda sides: len(sides) != 1 and list(sides) == sorted(set(sides)))] = ()
    """The shorter sides for multi-scale testing, in pixels. If unset, only `data.shorter-side` is used."""

    def __post_init__(self) -> None:
        check_fields(self, "inference.")


@dataclass(frozen=True, kw_only=True)
class Detection(Named):
    """All settings of a detector's training. On the same CPU, equal runs give identical results, bit for bit.

    The defaults are the paper's for VOC 07+12, except for the pretrained weights.
    """

    kind = "detection"

    name: str
    """The name of the run in result.json and in tables."""
    detector: Detector = field(default_factory=Detector)
    sampling: Sampling = field(default_factory=Sampling)
    inference: Inference = field(default_factory=Inference)
    data: Scenery = field(default_factory=Scenery)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(
        learning_rate=0.001, decay_steps=(80_000,), weight_decay=5e-4))
    training: Literal["joint", "alternating"] = "joint"
    """joint: train proposals and detections together. alternating: train in the four phases of Ren et al. 2015. Each
    phase takes a quarter of `steps` and has its own learning-rate schedule, so `optimizer.decay_steps` and
    `optimizer.warmup_steps` count from the start of each phase."""
    initialize_from: str = ""
    """The pretrained weights: a run directory, a file, OWNER/NAME on the Hugging Face Hub, or a network that comes with
    resjax, such as bccd. If unset, the weights are random."""
    seed: Annotated[int, Must("be in 0 ... 4294967295", lambda seed: 0 <= seed < 2**32)] = 0
    """The random seed for the initial parameters, the order and flips of the training images, and the sampling of
    anchors and regions."""
    steps: Count = 110_000
    """The number of parameter updates."""
    batch_size: Count = 1
    """The number of images per step."""
    log_steps: Count = 20
    """The number of steps from one line of the log to the next. Each line reports means over these steps."""
    evaluate_steps: Count = 110_000
    """The number of steps between evaluations on the test images."""
    checkpoint_steps: Count = 1_000
    """The number of steps between checkpoints. The run also saves a checkpoint when it ends or is interrupted."""

    def __post_init__(self) -> None:
        check_fields(self)
        check(self.optimizer.backbone_rate == 1,
              "optimizer.backbone-rate only works with classifiers; use detector.frozen-stages to freeze layers")
        check(self.optimizer.ema_decay == 0, "optimizer.ema-decay only works with classifiers")
        if self.training == "alternating":
            check(self.steps % 4 == 0, f"steps is {self.steps}; for alternating training, it must be a multiple of 4")
            check(self.detector.frozen_batch_norm, "alternating training needs detector.frozen-batch-norm")
            check(self.optimizer.plateau_steps == 0 and self.optimizer.warmup_error == 100,
                  "optimizer.plateau-steps and optimizer.warmup-error depend on the error of regions; they do not work "
                  "with alternating training, which has phases that only train proposals")
        sides, side, longer = self.inference.scales, self.data.shorter_side, self.data.longer_side
        check(self.sampling.smallest <= side, f"sampling.smallest is {self.sampling.smallest}; it must be at most "
                                              f"data.shorter-side {side}, or no proposal is large enough")
        roots = (max(ratio, 1 / ratio) ** 0.5 for ratio in self.detector.anchor_ratios)
        sizes, least = self.detector.anchor_sizes, min(self.detector.anchor_sizes)
        check(any(least / root <= side and least * root <= longer for root in roots),
              f"detector.anchor-sizes are {sizes}; at least one anchor must fit in an image whose sides are "
              f"data.shorter-side {side} and data.longer-side {longer}")
        check(not sides or side in sides, f"inference.scales are {sides}; they must include data.shorter-side {side}, "
                                          "which is used to propose regions")
        check(bool(self.initialize_from) or not self.detector.frozen_batch_norm or self.detector.backbone == "vgg16",
              "detector.frozen-batch-norm needs pretrained statistics; give the weights with --initialize-from")
        if not self.detector.frozen_batch_norm:
            check_ghosts(self.batch_size, self.detector.ghost_batch_size, "detector.ghost-batch-size")
        self.optimizer.check_length(self.phase_steps)

    @property
    def phase_steps(self) -> int:
        """Return the number of steps in one pass of the learning-rate schedule."""
        return self.steps if self.training == "joint" else self.steps // 4

    @property
    def pyramid(self) -> tuple[float, ...]:
        """Return the test scales relative to `data.shorter_side`."""
        return tuple(side / self.data.shorter_side for side in self.inference.scales) or (1.0,)

    @property
    def title(self) -> str:
        return f"Faster R-CNN, {self.detector.backbone}"

    def differences(self, other: "Detection") -> list[str]:
        """List the fields that differ and affect the results, as `list_differences` does.

        In alternating training, each of the four phases takes a quarter of the steps, so such a run cannot be extended.
        """
        phases = "each phase takes a quarter of the steps" if self.training == "alternating" else ""
        return list_differences(self, other, phases or self.optimizer.fixed)

    def sizes(self) -> None:
        """Return None, because parameters and multiply-adds depend on the images."""

    def work(self) -> float:
        """Count the pixels of all steps, to compare the cost of detectors' runs."""
        return float(self.data.shorter_side * self.data.longer_side * self.steps * self.batch_size)
