"""A detector's detections in images of any size, and what they are worth."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from resjax.data import normalize
from resjax.detection.annotations import AnnotatedImages
from resjax.detection.average_precision import Found
from resjax.detection.config import Detection, Scenery
from resjax.detection.images import Size, assemble, padded_size, prepare, resized_size
from resjax.detection.networks import FasterRCNN
from resjax.detection.proposals import Detections, detect, propose
from resjax.detection.step import Proposed, anchors_of
from resjax.progress import shown


class TrainedDetector(NamedTuple):
    """A detector as a value: `model.apply(variables, images - mean, choose)` are its `Outputs`."""

    detection: Detection
    classes: tuple[str, ...]
    model: FasterRCNN
    variables: Any
    mean: np.ndarray


@partial(jax.jit, static_argnums=(0, 1))
def detections(model: FasterRCNN, run: Detection, variables: Any, mean: jax.Array, images: jax.Array,
               sizes: jax.Array) -> Detections:
    """Detect in images uint8 `[batch, height, width, 3]`, of which `sizes` `[batch, 2]` are filled."""
    anchors, rules = anchors_of(model.detector, *images.shape[1:3]), run.sampling
    propose_one = partial(propose, anchors=anchors, rules=rules, train=False)

    def choose(objectness: jax.Array, deltas: jax.Array) -> Proposed:
        return Proposed(*jax.vmap(lambda scores, deltas, size: propose_one(scores, deltas, size=size))(
            objectness, deltas, sizes))

    with jax.default_matmul_precision(run.detector.precision):
        outputs: Any = model.apply(variables, normalize(images, mean, run.data.std), choose)
    return jax.vmap(partial(detect, rules=rules))(outputs.logits, outputs.deltas, outputs.regions.boxes,
                                                  outputs.regions.valid, sizes)


def find_all(trained: TrainedDetector, images: AnnotatedImages, batch_size: int = 1) -> list[Found]:
    """Detect in every image of a set; boxes are in the images' own pixels."""
    found: dict[int, Found] = {}
    run, data = trained.detection, trained.detection.data
    rows = list(rows_of(images, data, batch_size))
    with ThreadPoolExecutor() as pool:
        for indices, size in shown(rows, "detecting", len(rows), batch_size):
            padded = [*indices, *[indices[-1]] * (batch_size - len(indices))]  # one shape for the last batch too
            prepared = list(pool.map(lambda index: prepare(images, index, data), padded))
            most = max(1, max(len(record.boxes) for _, record in prepared))
            batch = assemble(prepared, size, most, trained.mean.reshape(3))
            all_found = jax.device_get(detections(trained.model, run, trained.variables, trained.mean, batch.images,
                                                  batch.sizes))
            for i, index in enumerate(indices):
                found[index] = own_pixels(Detections(*(part[i] for part in all_found)), images, index, data)
    return [found[index] for index in range(len(images.records))]


def rows_of(images: AnnotatedImages, data: Scenery, batch_size: int) -> Iterator[tuple[Sequence[int], Size]]:
    """Divide a set into batches of one padded size each."""
    groups: dict[Size, list[int]] = {}
    for index, record in enumerate(images.records):
        groups.setdefault(padded_size(resized_size(record, data), data), []).append(index)
    for size, indices in sorted(groups.items()):
        for start in range(0, len(indices), batch_size):
            yield indices[start:start + batch_size], size


def own_pixels(detected: Detections, images: AnnotatedImages, index: int, data: Scenery) -> Found:
    """Bring an image's detections back to its own size, without empty places."""
    record = images.records[index]
    height, width = resized_size(record, data)
    growth = np.array([record.width / width, record.height / height] * 2, np.float32)
    valid = np.asarray(detected.valid)
    return Found(np.asarray(detected.boxes)[valid] * growth, np.asarray(detected.scores)[valid],
                 np.asarray(detected.labels)[valid])
