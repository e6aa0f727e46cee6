#!/usr/bin/env bash
# A square of 20 x 20 pixels is 400, 441 or 361 pixels, by the tool that turns its polygon into a mask or back.
#
# One would expect: polygon to mask to polygon loses nothing for corners that are whole numbers; a mask from any tool
# fits all.
# What happens: pycocotools takes corners for edges between pixels (10 to 30 is 20 wide), OpenCV and supervision for
# pixels (21 wide). A polygon becomes 400 pixels in the one and 441 in the other; pycocotools' mask of 400, made a
# polygon by supervision and rasterised by pycocotools again, has 361. Boxes differ likewise: OpenCV's boundingRect says
# 21.
# Versions: pycocotools 2.0.11, supervision 0.31.2, opencv-python-headless 5.0.0.93. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pycocotools==2.0.11 supervision==0.31.2 \
    opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import cv2
import numpy as np
import supervision as sv
from pycocotools import mask as coco

square = np.array([[10, 10], [30, 10], [30, 30], [10, 30]])


def rasterise(polygon):
    return coco.decode(coco.frPyObjects([polygon.ravel().astype(float).tolist()], 50, 50))[..., 0].astype(bool)


mask = rasterise(square)
back = rasterise(sv.mask_to_polygons(mask)[0])
other = sv.polygon_to_mask(square, (50, 50)).astype(bool)
print("pycocotools' mask:", mask.sum(), "pixels; supervision's:", other.sum())
print("pycocotools' mask, through supervision's polygon, back to a mask:", back.sum())
print("boundingRect of the polygon:", cv2.boundingRect(square), "- contourArea:", cv2.contourArea(square))
print("box of pycocotools' mask by supervision:", sv.mask_to_xyxy(mask[None])[0])
assert (mask.sum(), other.sum(), back.sum()) == (400, 441, 361)
assert cv2.boundingRect(square)[2:] == (21, 21)
assert sv.mask_to_xyxy(mask[None])[0].tolist() == [10, 10, 29, 29]
END
