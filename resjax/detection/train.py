"""Trains a detector, by connecting the training loop to the network, the annotated images and the evaluation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from resjax.detection.annotations import AnnotatedImages, identity_of
from resjax.detection.average_precision import check_pycocotools
from resjax.detection.config import Detection
from resjax.detection.evaluate import TrainedDetector, measure_detector
from resjax.detection.images import Batches, open_annotated
from resjax.detection.initialize import Weights, initial_weights, start_from
from resjax.detection.networks import FasterRCNN
from resjax.detection.phases import Lesson, phase_at, variables_of
from resjax.detection.stated import remark_on_leakage
from resjax.detection.step import draw_onto, optimizer_of, train_step
from resjax.detection.targets import LOSSES, PROPOSAL_LOSSES, REGION_LOSSES
from resjax.system.distributed import batch_sharding, replicated
from resjax.system.files import expanded
from resjax.training import loop
from resjax.training.log import Line, Log, RunningMetrics
from resjax.training.run_directory import check_images, has_checkpoint, write_run
from resjax.training.step import TrainState


def train_detector(detection: Detection, run_directory: str | Path,
                   devices: Sequence[jax.Device] | None = None, tensorboard: Path | None = None) -> dict[str, Any]:
    """Train a detector or resume its training; return the contents of `result.json`. See `resjax.train`."""
    return loop.train(detection, expanded(run_directory), partial(open_faster_rcnn, detection),
                      devices or jax.devices(), None if tensorboard is None else expanded(tensorboard))


@dataclass(frozen=True)
class RunningLosses(RunningMetrics):
    """Sums of the losses and of the regions' error over all images since the last line of the log."""

    anchor_class: float = 0.0
    anchor_box: float = 0.0
    region_class: float = 0.0
    region_box: float = 0.0
    error: float = 0.0
    without_anchors: int = 0
    without_regions: int = 0

    def means(self) -> Line:
        """Return the mean of each loss over the images for which it was computed; others are left out.

        The total loss is the mean over all images of the sum of the losses that were computed.
        """
        anchors, regions = self.images - self.without_anchors, self.images - self.without_regions
        counts = dict.fromkeys(PROPOSAL_LOSSES, anchors) | dict.fromkeys((*REGION_LOSSES, "error"), regions)
        return {"loss": sum(getattr(self, name) for name in LOSSES) / self.images,
                **{name: getattr(self, name) / count for name, count in counts.items() if count}}


@dataclass(frozen=True)
class DetectionTask:
    """The task of training a detector on annotated images and evaluating it on others.

    `weights` are those to start from, which a run that resumes does not need.
    """

    detection: Detection
    images: AnnotatedImages
    test: AnnotatedImages
    identity: dict[str, Any]
    model: FasterRCNN
    weights: Weights | None
    sharding: NamedSharding
    log: Log

    metrics = RunningLosses
    watch = None

    def first(self) -> TrainState:
        """Initialise the state on the devices, with a mean colour of 0."""
        place, mean = replicated(self.sharding), np.zeros((1, 1, 3), np.float32)
        first: TrainState = draw_onto(place, self.detection, self.model.classes, mean)
        return first

    def start(self, first: TrainState) -> TrainState:
        """Put the mean colour and the pretrained weights, if any, into the initial state."""
        return start_from(self.weights or initial_weights(self.detection, self.images), first)

    def describe(self) -> None:
        """Write `experiment.json`."""
        about = {"classes": self.identity["classes"], "images": self.identity}
        write_run(self.log.run_directory, self.detection, about, list(self.sharding.mesh.devices.flat))

    @contextmanager
    def inputs(self, state: TrainState, steps: range) -> Iterator[Iterator[tuple[int, Lesson]]]:
        """Open the batches of some steps, each copied to the devices while they compute the previous step."""
        run, ground = self.detection, np.asarray(state.mean).reshape(3)
        made = Batches(self.images, run.data, run.batch_size, run.seed, ground)
        place = partial(jax.make_array_from_process_local_data, self.sharding)
        with closing(made.steps(steps, jax.process_index(), jax.process_count())) as batches:
            yield ((1, Lesson(jax.tree.map(place, batch), phase_at(run, step)))
                   for step, batch in zip(steps, batches, strict=True))

    def pack(self, state: TrainState) -> TrainState:
        """Return the state unchanged, because steps are few and long."""
        return state

    def unpack(self, packed: TrainState) -> TrainState:
        return packed

    def lower(self, count: int, packed: TrainState, inputs: Any) -> Any:
        """Lower the step of one phase for images of one padded size. The step takes over the state's memory."""
        optimizer = optimizer_of(self.detection, inputs.phase)
        update = partial(train_step, self.model, optimizer, self.detection)
        return jax.jit(update, donate_argnums=0, out_shardings=packed.step.sharding).lower(packed, inputs)

    def average(self, state: TrainState, heed: Callable[[], None]) -> TrainState:
        """Return the state unchanged, because batch norm is frozen or its moving averages span many small batches."""
        return state

    def prolong(self, state: TrainState) -> TrainState:
        return state

    def measure(self, state: TrainState, last: bool) -> list[Line]:
        """Measure the average precision on the test images."""
        variables, mean = jax.device_get((variables_of(state), state.mean))
        trained = TrainedDetector(self.detection, self.test.classes, self.model, variables, mean)
        return [{"kind": "detection", **measure_detector(trained, self.test, self.detection.batch_size)}]

    def result(self, lines: list[Line]) -> Line:
        """Return the average precisions, and the number of parameters without those used only in training."""
        params = variables_of(jax.eval_shape(self.first))["params"]
        return {"parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
                **{key: value for line in lines for key, value in line.items() if key not in ("step", "kind")}}


def remark_on_decay(run: Detection) -> str:
    """Say that the learning rate never drops if `decay_steps`, which count in each phase, are beyond its end."""
    first = min(run.optimizer.decay_steps, default=0)
    never = run.training == "alternating" and run.optimizer.schedule == "steps" and first >= run.phase_steps
    return (f"the learning rate never drops: optimizer.decay-steps start at {first:,}, but each of the four phases has "
            f"{run.phase_steps:,} steps") if never else ""


def open_faster_rcnn(detection: Detection, devices: Sequence[jax.Device], log: Log) -> DetectionTask:
    """Open a run's images and, unless it resumes, load its pretrained weights.

    Raises BadInput for invalid images or weights.
    """
    if detection.data.source.startswith("coco:"):
        check_pycocotools()  # check now rather than at the end of the run
    images = open_annotated(detection.data, train=True)
    test = open_annotated(detection.data, train=False, classes=images.classes)
    for text in (*images.remarks, *test.remarks, remark_on_leakage(images, test), remark_on_decay(detection)):
        log.tell(text)
    identity = identity_of(images, test)
    check_images(log.run_directory, identity)
    weights = None if has_checkpoint(log.run_directory) else initial_weights(detection, images)
    return DetectionTask(detection, images, test, identity, FasterRCNN(detection.detector, len(images.classes)),
                         weights, batch_sharding(devices), log)
