#!/usr/bin/env bash
# COCO's measure: an object of exactly 32 x 32 pixels is small and medium at once.
#
# One would expect: small is below 32^2, medium from there to below 96^2, so that every object has one size.
# What happens: both borders of a range belong to it. An object of 1,024 pixels counts in AP(small) and in AP(medium),
# one of 9,216 in AP(medium) and in AP(large). Sets of tiles, icons or cells that were cropped to such sizes count
# twice.
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


for side in (31, 32, 33, 95, 96, 97):
    box = (0.0, 0.0, float(side), float(side))
    small, medium, large = measure([(1, box)], [(1, box, 0.9)], [1])[3:6] >= 0
    print(f"{side} x {side}: small {small}, medium {medium}, large {large}")
    assert (small, medium, large) == (side <= 32, 32 <= side <= 96, side >= 96)
END
