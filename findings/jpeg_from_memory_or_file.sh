#!/usr/bin/env bash
# OpenCV reads a cut JPEG from a file and refuses the same bytes from memory.
#
# One would expect: imread(path) and imdecode(bytes of that path) return the same.
# What happens: since 4.12 imdecode returns None where the end marker is missing, be it with all pixels there; imread
# still returns the image, every pixel of it, and of half a file the upper half over grey, with a line on stderr that
# Python does not see. So a set that was checked by one way of reading trains on other images by the other. (4.10 reads
# both ways.)
# Versions: opencv-python-headless 5.0.0.93, and 4.12.0.88, 4.13.0.92, 4.14.0.94 alike. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
from pathlib import Path

import cv2
import numpy as np

small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
cv2.imwrite("whole.jpg", cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC))
whole, right = Path("whole.jpg").read_bytes(), cv2.imread("whole.jpg")
for name, part, rows in (("without the last two bytes", whole[:-2], 240), ("half of it", whole[:len(whole) // 2], 80)):
    Path("part.jpg").write_bytes(part)
    from_file, from_memory = cv2.imread("part.jpg"), cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR)
    same = 0 if from_file is None else int((from_file == right).all((1, 2)).sum())
    print(f"{name}: from a file {same} of 240 rows are right; from memory {from_memory}")
    assert from_memory is None and same >= rows
END
