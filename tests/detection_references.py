"""The parts of Faster R-CNN once more, in NumPy and one by one, as plainly as can be."""

import math
from itertools import pairwise

import numpy as np


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def overlap(a, b):
    shared = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    joint = area(a) + area(b) - shared
    return shared / joint if joint > 0 else 0.0


def encode(box, anchor):
    (x, y, w, h), (xa, ya, wa, ha) = (((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1])
                                      for b in (box, anchor))
    return (x - xa) / wa, (y - ya) / ha, math.log(w / wa), math.log(h / ha)


def decode(deltas, anchor):
    wa, ha = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x, y = (anchor[0] + anchor[2]) / 2 + deltas[0] * wa, (anchor[1] + anchor[3]) / 2 + deltas[1] * ha
    w, h = (math.exp(min(d, math.log(1000 / 16))) * side for d, side in ((deltas[2], wa), (deltas[3], ha)))
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def clip(box, height, width):
    return [min(max(value, 0), limit) for value, limit in zip(box, (width, height, width, height), strict=True)]


def suppress(boxes, scores, threshold):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if scores[i] > -math.inf and all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def vote(box, boxes, scores):
    """Average what overlaps a box by half of both or more, each by its score."""
    total, mean = 0.0, np.zeros(4)
    for other, score in zip(boxes, scores, strict=True):
        if overlap(box, other) >= 0.5:
            total, mean = total + score, mean + score * np.asarray(other, float)
    return mean / total if total else np.asarray(box, float)


def two_scales(box, scales, side=224):
    """Of all neighbouring pairs, the one whose two sides are closest to that of a square of `side`."""
    own = math.sqrt(area(box))
    away = [abs(own * a - side) + abs(own * b - side) for a, b in pairwise(scales)]
    return int(np.argmin(away))


def detect(boxes, scores, rules, voting):
    """[n, classes, 4] and [n, classes] to the best (score, class, box), class after class."""
    found = []
    for c in range(boxes.shape[1]):
        counted = np.where(scores[:, c] > rules.lowest_score, scores[:, c], -np.inf)
        for i in suppress(boxes[:, c], counted, rules.class_suppression):
            box = vote(boxes[i, c], boxes[:, c], scores[:, c]) if voting else boxes[i, c]
            found.append((scores[i, c], c + 1, box))
    return sorted(found, key=lambda each: -each[0])[:rules.detections]


def anchors(height, width, stride, sizes, ratios):
    found = []
    for row in range(height):
        for column in range(width):
            for size in sizes:
                for ratio in ratios:
                    w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    found.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
    return np.array(found)


def roi_max_pool(features, boxes, size, scale):
    """[height, width, channels] to [n, size, size, channels], by Fast R-CNN's rule with exact whole numbers."""
    height, width, channels = features.shape
    pooled = np.zeros((len(boxes), size, size, channels), features.dtype)
    for n, box in enumerate(boxes):
        x1, y1, x2, y2 = (math.floor(float(value) * scale + 0.5) for value in box)
        w, h = max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)
        for i in range(size):
            for j in range(size):
                rows = range(max(y1 + i * h // size, 0), min(y1 + math.ceil((i + 1) * h / size), height))
                columns = range(max(x1 + j * w // size, 0), min(x1 + math.ceil((j + 1) * w / size), width))
                cells = [features[r, c] for r in rows for c in columns]
                if cells:
                    pooled[n, i, j] = np.max(cells, 0)
    return pooled


def roi_align(features, boxes, size, scale, samples=2):
    height, width, channels = features.shape
    pooled = np.zeros((len(boxes), size, size, channels))
    for n, (x1, y1, x2, y2) in enumerate(boxes * scale):
        for i in range(size):
            for j in range(size):
                for a in range(samples):
                    for b in range(samples):
                        y = y1 + (y2 - y1) * (i + (a + 0.5) / samples) / size - 0.5
                        x = x1 + (x2 - x1) * (j + (b + 0.5) / samples) / size - 0.5
                        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                        r, c = int(y), int(x)
                        below, beside = min(r + 1, height - 1), min(c + 1, width - 1)
                        v, u = y - r, x - c
                        pooled[n, i, j] += ((features[r, c] * (1 - u) + features[r, beside] * u) * (1 - v)
                                            + (features[below, c] * (1 - u) + features[below, beside] * u) * v)
    return pooled / samples**2


def smooth_l1(d, beta):
    return d * d / (2 * beta) if abs(d) < beta else abs(d) - beta / 2


THRESHOLDS = [0.5 + 0.05 * step for step in range(10)]
SIZES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


def coco_matches(record, detected, label, limits, threshold):
    """Judge an image's detections of a class, best first (score, right or wrong), but for those that count neither
    way, and count its objects. A difficult object counts as a crowd.
    """
    low, high = limits
    objects = [(box, crowd or difficult, bool(crowd or difficult or not low <= size <= high))
               for box, kind, crowd, difficult, size in zip(record.boxes, record.labels, record.crowd, record.difficult,
                                                            record.areas, strict=True) if kind == label]
    free, judged = [True] * len(objects), []
    mine = [(score, box) for box, score, kind in zip(detected.boxes, detected.scores, detected.labels, strict=True)
            if kind == label]
    for score, box in sorted(mine, key=lambda pair: -pair[0])[:100]:
        shares = [shared_part(box, other, crowd) for other, crowd, _ in objects]
        for wanted in (False, True):  # those that count before those that do not
            open_ones = [i for i, (_, crowd, ignored) in enumerate(objects)
                         if ignored == wanted and (free[i] or crowd) and shares[i] >= threshold - 1e-9]
            if open_ones:
                best = max(open_ones, key=lambda i: (shares[i], i))
                free[best] = False
                judged += [] if wanted else [(score, True)]
                break
        else:
            judged += [(score, False)] if low <= area(box) <= high else []
    return judged, sum(not ignored for *_, ignored in objects)


def shared_part(box, other, crowd):
    """Overlap; of a crowd, the share of the detection that lies in it."""
    inner = area((max(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), min(box[3], other[3])))
    return inner / area(box) if crowd else overlap(box, other)


def coco_average(records, found, classes, size, thresholds):
    """COCO's average precision in percent: the best precision at 101 recalls or beyond, over classes that occur."""
    precisions = []
    for label in range(1, classes + 1):
        for threshold in thresholds:
            parts = [coco_matches(record, detected, label, SIZES[size], threshold)
                     for record, detected in zip(records, found, strict=True)]
            count = sum(objects for _, objects in parts)
            if not count:
                continue
            right = np.array([hit for _, hit in sorted((pair for judged, _ in parts for pair in judged),
                                                       key=lambda pair: -pair[0])], float)
            hits = np.cumsum(right)
            recall, precision = hits / count, hits / np.arange(1, len(right) + 1)
            precisions.append([max(precision[recall >= level], default=0.0)
                               for level in np.linspace(0, 1, 101)])
    return 100 * np.mean(precisions) if precisions else math.nan
