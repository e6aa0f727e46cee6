"""Describes, for a plan, the compiled functions ("programs") of a run that trains a detector."""

from collections.abc import Sequence
from functools import partial

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
from resjax.plan.compile import Program, Programs, Workload, array, shaped
from resjax.system.distributed import batch_sharding, replicated
from resjax.training.step import TrainState

TEST_IMAGES = {"VOC2007/test": 4_952, "val2014": 40_504}
MOST = 100  # maximum number of objects per image
ROUNDS = 32  # until suppression settles: the length of the longest chain of boxes in which each one decides the next;
# see docs/results/detection.md


def workload_of(detection: Detection) -> Workload:
    """Describe a detector's run for a plan, assuming the largest padded size for all images, which takes longest."""
    large, common = sizes_of(detection)
    images = sum(TEST_IMAGES.get(name, 0) for name in detection.data.test)
    detector = detection.detector
    ghosts = 1 if detector.frozen_batch_norm else detector.ghost_batch_size
    assumed = (f"Assumptions: every image is padded to {large[0]}x{large[1]} ({common[0]}x{common[1]} holds images of "
               f"up to 4:3). There are {classes_of(detection)} classes, at most {MOST} objects per image, and "
               f"{images:,} test images. Non-maximum suppression takes {ROUNDS} rounds.")
    evaluations = 1 + (detection.steps - 1) // detection.evaluate_steps
    batches = {"train": detection.steps, "detect": evaluations * -(-images // detection.batch_size)}
    return Workload(detector.precision, ("detector.ghost-batch-size", ghosts), partial(programs_of_detector, detection),
                    batches, (assumed,))


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
    images = partial(array, spread, jnp.uint8, detection.batch_size)
    numbers = partial(array, spread, jnp.float32, detection.batch_size)
    flags = array(spread, jnp.bool_, detection.batch_size, MOST)
    objects = Objects(numbers(MOST, 4), array(spread, jnp.int32, detection.batch_size, MOST), flags, flags)
    large, common = sizes_of(detection)
    for size in dict.fromkeys((large, common)):
        name = "" if size == large else f" {size[0]}x{size[1]}"
        lesson = Lesson(AnnotatedBatch(images(*size, 3), numbers(2), objects), phase)
        yield f"train{name}", Program(partial(update.lower, state, lesson), rounds=ROUNDS)
        pyramid = tuple(Level(images(*scaled_size(size, scale), 3), numbers(2)) for scale in detection.pyramid)
        look = partial(detections.lower, model, detection, state.variables, state.mean, pyramid)
        yield f"detect{name}", Program(look, rounds=ROUNDS)
