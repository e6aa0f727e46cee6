#!/usr/bin/env bash
# Pillow reads a PNG without its checksums: of files with one flipped bit it returns some with other pixels, in silence.
#
# One would expect: PNG has a CRC on every chunk, which finds every single bit, so a damaged picture is refused.
# What happens: the CRC of the pixels' chunks is skipped when they are loaded. Most flips make the compressed stream
# invalid, which does raise; about one in 200 does not, and other pixels come back. `Image.verify()` finds all, OpenCV
# refuses all.
# Versions: pillow 13.0.0, opencv-python-headless 5.0.0.93. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pillow==13.0.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
import os
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libpng writes a line for each refused file
random = np.random.default_rng(0)
small = random.integers(0, 256, (6, 8, 3), np.uint8)
picture = cv2.resize(small, (96, 72), interpolation=cv2.INTER_CUBIC)
buffer = BytesIO()
Image.fromarray(picture).save(buffer, "PNG")
whole = buffer.getvalue()
start = whole.index(b"IDAT") + 4
end = start + int.from_bytes(whole[start - 8:start - 4], "big")
refused = wrong = found = by_opencv = 0
for _ in range(3000):
    damaged = bytearray(whole)
    damaged[random.integers(start, end + 4)] ^= 1 << random.integers(8)
    try:
        wrong += not np.array_equal(np.asarray(Image.open(BytesIO(damaged))), picture)
    except (OSError, SyntaxError):
        refused += 1
    try:
        Image.open(BytesIO(damaged)).verify()
    except (OSError, SyntaxError):
        found += 1
    by_opencv += cv2.imdecode(np.frombuffer(damaged, np.uint8), cv2.IMREAD_COLOR) is None
print(f"of 3000 files with one bit flipped in the pixels' chunk or its CRC, Pillow refuses {refused} and reads {wrong} "
      f"with other pixels; verify() finds {found}; OpenCV refuses {by_opencv}")
if not (wrong and refused < 3000 and found == 3000 and by_opencv == 3000):
    raise SystemExit(1)
END
