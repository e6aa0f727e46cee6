"""VOC's measure of a detector: average precision of every class, by the 11-point rule of 2007 or by area.

On the host, as detections come in any number. Difficult objects count neither way.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from resjax.detection.annotations import Annotated

Rule = Literal["11-point", "area"]


class Found(NamedTuple):
    """The detections in an image: boxes `[n, 4]` in its own pixels, scores `[n]`, classes from 1 on `[n]`."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def average_precisions(records: Sequence[Annotated], found: Sequence[Found], classes: int, rule: Rule = "area",
                       overlap: float = 0.5) -> np.ndarray:
    """Compute the average precision of every class `[classes]`, in percent; nan where no object counts.

    From the best score down, a detection is right if the object it overlaps most is overlapped by at least `overlap`
    and was not found before; it is left out if that object is difficult. A crowd counts as difficult.
    """
    return np.array([class_precision(records, found, label, rule, overlap) for label in range(1, classes + 1)])


def mean_average_precision(precisions: np.ndarray) -> float:
    """Average over the classes of which objects are there, in percent; 0 where there are none."""
    there = precisions[~np.isnan(precisions)]
    return float(there.mean()) if there.size else 0.0


def class_precision(records: Sequence[Annotated], found: Sequence[Found], label: int, rule: Rule,
                    overlap: float) -> float:
    """Compute one class's average precision in percent."""
    objects = 0
    scores, right, left_out = [], [], []
    for record, image in zip(records, found, strict=True):
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
    return 100 * summarize(np.cumsum(hit) / objects, precision, rule)


def match(boxes: np.ndarray, objects: np.ndarray, ignored: np.ndarray, overlap: float) -> np.ndarray:
    """Judge an image's detections of a class, best first `[n]`: 1 right, 0 wrong, -1 left out."""
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


def summarize(recall: np.ndarray, precision: np.ndarray, rule: Rule) -> float:
    """Average the precision, as the largest at this recall or a higher one: at 11 recalls, or over all of them."""
    if rule == "11-point":
        return float(np.mean([max(precision[recall >= level - 1e-9], default=0.0) for level in np.linspace(0, 1, 11)]))
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * highest).sum())
