#!/usr/bin/env bash
# The same PASCAL VOC folder, read by two converters: one as the truth, the other as a perfect detector, scores 70 %.
#
# One would expect: two readers of one file agree, and COCO's AP of the one against the other is 100 %.
# What happens: VOC counts pixels from 1 and includes the last, so a box 1 to 12 is 12 pixels wide. supervision takes 1
# from xmin and ymin (0 to 12); globox takes the numbers as they are (1 to 12, 11 wide). At 12 pixels the overlap is
# 0.84, below three of COCO's ten thresholds. Both are consistent with themselves, so no round trip shows it.
# Versions: supervision 0.31.2, globox 2.9.0, pycocotools 2.0.11. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pycocotools==2.0.11 supervision==0.31.2 \
    globox==2.9.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
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


from pathlib import Path

import cv2
import numpy as np
import supervision as sv
from globox import AnnotationSet

for name in ("images", "annotations"):
    Path(name).mkdir()
cv2.imwrite("images/dish.jpg", np.zeros((300, 300, 3), np.uint8))
corners = [(1 + 20 * column, 1 + 20 * row) for column in range(10) for row in range(10)]
Path("annotations/dish.xml").write_text(
    "<annotation><folder>images</folder><filename>dish.jpg</filename>"
    "<size><width>300</width><height>300</height><depth>3</depth></size>" + "".join(
        "<object><name>cell</name><difficult>0</difficult><bndbox>"
        f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + 11}</xmax><ymax>{y + 11}</ymax></bndbox></object>"
        for x, y in corners) + "</annotation>")
[read] = sv.DetectionDataset.from_pascal_voc("images", "annotations").annotations.values()
one = [(float(x1), float(y1), float(x2 - x1), float(y2 - y1)) for x1, y1, x2, y2 in read.xyxy]
other = [(box.xmin, box.ymin, box.xmax - box.xmin, box.ymax - box.ymin)
         for annotation in AnnotationSet.from_pascal_voc(Path("annotations")) for box in annotation.boxes]
average = measure([(1, box) for box in one], [(1, box, 0.9) for box in other], [1])[0]
print("first box by supervision:", one[0], "- by globox:", other[0])
print(f"AP of the one against the other: {100 * average:.1f} %")
assert one[0] == (0, 0, 12, 12) and other[0] == (1, 1, 11, 11) and abs(average - 0.7) < 1e-6
END
