"""Loads trained detectors from runs, detects objects in images of any size, and evaluates the detections."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resjax.data import decode, normalize
from resjax.data.pictures import read_picture
from resjax.data.preprocessing import one_thread_each
from resjax.detection.annotations import Annotated, AnnotatedImages, Drawn
from resjax.detection.average_precision import (
    Detected,
    average_precisions,
    check_pycocotools,
    coco_precision,
    mean_average_precision,
)
from resjax.detection.config import Detection, Scenery
from resjax.detection.images import Level, Size, pad, padded_size, prepare_image, resized_size, scaled_size
from resjax.detection.improvements import pool_two_scales, regressed_boxes, unite, vote_all
from resjax.detection.networks import FasterRCNN, Pool, pool_regions
from resjax.detection.phases import variables_of
from resjax.detection.proposals import Detections, Predictions, choose_detections, decode_predictions, propose
from resjax.detection.step import Proposed, anchors_of, state_shapes
from resjax.system.files import expanded
from resjax.system.progress import track
from resjax.training.restoration import restore_state
from resjax.training.run_directory import read_described


class TrainedDetector(NamedTuple):
    """A trained detector; `model.apply(variables, images - mean, sizes, choose)` returns its `Outputs`."""

    detection: Detection
    classes: tuple[str, ...]
    model: FasterRCNN
    variables: Any
    mean: np.ndarray


@partial(jax.jit, static_argnums=(0, 1))
def detections(model: FasterRCNN, run: Detection, variables: Any, mean: jax.Array,
               pyramid: tuple[Level, ...]) -> Detections:
    """Detect objects in images at the scales of `run.pyramid`. Regions and detections are in pixels at scale 1."""
    network, rules, base = model.bind(variables), run.sampling, run.pyramid.index(1.0)
    with jax.default_matmul_precision(run.detector.precision):
        maps = [network.features(normalize(level.images, mean, run.data.std)) for level in pyramid]
        sizes, pool = pyramid[base].sizes, pool_of(run, pyramid, maps)
        proposals = propose_all(run, *network.rpn(maps[base]), pyramid[base])

        def look(boxes: jax.Array) -> Predictions:
            said = network.classify(pool, boxes, sizes)
            return jax.vmap(partial(decode_predictions, rules=rules))(*said, boxes, proposals.valid, sizes)

        predictions = look(proposals.boxes)
        if run.inference.box_refinement:
            predictions = unite(predictions, look(regressed_boxes(predictions)))
    chosen = jax.vmap(partial(choose_detections, rules=rules))(predictions)
    return jax.vmap(vote_all)(chosen, predictions) if run.inference.box_refinement else chosen


def propose_all(run: Detection, objectness: jax.Array, deltas: jax.Array, level: Level) -> Proposed:
    """Propose regions in each image of a batch, with the settings for testing."""
    anchors = anchors_of(run.detector, *level.images.shape[1:3])

    def propose_one(scores: jax.Array, deltas: jax.Array, size: jax.Array) -> Proposed:
        return Proposed(*propose(scores, deltas, anchors, size, run.sampling, train=False))

    return jax.vmap(propose_one)(objectness, deltas, level.sizes)


def pool_of(run: Detection, pyramid: Sequence[Level], maps: Sequence[jax.Array]) -> Pool:
    """Return a function that pools boxes (in pixels at scale 1) from the maps of one or two pyramid levels."""
    sizes = pyramid[run.pyramid.index(1.0)].sizes

    def pool_level(features: jax.Array, level: Level, boxes: jax.Array) -> jax.Array:
        growth = jnp.tile((level.sizes / sizes)[:, None, ::-1], 2)  # (height, width) to (x1, y1, x2, y2)
        return pool_regions(run.detector, features, boxes * growth)

    pools = [partial(pool_level, *each) for each in zip(maps, pyramid, strict=True)]
    return partial(pool_two_scales, pools, run.pyramid) if len(pools) > 1 else lambda boxes: [pools[0](boxes)]


def find_all(trained: TrainedDetector, images: AnnotatedImages, batch_size: int = 1) -> list[Detected]:
    """Detect objects in every image of a set; boxes are in the images' original pixels."""
    by_index: dict[int, Detected] = {}
    run, data = trained.detection, trained.detection.data
    rows = list(rows_of(images, data, batch_size))
    variables, mean = jax.device_put((trained.variables, trained.mean))  # copied once, rather than per batch
    with one_thread_each(), ThreadPoolExecutor() as pool:
        for indices, size in track(rows, "detecting", len(rows), batch_size):
            padded = [*indices, *[indices[-1]] * (batch_size - len(indices))]  # gives the last batch the same shape
            pyramid = tuple(
                pad(list(pool.map(partial(prepare_image, images, data=data, scale=scale), padded)),
                    scaled_size(size, scale), trained.mean.reshape(3)) for scale in run.pyramid)
            batch_detections = jax.device_get(detections(trained.model, run, variables, mean, pyramid))
            for i, index in enumerate(indices):
                by_index[index] = own_pixels(Detections(*(part[i] for part in batch_detections)), images, index, data)
    return [by_index[index] for index in range(len(images.records))]


