#!/usr/bin/env bash
# OpenCV 5: NMSBoxesBatched lets a class suppress another one where boxes reach over the image's left or upper border.
#
# One would expect: boxes of different classes never meet, whatever their coordinates.
# What happens: classes are kept apart by moving each by a multiple of the largest coordinate, which does not clear
# boxes that begin below 0: a box of class 0 and one of class 1 at one place are one. Boxes straight from a detector,
# before they are cut at the border, are such boxes. Moved into the image by the same amount both are kept.
# Versions: opencv-python-headless 5.0.0.93. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import cv2


def kept(by):
    """Suppress two boxes of 10 x 10 at one place, of classes 0 and 1; return which are kept."""
    boxes = [[-20.0 + by, -20.0 + by, 10.0, 10.0]] * 2
    return sorted(int(index) for index in cv2.dnn.NMSBoxesBatched(boxes, [0.9, 0.8], [0, 1], 0.0, 0.5))


for by in (0, 20):
    print(f"two classes, both from {by - 20} to {by - 10}: kept {kept(by)}")
assert kept(0) == [0] and kept(20) == [0, 1]
END
