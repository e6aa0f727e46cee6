"""Decodes an encoded image from any source to pixels.

Pixels become 8-bit integers. Wider integers are scaled from the range of their type, and floating-point values from the
range 0 to 1. Transparent pixels are blended over white. Only the first frame of an animation is used. Images are
rotated as EXIF says. A file's content, not its name, determines its format. JPEGs of more than 178 million pixels and
other images of more than 64 million pixels are refused.
"""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from resjax.system.errors import BadInput, check
from resjax.system.files import regular

Image.init()
# Formats that Pillow detects by their first bytes and decodes itself. Other formats run programs or match any file.
FORMATS = tuple(Image.OPEN.keys() & {"AVIF", "BMP", "DDS", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG",
                                     "PPM", "PSD", "QOI", "SGI", "TIFF", "WEBP", "XBM", "XPM"})
EXTENSIONS = tuple(sorted(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS))
MOST_PIXELS_OF_A_JPEG, MOST_PIXELS = 178_000_000, 64_000_000
HEAD = 1 << 15  # bytes; nearly every header ends before
PILLOW = re.compile(r"PIL\.")
UPRIGHT = {1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],
           5: lambda x: x.swapaxes(0, 1), 6: lambda x: x.swapaxes(0, 1)[:, ::-1],
           7: lambda x: x[::-1, ::-1].swapaxes(0, 1), 8: lambda x: x.swapaxes(0, 1)[::-1]}


def decode(encoded: bytes, name: str, channels: int = 3, least: int = 0) -> np.ndarray:
    """Decode to an upright uint8 image `[height, width, channels]`, which is grey if `channels` is 1 and RGB otherwise.

    With `least`, a JPEG may be decoded at a reduced size (1/2, 1/4, 1/8, or between), but no side becomes shorter than
    `least`. The reduction happens in the cosine transform, without aliasing. Raises BadInput, naming the image, if it
    is truncated, damaged, too large or not an image.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(encoded)
        if space != "CMYK" and height * width <= MOST_PIXELS_OF_A_JPEG:
            kind = "GRAY" if channels == 1 and space == "Gray" else "RGB"
            pixels = simplejpeg.decode_jpeg(encoded, kind, min_height=least or height, min_width=least or width,
                                            min_factor=2)
            if channels == 1 and kind == "RGB":  # converted to grey like any other colour image
                pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
            return np.ascontiguousarray(UPRIGHT[orientation(encoded)](pixels))
    except ValueError:  # not a JPEG, or one with small errors that Pillow tolerates
        pass
    with open_image(encoded, name) as image:
        if image.format == "PNG":
            check_png(encoded)
        pixels = to_bytes(image, channels)
        return np.ascontiguousarray(UPRIGHT[orientation_of(image)](pixels.reshape(*pixels.shape[:2], channels)))


class Header(NamedTuple):
    """Height and width of an image as stored, and its EXIF orientation (1 to 8)."""

    height: int
    width: int
    turn: int

    @property
    def upright(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        return (self.width, self.height) if self.turn >= 5 else (self.height, self.width)


def read_header(encoded: bytes, name: str) -> Header:
    """Read an image's header from its first bytes. Raises BadInput, naming the image, if there is no valid header."""
    try:
        height, width = simplejpeg.decode_jpeg_header(encoded)[:2]
        if height * width <= MOST_PIXELS_OF_A_JPEG:
            return Header(height, width, orientation(encoded))
    except ValueError:
        pass
    with open_image(encoded, name) as image:
        return Header(image.height, image.width, orientation_of(image))


