"""Computes average precision.

VOC's average precision is computed per class, by the 11-point rule of VOC 2007 or as the area under the
precision-recall curve. COCO's is computed by pycocotools. The code runs on the host, because the number of detections
varies. Difficult objects are ignored.
"""

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from resjax.detection.annotations import Annotated
from resjax.system.errors import check

Rule = Literal["11-point", "area"]


class Detected(NamedTuple):
    """The detections in an image: boxes `[n, 4]` in the image's pixels, scores `[n]`, classes `[n]` counted from 1."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def average_precisions(records: Sequence[Annotated], detections: Sequence[Detected], classes: int,
                       rule: Rule = "area", overlap: float = 0.5) -> np.ndarray:
    """Compute the average precision of every class `[classes]`, in percent; NaN for a class without objects.

    Detections are judged in the order of decreasing score. A detection is correct if it overlaps its closest object by
    at least `overlap` and this object has not been found before. A detection of a difficult object is ignored. A crowd
    counts as difficult.
    """
    return np.array([class_precision(records, detections, label, rule, overlap) for label in range(1, classes + 1)])


def mean_average_precision(precisions: np.ndarray) -> float:
    """Average the precisions of the classes that have objects, in percent; NaN if there are none."""
    there = precisions[~np.isnan(precisions)]
    return float(there.mean()) if there.size else float("nan")


def class_precision(records: Sequence[Annotated], detections: Sequence[Detected], label: int, rule: Rule,
                    overlap: float) -> float:
    """Compute one class's average precision in percent."""
    objects = 0
    scores, right, left_out = [], [], []
    for record, image in zip(records, detections, strict=True):
        mine, theirs = record.labels == label, image.labels == label
        ignored = (record.difficult | record.crowd)[mine]
        objects += int((~ignored).sum())
        order = np.argsort(-image.scores[theirs], kind="stable")
        hits = match(image.boxes[theirs][order], record.boxes[mine], ignored, overlap)
        scores.append(image.scores[theirs][order])
        right.append(hits == 1)
        left_out.append(hits == -1)
    if not objects:
        return float("nan")
    score, hit, out = (np.concatenate(parts) for parts in (scores, right, left_out))
    order = np.argsort(-score, kind="stable")
    hit = hit[order][~out[order]]
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return 100 * average_over_recalls(np.cumsum(hit) / objects, precision, rule)


def match(boxes: np.ndarray, objects: np.ndarray, ignored: np.ndarray, overlap: float) -> np.ndarray:
    """Judge an image's detections of a class, sorted by score: `[n]`, 1 for correct, 0 for wrong, -1 for ignored."""
    judged, taken = np.zeros(len(boxes), int), np.zeros(len(objects), bool)
    if not len(objects):
        return judged
    for i, row in enumerate(overlaps(boxes, objects)):
        best = int(row.argmax())
        if row[best] < overlap:
            continue
        if ignored[best]:
            judged[i] = -1
        elif not taken[best]:
            judged[i], taken[best] = 1, True
    return judged


def overlaps(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Compute intersection over union `[n, m]`, in float64."""
    boxes, objects = (np.asarray(part, np.float64).reshape(-1, 4) for part in (boxes, objects))
    low, high = np.maximum(boxes[:, None, :2], objects[:, :2]), np.minimum(boxes[:, None, 2:], objects[:, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    sizes, others = ((part[:, 2:] - part[:, :2]).prod(-1) for part in (boxes, objects))
    over: np.ndarray = shared / np.maximum(sizes[:, None] + others - shared, 1e-12)
    return over


def average_over_recalls(recall: np.ndarray, precision: np.ndarray, rule: Rule) -> float:
    """Average the highest precision that is reached at each recall or above, over 11 recalls or over all recalls."""
    if rule == "11-point":
        return float(np.mean([max(precision[recall >= level - 1e-9], default=0.0) for level in np.linspace(0, 1, 11)]))
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * highest).sum())


class COCOPrecision(NamedTuple):
    """Average precision in percent, averaged over overlaps of 0.50 to 0.95, at 0.5, at 0.75, and by size of objects.

    A value is NaN if there are no such objects.
    """

    average: float
    at_half: float
    at_three_quarters: float
    small: float
    medium: float
    large: float


def coco_precision(records: Sequence[Annotated], detections: Sequence[Detected],
                   classes: Sequence[str]) -> COCOPrecision:
    """Evaluate at most 100 detections per image. Raises BadInput if pycocotools is not installed."""
    check_pycocotools()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # COCOeval prints every step
        truth, results = COCO(), COCO()
        truth.dataset = coco_annotations(records, classes)
        results.dataset = {**truth.dataset, "annotations": coco_results(detections)}
        for part in (truth, results):
            part.createIndex()
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return COCOPrecision(*(float("nan") if value < 0 else 100 * float(value) for value in evaluation.stats[:6]))


def check_pycocotools() -> None:
    """Raise BadInput if pycocotools is not installed."""
    check(importlib.util.find_spec("pycocotools") is not None,
          "COCO's average precision needs the package pycocotools: pip install 'resjax[coco]'")


def coco_annotations(records: Sequence[Annotated], classes: Sequence[str]) -> dict[str, Any]:
    """Convert records to COCO's format. Images are numbered from 1, and difficult objects become crowds."""
    objects = [{"image_id": image, "category_id": int(label), "iscrowd": int(crowd or difficult), "area": float(area),
                "bbox": corner_and_sides(box)}
               for image, record in enumerate(records, 1)
               for box, label, crowd, difficult, area in zip(record.boxes, record.labels, record.crowd,
                                                             record.difficult, record.areas, strict=True)]
    return {"info": {}, "images": [{"id": image} for image in range(1, len(records) + 1)],
            "categories": [{"id": label, "name": name} for label, name in enumerate(classes, 1)],
            "annotations": [{"id": number, **entry} for number, entry in enumerate(objects, 1)]}


def coco_results(detections: Sequence[Detected]) -> list[dict[str, Any]]:
    """Convert detections to COCO results, with the fields that COCO's loader would add; it fails without detections."""
    entries = [{"image_id": image, "category_id": int(label), "score": float(score), "bbox": corner_and_sides(box)}
               for image, detected in enumerate(detections, 1)
               for box, score, label in zip(detected.boxes, detected.scores, detected.labels, strict=True)]
    return [{"id": number, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3], **entry}  # type: ignore[index]
            for number, entry in enumerate(entries, 1)]


def corner_and_sides(box: np.ndarray) -> list[float]:
    """Convert a box to x, y, width, height."""
    x1, y1, x2, y2 = np.asarray(box, np.float64).tolist()
    return [x1, y1, x2 - x1, y2 - y1]
