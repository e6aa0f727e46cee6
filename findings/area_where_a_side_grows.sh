#!/usr/bin/env bash
# OpenCV: INTER_AREA averages nothing where one side shrinks and the other grows, be it by one pixel.
#
# One would expect: "area" averages along each side that shrinks. From 64 x 64 to 8 rows of 70, stripes one pixel high
# become grey.
# What happens: unless no side grows, both are interpolated from two neighbours, so rows between are never looked at:
# the stripes come out dark (32 of 128). A crop that changes the aspect ratio (Inception's, with 3:4 to 4:3) meets this.
# Versions: opencv-python-headless 5.0.0.93 and 4.14.0.94. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import cv2
import numpy as np

stripes = np.zeros((64, 64), np.uint8)
stripes[::2] = 255
for width in (64, 65, 70):
    rows = cv2.resize(stripes, (width, 8), interpolation=cv2.INTER_AREA)
    print(f"to 8 rows of {width}: {rows.min()} to {rows.max()}, where the mean is 127.5")
    assert (abs(rows.astype(float) - 127.5) < 1).all() == (width <= 64)
apart = cv2.resize(cv2.resize(stripes, (64, 8), interpolation=cv2.INTER_AREA), (70, 8), interpolation=cv2.INTER_LINEAR)
print(f"one side after the other: {apart.min()} to {apart.max()}")
assert (abs(apart.astype(float) - 127.5) < 1).all()
END
