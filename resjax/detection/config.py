"""A detection run as a value: the network, its rules, the data and the training; frozen, checked when it is made."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple

from resjax.experiment import Optimizer
from resjax.experiment.fields import Count, In32Bits, Natural, NonNegative, Positive
from resjax.models.variants import Block, StrideIn
from resjax.system.errors import check
from resjax.system.serialization import Must, Named, check_fields, check_ghosts, check_source, list_differences

Overlap = Annotated[float, Must("be an overlap, within (0, 1]", lambda x: 0 < x <= 1)]
SomeNumbers = Annotated[tuple[Positive, ...], Must("be one number or several", len)]
SomeNames = Annotated[tuple[str, ...], Must("name one set of images or several", len)]


class Backbone(NamedTuple):
    """A residual network by its blocks, of which the last stage works on regions and the others on images."""

    block: Block
    blocks: tuple[int, ...]
    filters: int


RESNETS = {
    "resnet50": Backbone("bottleneck", (3, 4, 6, 3), 64),
    "resnet101": Backbone("bottleneck", (3, 4, 23, 3), 64),
    "resnet18": Backbone("basic", (2, 2, 2, 2), 64),
    "small": Backbone("basic", (2, 2, 2), 32),  # stride 8, to train from scratch on a few hundred images
    "tiny": Backbone("basic", (1, 1, 1), 16)}


@dataclass(frozen=True, kw_only=True)
class Detector(Named):
    """Faster R-CNN with a residual network (appendix A of the paper), or with VGG-16 as in Ren et al. 2015."""

    backbone: Literal["vgg16", "resnet50", "resnet101", "resnet18", "small", "tiny"] = "resnet101"
    """small and tiny are narrower residual networks, with a stride of 8 pixels in place of 16."""
    anchor_sizes: SomeNumbers = (128.0, 256.0, 512.0)
    """Square roots of the anchors' areas, in pixels of the resized image."""
    anchor_ratios: SomeNumbers = (0.5, 1.0, 2.0)
    """Heights of the anchors over their widths."""
    pooling: Literal["max", "align"] = "max"
    """How regions are pooled: max as in the paper, or align, without rounding (He et al. 2017)."""
    stride_in: StrideIn = "1x1"
    """Which convolution of a bottleneck has the stride: the first 1x1 as in the paper, or the 3x3."""
    frozen_batch_norm: bool = True
    """Keep the batch statistics of the pretrained weights, as appendix A does; otherwise use those of the batch."""
    ghost_batch_size: Count = 1
    """Images that share batch-norm statistics where they are not frozen."""
    frozen_stages: Natural = 0
    """How many stages are frozen, from the input on; in ResNets the first is conv1."""
    rpn_channels: Count = 512
    """Channels of the 3x3 convolution before the proposals."""
    hidden: Count = 4096
    """Units of VGG-16's two fully connected layers."""
    global_context: bool = False
    """Join the features of the whole image to those of each region (appendix B)."""
    precision: Literal["float32", "tensorfloat32"] = "float32"
    """The precision of convolutions and fully connected layers, where the device has a choice."""

    def __post_init__(self) -> None:
        check_fields(self, "detector.")

    @property
    def stride(self) -> int:
        """Count the pixels between two positions of the shared map."""
        return 16 if self.backbone == "vgg16" else 4 * 2 ** (len(RESNETS[self.backbone].blocks) - 2)


