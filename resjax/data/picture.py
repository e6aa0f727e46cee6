"""One image file to pixels."""

from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from resjax.errors import BadInput

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def read_picture(file: Path | bytes, mode: Literal["RGB", "L"], size: int | None, name: str = "") -> np.ndarray:
    """Decode a file, or its bytes, to uint8 `[height, width, channels]`, upright, as RGB or grey ("L").

    `size` resizes the shorter side (antialiased, bicubic) and crops the centre to a square.
    Raises BadInput, naming the file, where it is missing, truncated or no image.
    """
    try:
        with Image.open(BytesIO(file) if isinstance(file, bytes) else file) as image:
            picture = eight_bits(ImageOps.exif_transpose(image)).convert(mode)
    except FileNotFoundError:
        raise BadInput(f"{file}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{name or file}: not a whole image file ({error}); mend or remove it") from None
    if size is not None and picture.size != (size, size):
        picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.uint8).reshape(picture.height, picture.width, -1)


def eight_bits(image: Image.Image) -> Image.Image:
    """Take the upper byte of 16-bit grey values; Pillow's `convert` would make every one above 255 white."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I;16") else image
