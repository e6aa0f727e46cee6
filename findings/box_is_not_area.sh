#!/usr/bin/env bash
# Pillow's BOX filter is no average over areas unless the size divides: beside OpenCV's INTER_AREA up to 17 levels off.
#
# One would expect: both average the part of the image that an output pixel covers, so 500 to 224 agrees to rounding.
# What happens: BOX takes every input pixel whose centre lies in the part, with equal weight; INTER_AREA weighs those at
# its border by how much of them lies in it. At 500 to 250 the two agree; at 500 to 224 they differ by 2 levels on
# average.
# Versions: pillow 13.0.0, opencv-python-headless 5.0.0.93. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pillow==13.0.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import cv2
import numpy as np
from PIL import Image

random = np.random.default_rng(0)
image = np.clip(128 + 40 * random.standard_normal((500, 500)), 0, 255).astype(np.uint8)


def exact(size):
    """Average areas in float64: rows, then columns."""
    edges = np.linspace(0, 500, size + 1)
    low, high = np.arange(500), np.arange(1, 501)
    weights = np.clip(np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low), 0, None) * size / 500
    return weights @ image @ weights.T


for size in (250, 224):
    box = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX)).astype(float)
    area = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(float)
    print(f"500 to {size}: from the exact area BOX is {abs(box - exact(size)).max():.1f} off at most, "
          f"INTER_AREA {abs(area - exact(size)).max():.1f}")
    assert abs(area - exact(size)).max() <= 1
    assert (abs(box - exact(size)).max() > 8) == (size == 224)
END
