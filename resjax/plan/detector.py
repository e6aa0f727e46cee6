"""The programs of a detector's run, for a plan."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from resjax.detection.config import Detection
from resjax.detection.detectors import classes_of, first_state
from resjax.detection.evaluate import detections
from resjax.detection.images import AnnotatedBatch, Level, Size, padded_sizes, scaled_size
from resjax.detection.networks import FasterRCNN
from resjax.detection.phases import Lesson, phases_of
from resjax.detection.step import optimizer_of, train_step
from resjax.detection.targets import Objects
from resjax.plan.compile import Program, Programs, shaped
from resjax.plan.figures import Figures
from resjax.plan.plan import Workload
from resjax.system.distributed import batch_sharding, replicated
from resjax.training.step import TrainState

TEST_IMAGES = {"VOC2007/test": 4_952, "val2014": 40_504}
MOST = 100  # objects per image
ROUNDS = 32  # until suppression settles: the length of the longest chain of boxes in which each one decides the next;
# see docs/results/detection.md


def workload_of(detection: Detection) -> Workload:
    """Describe a detector's run for a plan, with images of the largest padded size, which take longest."""
    large, common = sizes_of(detection)
    images = sum(TEST_IMAGES.get(name, 0) for name in detection.data.test)
    detector = detection.detector
    ghosts = 1 if detector.frozen_batch_norm else detector.ghost_batch_size
    assumed = (f"Assumptions: every image is padded to {large[0]}x{large[1]} ({common[0]}x{common[1]} holds images of "
               "up to "
               f"4:3). There are {classes_of(detection)} classes, at most {MOST} objects per image, and {images:,} "
               "test "
               f"images. Non-maximum suppression takes {ROUNDS} rounds.")
    return Workload(detection, detector.precision, ("detector.ghost-batch-size", ghosts), programs_of_detector,
                    partial(hours, detection, images), (assumed,))


def sizes_of(detection: Detection) -> tuple[Size, Size]:
    """Return the padded sizes of long images and of those of up to 4:3, in landscape format."""
    lying = padded_sizes(detection.data)[::2]
    return lying[-1], lying[0]


def programs_of_detector(detection: Detection, devices: Sequence[jax.Device]) -> Programs:
    """Return the programs "train" and "detect" for the largest padded size, then those for images of up to 4:3."""
    spread = batch_sharding(devices)
    whole = replicated(spread)
    model, phases = FasterRCNN(detection.detector, classes_of(detection)), phases_of(detection)
    phase = phases[min(1, len(phases) - 1)]  # the most expensive phase: with alternating training, the detector's first
    state: TrainState = shaped(first_state(detection), whole)
    update = jax.jit(partial(train_step, model, optimizer_of(detection, phase), detection), donate_argnums=0,
                     out_shardings=whole)
    large, common = sizes_of(detection)
    for size in dict.fromkeys((large, common)):
        batch: Any = shaped(described(detection.batch_size, size), spread)
        name = "" if size == large else f" {size[0]}x{size[1]}"
        yield f"train{name}", Program(partial(update.lower, state, Lesson(batch, phase)), 1, ROUNDS)
        count = detection.batch_size
        pyramid: Any = shaped(tuple(Level(jax.ShapeDtypeStruct((count, *scaled_size(size, scale), 3), jnp.uint8),
                                          jax.ShapeDtypeStruct((count, 2), jnp.float32))
                                    for scale in detection.pyramid), spread)
        look = partial(detections.lower, model, detection, state.variables, state.mean, pyramid)
        yield f"detect{name}", Program(look, 1, ROUNDS)


def described(count: int, size: Size) -> Any:
    """Describe a batch of `count` images of a padded size."""
    def array(kind: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((count, *shape), kind)

    flags = array(jnp.bool_, MOST)
    objects = Objects(array(jnp.float32, MOST, 4), array(jnp.int32, MOST), flags, flags)
    return AnnotatedBatch(array(jnp.uint8, *size, 3), array(jnp.float32, 2), objects)


def hours(detection: Detection, images: int, programs: dict[str, Figures]) -> dict[str, float]:
    """Return the minimum hours of a run: its steps and all its evaluations."""
    evaluations = 1 + (detection.steps - 1) // detection.evaluate_steps
    batches = -(-images // detection.batch_size)
    seconds = {"train": detection.steps * programs["train"].seconds,
               "detect": evaluations * batches * programs["detect"].seconds}
    return {name: value / 3600 for name, value in seconds.items()}