@dataclass(frozen=True, kw_only=True)
class Sampling(Named):
    """Thresholds and counts of Faster R-CNN (Ren et al. 2015): what is proposed, learnt from and detected."""

    anchors: Count = 256
    """Anchors of an image that are sampled for a step, at most half of them positive."""
    anchor_positive: Overlap = 0.7
    """The least overlap (IoU) with an object that makes an anchor positive."""
    anchor_negative: Overlap = 0.3
    """An anchor is background if its overlap with every object is below this."""
    suppression: Overlap = 0.7
    """The overlap above which the higher-scoring of two proposals suppresses the other."""
    smallest: NonNegative = 16.0
    """The shortest side of a proposal, in pixels."""
    train_candidates: Count = 12_000
    """The highest-scoring anchors of an image that enter suppression in training."""
    train_proposals: Count = 2_000
    """The most proposals of an image that are kept after suppression in training."""
    test_candidates: Count = 6_000
    """The highest-scoring anchors of an image that enter suppression in testing."""
    test_proposals: Count = 300
    """The most proposals of an image that are kept after suppression in testing."""
    rois: Count = 128
    """Regions of an image that are sampled for a step, at most a quarter of them with an object."""
    foreground: Overlap = 0.5
    """The least overlap with an object that makes a region foreground."""
    background: tuple[float, float] = (0.0, 0.5)
    """The overlaps that make a region background: from 0 as in later versions; the first began at 0.1."""
    deviations: tuple[Positive, Positive, Positive, Positive] = (0.1, 0.1, 0.2, 0.2)
    """Divisors of the box regression targets, which bring their variance to about 1."""
    class_suppression: Overlap = 0.3
    """The overlap above which the higher-scoring of two detections of a class suppresses the other."""
    lowest_score: NonNegative = 0.01
    """The lowest score of a detection, 0 to 1."""
    detections: Count = 100
    """The most detections of an image."""

    def __post_init__(self) -> None:
        check_fields(self, "sampling.")
        check(self.anchor_negative <= self.anchor_positive,
              "sampling.anchor-negative is above sampling.anchor-positive")
        check(0 <= self.background[0] < self.background[1] <= 1,
              f"sampling.background is {self.background}; it is two overlaps that rise within [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Scenery(Named):
    """Images with boxes: where they come from, and how they are resized."""

    source: str = "voc:PATH"
    """`voc:PATH` (JPEGImages, Annotations, ImageSets; in PATH, or in folders such as VOC2007 in it), `coco:PATH`
    (annotations/instances_SET.json and the folder SET of images) or `scenes` (composed of the embedded digits)."""
    train: SomeNames = ("VOC2007/trainval", "VOC2012/trainval")
    """The sets of images to train on: FOLDER/SET of VOC's layout, or SET where PATH has no such folders."""
    test: SomeNames = ("VOC2007/test",)
    """The sets of images to measure on."""
    classes: tuple[str, ...] = ()
    """The names of the classes; unset, those of the training images."""
    shorter_side: Annotated[int, Must("be at least 32", lambda n: n >= 32), In32Bits] = 600
    """The shorter side of the resized images, in pixels."""
    longer_side: Count = 1_000
    """The largest longer side, in pixels; the shorter side is reduced where it would be exceeded."""
    std: tuple[Positive, ...] = ()
    """Divisors of the colours, for weights made elsewhere; the paper divides by nothing."""
    flip: bool = True
    """Mirror half of the training images, at random."""

    def __post_init__(self) -> None:
        check_fields(self, "data.")
        check_source(self.source, "voc:PATH", "coco:PATH", "scenes")
        check(self.shorter_side <= self.longer_side,
              f"data.shorter-side is {self.shorter_side}; it is at most data.longer-side {self.longer_side}")
        check(len(self.std) in (0, 3), f"data.std is {self.std}; it is empty, or a number for each of three colours")


@dataclass(frozen=True, kw_only=True)
class Inference(Named):
    """How detections are computed in testing; the defaults are the baseline of Table 9."""

    box_refinement: bool = False
    """Classify and regress each refined box once more, merge both sets, and average boxes by vote (appendix B)."""
    scales: Annotated[tuple[Count, ...], Must("be empty, or rise from one side to the last",
                                              lambda sides: len(sides) != 1 and list(sides) == sorted(set(sides)))] = ()
    """The shorter sides of multi-scale testing, in pixels; unset, `data.shorter-side` is the only one."""

    def __post_init__(self) -> None:
        check_fields(self, "inference.")


@dataclass(frozen=True, kw_only=True)
class Detection(Named):
    """Everything that decides a detector's training: two equal runs give the same bits on the same machine.

    The defaults are those of the paper for VOC 07+12, but for the weights to start from.
    """

    kind = "detection"

    name: str
    """The run's name in its result and in tables."""
    detector: Detector = field(default_factory=Detector)
    sampling: Sampling = field(default_factory=Sampling)
    inference: Inference = field(default_factory=Inference)
    data: Scenery = field(default_factory=Scenery)
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(
        learning_rate=0.001, decay_steps=(80_000,), weight_decay=5e-4))
    training: Literal["joint", "alternating"] = "joint"
    """joint: train proposals and detections together. alternating: the four steps of Ren et al. 2015, each a quarter of
    `steps` with its own learning-rate schedule."""
    initialize_from: str = ""
    """Pre-trained weights: a run directory, a file, or OWNER/NAME on the Hugging Face Hub. Unset: random."""
    seed: Annotated[int, Must("lie in 0 ... 4294967295", lambda seed: 0 <= seed < 2**32)] = 0
    """The seed of the initial parameters and of every batch."""
    steps: Count = 110_000
    """Updates of the parameters."""
    batch_size: Count = 1
    """Images of a step."""
    log_steps: Count = 20
    """Steps between two lines of the log; each is the mean over them."""
    evaluate_steps: Count = 110_000
    """Steps between two evaluations of the test images."""
    checkpoint_steps: Count = 1_000
    """Steps between two checkpoints; one more is written at the end, and when the run is interrupted."""

    def __post_init__(self) -> None:
        check_fields(self)
        check(self.optimizer.backbone_rate == 1,
              "optimizer.backbone-rate is for classifiers; detector.frozen-stages keeps layers as they are")
        check(self.optimizer.ema_decay == 0, "optimizer.ema-decay is for classifiers")
        if self.training == "alternating":
            check(self.steps % 4 == 0, f"steps is {self.steps}; alternating training has four parts, all equally long")
            check(self.detector.frozen_batch_norm, "alternating training keeps layers as they are: it needs "
                                                   "detector.frozen-batch-norm")
        sides, side = self.inference.scales, self.data.shorter_side
        check(not sides or side in sides, f"inference.scales are {sides}; one of them is data.shorter-side {side}, at "
                                          "which regions are proposed")
        check(bool(self.initialize_from) or not self.detector.frozen_batch_norm or self.detector.backbone == "vgg16",
              "detector.frozen-batch-norm keeps the statistics of the weights that --initialize-from names, and none "
              "are named")
        ghosts = self.detector.ghost_batch_size
        if not self.detector.frozen_batch_norm:
            check_ghosts(self.batch_size, ghosts, "detector.ghost-batch-size")
        self.optimizer.check_length(self.phase_steps)

    @property
    def phase_steps(self) -> int:
        """Count the steps in which the learning rate runs once through its schedule."""
        return self.steps if self.training == "joint" else self.steps // 4

    @property
    def pyramid(self) -> tuple[float, ...]:
        """List the scales at which an image is tested, relative to `data.shorter_side`."""
        return tuple(side / self.data.shorter_side for side in self.inference.scales) or (1.0,)

    @property
    def title(self) -> str:
        return f"Faster R-CNN, {self.detector.backbone}"

    def differences(self, other: "Detection") -> list[str]:
        """Name the fields by which the two lead to different results; see `list_differences`.

        The four steps of alternating training are quarters, so such a run is never made longer.
        """
        longer = self.training == "joint" and self.optimizer.schedule == "steps"
        return list_differences(self, other, longer)

    def sizes(self) -> None:
        """Return nothing: parameters and multiply-adds depend on the images."""

    def work(self) -> float:
        """Count the pixels of all steps, by which the time that detectors take compares."""
        return float(self.data.shorter_side * self.data.longer_side * self.steps * self.batch_size)
