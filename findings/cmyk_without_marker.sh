#!/usr/bin/env bash
# Pillow and OpenCV turn the colours of every CMYK JPEG around, with Adobe's marker or without.
#
# One would expect: ink values are stored upside down where Adobe's marker says so, and plainly where there is no
# marker.
# What happens: both libraries suppose Adobe's habit always. A file that stores no ink as 0, without a marker, is shown
# as its negative: white paper becomes black. simplejpeg's "CMYK" gives the stored values.
# Versions: pillow 13.0.0, opencv-python-headless 5.0.0.93, simplejpeg 1.9.0. 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --no-compile pillow==13.0.0 opencv-python-headless==5.0.0.93 \
    simplejpeg==1.9.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'END'
from io import BytesIO

import cv2
import numpy as np
import simplejpeg
from PIL import Image


def without_marker(encoded):
    """Take Adobe's segment out."""
    start = encoded.index(b"Adobe") - 4
    return encoded[:start] + encoded[start + 2 + int.from_bytes(encoded[start + 2:start + 4], "big"):]


buffer = BytesIO()
Image.new("CMYK", (16, 16), (255, 255, 255, 255)).save(buffer, "JPEG", quality=100)  # stored as 0, by Adobe's habit
marked = buffer.getvalue()
plain = without_marker(marked)
stored = simplejpeg.decode_jpeg(plain, "CMYK")[8, 8]
shown = {name: (Image.open(BytesIO(part)).convert("RGB").getpixel((8, 8)),
                cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR)[8, 8].tolist())
         for name, part in (("with the marker", marked), ("without", plain))}
print("stored inks:", stored, "- shown by Pillow and OpenCV:", shown)
assert (stored == 0).all() and b"Adobe" not in plain
assert shown["without"] == shown["with the marker"] == ((0, 0, 0), [0, 0, 0])
END