def rows_of(images: AnnotatedImages, data: Scenery, batch_size: int) -> Iterator[tuple[Sequence[int], Size]]:
    """Divide a set into batches, each with one padded size."""
    groups: dict[Size, list[int]] = {}
    for index, record in enumerate(images.records):
        groups.setdefault(padded_size(resized_size(record, data), data), []).append(index)
    for size, indices in sorted(groups.items()):
        for start in range(0, len(indices), batch_size):
            yield indices[start:start + batch_size], size


def own_pixels(detected: Detections, images: AnnotatedImages, index: int, data: Scenery) -> Detected:
    """Scale an image's detections to its original size, and drop empty places."""
    record = images.records[index]
    height, width = resized_size(record, data)
    growth = np.array([record.width / width, record.height / height] * 2, np.float32)
    valid = np.asarray(detected.valid)
    return Detected(np.asarray(detected.boxes)[valid] * growth, np.asarray(detected.scores)[valid],
                    np.asarray(detected.labels)[valid])


def measure_detector(trained: TrainedDetector, images: AnnotatedImages, batch_size: int = 1) -> dict[str, Any]:
    """Measure the average precision in percent, by area, by 11 points and, for COCO's data, as COCO does.

    Raises BadInput, before anything is detected, if COCO's data need pycocotools and it is missing.
    """
    as_coco = trained.detection.data.source.startswith("coco:")
    if as_coco:
        check_pycocotools()
    classes, detected = trained.classes, find_all(trained, images, batch_size)
    by_area, by_points = (average_precisions(images.records, detected, len(classes), rule)
                          for rule in ("area", "11-point"))
    measured = {"mean_average_precision": mean_average_precision(by_area),
                "eleven_point": mean_average_precision(by_points),
                "average_precision": by_class(classes, by_area), "eleven_points": by_class(classes, by_points)}
    if as_coco:
        of_coco = coco_precision(images.records, detected, classes)._asdict()
        measured |= {f"coco_{key}": value for key, value in of_coco.items()}
    return {key: nan_to_none(value) for key, value in measured.items()}


def nan_to_none(value: Any) -> Any:
    """Replace NaN, which means that there are no such objects, by None, because JSON has no NaN."""
    return None if isinstance(value, float) and np.isnan(value) else value


def by_class(classes: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    """Map class names to values; None if a class has no objects."""
    return {name: nan_to_none(float(value)) for name, value in zip(classes, values, strict=True)}


@dataclass(frozen=True)
class Pictures:
    """Image files without annotations, as a data set."""

    classes: tuple[str, ...]
    records: tuple[Annotated, ...]
    images: tuple[np.ndarray, ...]
    remarks: tuple[str, ...] = ()

    def pixels(self, index: int) -> np.ndarray:
        return self.images[index]


def restore_detector(folder: str | Path, device: jax.Device | None = None) -> TrainedDetector:
    """Restore a run's newest checkpoint to one device or, if the run is finished, the checkpoint of its result.

    Raises BadInput if the checkpoint is missing, damaged or of another run. Nothing in the run directory changes.
    """
    folder = expanded(folder)
    detection, (classes,) = read_described(folder, {"classes": tuple[str, ...]}, "detection")
    model = FasterRCNN(detection.detector, len(classes))
    place = jax.sharding.SingleDeviceSharding(device or jax.local_devices()[0])
    state = restore_state(folder, detection, state_shapes(place, detection, len(classes)), place)
    return TrainedDetector(detection, classes, model, variables_of(state), np.asarray(state.mean))


def find_in(file: Path, trained: TrainedDetector) -> tuple[np.ndarray, Detected]:
    """Detect objects in an image file; return its pixels uint8 `[height, width, 3]` and the detections.

    Raises BadInput, naming the file, if it is missing or not an image.
    """
    pixels = decode(read_picture(file), str(file))
    pictures = Pictures(trained.classes, (Drawn(str(file), *pixels.shape[:2]).record(),), (pixels,))
    return pixels, find_all(trained, pictures)[0]
