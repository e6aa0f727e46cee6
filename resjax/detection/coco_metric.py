"""COCO's measure of a detector, by COCO's own code: the package pycocotools, an extra."""

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from resjax.detection.annotations import Annotated
from resjax.detection.average_precision import Found
from resjax.errors import check


class COCOPrecision(NamedTuple):
    """Average precision in percent: over overlaps of 0.50 to 0.95, at 0.5, at 0.75; of small, medium, large objects.

    nan where no such object is there.
    """

    average: float
    at_half: float
    at_three_quarters: float
    small: float
    medium: float
    large: float


def coco_precision(records: Sequence[Annotated], found: Sequence[Found], classes: Sequence[str]) -> COCOPrecision:
    """Measure detections, at most 100 an image. Raises BadInput where pycocotools is not installed."""
    check_installed()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it tells of every part
        truth = COCO()
        truth.dataset = annotations(records, classes)
        truth.createIndex()
        entries = results(found)
        if not entries:  # which pycocotools cannot load
            return COCOPrecision(*[0.0] * 3, *[float("nan")] * 3)
        evaluation = COCOeval(truth, truth.loadRes(entries), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return COCOPrecision(*(float("nan") if value < 0 else 100 * float(value) for value in evaluation.stats[:6]))


def check_installed() -> None:
    """Raise BadInput where pycocotools is not installed."""
    check(importlib.util.find_spec("pycocotools") is not None,
          "COCO's measure needs the package pycocotools: pip install 'resjax[coco]'")


def annotations(records: Sequence[Annotated], classes: Sequence[str]) -> dict[str, Any]:
    """Write records as COCO does; images are numbered from 1 on, and a difficult object counts as a crowd."""
    objects = [{"image_id": image, "category_id": int(label), "iscrowd": int(crowd or difficult), "area": float(area),
                "bbox": corner_and_sides(box)}
               for image, record in enumerate(records, 1)
               for box, label, crowd, difficult, area in zip(record.boxes, record.labels, record.crowd,
                                                             record.difficult, record.areas, strict=True)]
    return {"info": {}, "images": [{"id": image} for image in range(1, len(records) + 1)],
            "categories": [{"id": label, "name": name} for label, name in enumerate(classes, 1)],
            "annotations": [{"id": number, **entry} for number, entry in enumerate(objects, 1)]}


def results(found: Sequence[Found]) -> list[dict[str, Any]]:
    """Write detections as COCO does."""
    return [{"image_id": image, "category_id": int(label), "score": float(score), "bbox": corner_and_sides(box)}
            for image, detected in enumerate(found, 1)
            for box, score, label in zip(detected.boxes, detected.scores, detected.labels, strict=True)]


def corner_and_sides(box: np.ndarray) -> list[float]:
    """Turn a box into x, y, width, height."""
    x1, y1, x2, y2 = np.asarray(box, np.float64).tolist()
    return [x1, y1, x2 - x1, y2 - y1]