def file_header(file: Path) -> Header:
    """Read the header of a file. Raises BadInput, naming the file, if it is missing or not an image."""
    try:
        with regular(file).open("rb") as stream:
            head = stream.read(HEAD)
            try:
                return read_header(head, str(file))
            except BadInput:
                return read_header(head + stream.read(), str(file))
    except (OSError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{file}: cannot read this image ({getattr(error, 'strerror', error)})") from None


def dimensions(encoded: bytes, name: str) -> tuple[int, int]:
    """Read the height and width of the upright image. Raises BadInput, naming the image, if it has no header."""
    return read_header(encoded, name).upright


def upright_boxes(boxes: np.ndarray, header: Header) -> np.ndarray:
    """Rotate boxes (x1, y1, x2, y2) `[n, 4]` of a stored image in the same way as `decode` rotates its pixels."""
    corners = boxes.reshape(-1, 2, 2)
    mirrored = np.array([header.width, header.height], boxes.dtype) - corners
    x, y = corners[..., 0], corners[..., 1]
    left, up = mirrored[..., 0], mirrored[..., 1]
    turned = {1: (x, y), 2: (left, y), 3: (left, up), 4: (x, up), 5: (y, x), 6: (up, x), 7: (up, left), 8: (y, left)}
    return np.sort(np.stack(turned[header.turn], -1), axis=1).reshape(-1, 4)


@contextmanager
def open_image(encoded: bytes, name: str) -> Iterator[Image.Image]:
    """Open with Pillow; any error inside the block becomes a BadInput that names the image."""
    ignore_pillows_warnings()
    try:
        with Image.open(BytesIO(encoded), formats=FORMATS) as image:
            most = MOST_PIXELS_OF_A_JPEG if image.format == "JPEG" else MOST_PIXELS
            check(image.width * image.height <= most,
                  f"{name}: {image.width}x{image.height} pixels are too many; the limit is {most:,}")
            yield image
    except BadInput:
        raise
    except Exception as error:  # Pillow's decoders can raise any exception for a damaged file
        why = "unsupported format" if isinstance(error, UnidentifiedImageError) else error
        raise BadInput(f"{name}: damaged image ({why}); repair or remove it") from None


def check_png(encoded: bytes) -> None:
    """Verify the checksums of a PNG's pixels, which Pillow (13.0) skips. Raises ValueError if one is wrong."""
    place = 8
    while place + 12 <= len(encoded):
        end = place + 8 + int.from_bytes(encoded[place:place + 4], "big")
        if encoded[place + 4:place + 8] == b"IDAT" and zlib.crc32(encoded[place + 4:end]) != int.from_bytes(
                encoded[end:end + 4], "big"):
            raise ValueError("wrong checksum of its pixels")
        place = end + 4


def ignore_pillows_warnings() -> None:
    """Suppress Pillow's warnings about unusual but readable files, even if the user's filters make warnings errors.

    `warnings.catch_warnings` is not thread-safe: overlapping threads can leave its filters behind. Therefore, a single
    filter for Pillow's warnings is added once, at the front of the list.
    """
    if warnings.filters[:1] != [("ignore", None, Warning, PILLOW, 0)]:
        warnings.filterwarnings("ignore", module=PILLOW.pattern)


def to_bytes(image: Image.Image, channels: int) -> np.ndarray:
    """Convert the pixels of an open image to uint8: grey `[height, width]` or RGB `[height, width, 3]`."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode == "F":
        image = Image.fromarray(np.nan_to_num(255 * np.asarray(image).clip(0, 1)).round().astype(np.uint8))
    elif image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray(upper_byte(image))
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        over_white = Image.new("RGB", image.size, "white")
        over_white.paste(image, mask=image.getchannel("A"))
        image = over_white
    return np.array(image.convert(mode), np.uint8)


def upper_byte(image: Image.Image) -> np.ndarray:
    """Scale integers of 16 or 32 bits to 8 bits, by the range of the type in the file."""
    tags = getattr(image, "tag_v2", {})  # only TIFF; other formats that Pillow reads as 32-bit integers had 16 bits
    bits = int(tags.get(258, (16,))[0])
    values = np.asarray(image)
    if tags.get(339, (1,))[0] == 2:  # signed
        return (values.clip(0) >> (bits - 9)).astype(np.uint8)
    return (values.astype(f"u{values.itemsize}", copy=False) >> (bits - 8)).astype(np.uint8)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image that Pillow opened; 1 for a TIFF, which Pillow rotates itself."""
    exif = image.info.get("exif")
    return tiff_orientation(exif.removeprefix(b"Exif\0\0")) if isinstance(exif, bytes) else 1


def orientation(jpeg: bytes) -> int:
    """Return a JPEG's EXIF orientation, 1 to 8; 1 (upright) if there is no valid one."""
    place = 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF and jpeg[place + 1] not in (0xD9, 0xDA):
        size = 2 + int.from_bytes(jpeg[place + 2:place + 4], "big")
        if jpeg[place + 1] == 0xE1 and jpeg[place + 4:place + 10] == b"Exif\0\0":
            return tiff_orientation(jpeg[place + 10:place + size])
        place += size
    return 1


def tiff_orientation(exif: bytes) -> int:
    """Find the orientation among EXIF's tags, ignoring all others."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    count = struct.unpack_from(f"{order}H", exif, start)[0] if start + 2 <= len(exif) else 0
    for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
        if tag == 0x0112:
            (turn,) = struct.unpack_from(order + {1: "B", 4: "I"}.get(kind, "H"), exif, entry + 8)
            return turn if turn in UPRIGHT else 1
    return 1
