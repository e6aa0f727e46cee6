#!/usr/bin/env bash
# COCO's measure: renumbering the images changes AP where scores were written with two digits.
#
# One would expect: numbers of images are names, and AP does not depend on names.
# What happens: detections are sorted by score and, where scores are equal, by the number of their image; whichever
# comes first decides the precision at that recall. Scores of two digits, of bfloat16, or saturated at 1.0 tie by the
# hundred.
# Versions: pycocotools 2.0.11. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pycocotools==2.0.11 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def measure(objects, detections, images):
    """Return pycocotools' twelve numbers; objects and detections are (image, box, ...)."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {}, "categories": [{"id": 1, "name": "cell"}],
            "images": [{"id": image, "width": 1000, "height": 1000} for image in images],
            "annotations": [{"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": list(box),
                             "area": box[2] * box[3]} for number, (image, box) in enumerate(objects, 1)]}
        truth.createIndex()
        found = truth.loadRes([{"image_id": image, "category_id": 1, "bbox": list(box), "score": score}
                               for image, box, score in detections])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


import numpy as np

random = np.random.default_rng(0)
objects, detections = [], []
for image in range(1, 61):
    for _ in range(3):
        x, y, width, height = *random.uniform(0, 800, 2), *random.uniform(20, 150, 2)
        objects.append((image, (x, y, width, height)))
        if random.random() < 0.7:
            detections.append((image, (x + 3, y + 3, width, height), random.beta(4, 2)))
        detections.append((image, (*random.uniform(0, 800, 2), width, height), random.beta(2, 4)))


def spread(digits):
    """Measure five numberings of the same images; return the lowest and the highest AP, in points."""
    found = []
    for seed in range(5):
        number = np.random.default_rng(seed).permutation(60) + 1
        renamed = [(int(number[image - 1]), box) for image, box in objects]
        scored = [(int(number[image - 1]), box, round(score, digits)) for image, box, score in detections]
        found.append(100 * measure(renamed, scored, range(1, 61))[0])
    return min(found), max(found)


for digits in (2, 15):
    low, high = spread(digits)
    print(f"scores of {digits} digits: AP of {low:.3f} to {high:.3f}")
    assert (high - low > 0.05) if digits == 2 else (high - low < 1e-6)
END
