"""One encoded photograph to pixels, at reduced scale where that is enough."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import simplejpeg
from PIL import Image

from resjax.errors import BadInput


def dimensions(encoded: bytes, name: str) -> tuple[int, int]:
    """Read height and width from the header. Raises BadInput, naming the image, where there is none."""
    try:
        return simplejpeg.decode_jpeg_header(encoded)[:2]
    except ValueError:
        with opened(encoded, name) as image:
            return image.height, image.width


def decode(encoded: bytes, least: int, name: str) -> np.ndarray:
    """Decode to uint8 RGB `[height, width, 3]`, grey and CMYK images too; no side is shorter than `least` by it.

    Where `least` allows, a JPEG is decoded at 1/2, 1/4 or 1/8 (and what lies between), which its cosine transform does
    without aliasing. The orientation in EXIF is ignored, as by the authors. Raises BadInput, naming the image, where
    it is truncated or no image.
    """
    try:
        if simplejpeg.decode_jpeg_header(encoded)[2] != "CMYK":
            return simplejpeg.decode_jpeg(encoded, "RGB", min_height=least, min_width=least, min_factor=2)
    except ValueError:  # no JPEG; or one with small faults, which Pillow forgives
        pass
    with opened(encoded, name) as image:
        return np.asarray(image.convert("RGB"))


@contextmanager
def opened(encoded: bytes, name: str) -> Iterator[Image.Image]:
    """Open with Pillow; whatever goes wrong while it is open is BadInput that names the image."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(BytesIO(encoded)) as image:  # about EXIF, mostly
            yield image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{name}: not a whole image ({error}); mend or remove it") from None
