"""Image files of every kind with their right pixels, made with Pillow and numpy alone, and the same files damaged."""

import os
import struct
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

RANDOM = np.random.default_rng(0)
SIDE = 36  # the shorter side of all that are not a row, a column or a pixel
RGB = RANDOM.integers(0, 256, (SIDE, 51, 3)).astype(np.uint8)
GREY, ALPHA = RGB[..., 0], RANDOM.integers(0, 256, (SIDE, 51)).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 257
SMOOTH = np.stack(np.meshgrid(np.linspace(10, 240, 60), np.linspace(20, 200, SIDE)), -1)
SMOOTH = np.concatenate([SMOOTH, SMOOTH[:, ::-1, :1]], -1).astype(np.uint8)
OVER_WHITE = np.round((RGB * (ALPHA[..., None] / 255)) + 255 - ALPHA[..., None].astype(float)).astype(np.uint8)


def saved(pixels, kind, **options):
    out = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(out, kind, **options)
    return out.getvalue()


def grey(pixels):
    return np.repeat(np.asarray(pixels)[..., None], 3, -1)


def exif(*tags, order="<"):
    """An EXIF block of tags (number, type, count, four bytes of value)."""
    body = b"".join(struct.pack(f"{order}HHI", number, kind, count) + value for number, kind, count, value in tags)
    head = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + head + struct.pack(f"{order}IH", 8, len(tags)) + body + b"\0" * 4


def turned(turn, order="<", kind=3):
    value = struct.pack(order + {1: "BBBB", 3: "HH", 4: "I"}[kind], turn, *([0] * {1: 3, 3: 1, 4: 0}[kind]))
    return 0x112, kind, 1, value


def upright(pixels, turn):
    """What Pillow makes of an orientation."""
    image = Image.fromarray(pixels)
    image.getexif()[0x112] = turn
    return np.asarray(ImageOps.exif_transpose(image))


def tiff(values, bits, sample_format):
    """A TIFF of one grey strip, which Pillow cannot write for every type."""
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 4, height), (279, 4, values.nbytes), (339, 3, sample_format)]
    body = b"".join(struct.pack("<HHII", number, kind, 1, value) for number, kind, value in tags)
    return (b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes() + struct.pack("<H", len(tags)) + body
            + b"\0" * 4)


palette = Image.fromarray(RGB).quantize(16)
seen_through = palette.copy()
seen_through.info["transparency"] = 3
hole = np.where((np.asarray(palette) == 3)[..., None], 255, np.asarray(palette.convert("RGB"))).astype(np.uint8)
frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
smooth = Image.fromarray(SMOOTH)
jpeg_pixels = np.asarray(Image.open(BytesIO(saved(SMOOTH, "jpeg", quality=95))).convert("RGB"))
jpeg_cmyk = saved(smooth.convert("CMYK"), "jpeg", quality=95)
odd_tag, huge_tag = (0x100, 11, 1, struct.pack("<f", 36.0)), (0x8769, 4, 1, struct.pack("<I", 2**32 - 1))

KINDS = {  # name: (file, right pixels, tolerance)
    "png": (saved(RGB, "png"), RGB, 0), "png grey": (saved(GREY, "png"), grey(GREY), 0),
    "png of one bit": (saved(Image.fromarray(GREY > 99), "png"), grey(255 * (GREY > 99)), 0),
    "png of 16 bits": (saved(DEEP, "png"), grey(GREY), 1),
    "png palette": (saved(palette, "png"), np.asarray(palette.convert("RGB")), 0),
    "png palette with a hole": (saved(palette, "png", transparency=3), hole, 1),
    "png with alpha": (saved(np.dstack([RGB, ALPHA]), "png"), OVER_WHITE, 1),
    "png grey with alpha": (saved(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]), "png"),
                            np.repeat(OVER_WHITE[..., :1], 3, -1), 1),
    "png with a transparent colour": (saved(RGB, "png", transparency=tuple(RGB[0, 0].tolist())),
                                      np.where((RGB[0, 0] == RGB).all(-1, keepdims=True), 255, RGB), 0),
    "png turned": (saved(RGB, "png", exif=exif(turned(6))), upright(RGB, 6), 0),
    "pgm": (saved(GREY, "ppm"), grey(GREY), 0), "ppm": (saved(RGB, "ppm"), RGB, 0),
    "pbm": (saved(Image.fromarray(GREY > 99), "ppm"), grey(255 * (GREY > 99)), 0),
    "pgm of 16 bits": (b"P5 51 36 65535\n" + DEEP.astype(">u2").tobytes(), grey(GREY), 1),
    "pgm of 10 bits": (b"P5 51 36 1023\n" + (GREY.astype(int) * 1023 // 255).astype(">u2").tobytes(), grey(GREY), 1),
    "pfm": (b"Pf\n51 36\n-1.0\n" + (GREY[::-1] / 255).astype("<f4").tobytes(), grey(GREY), 1),
    "tiff": (saved(RGB, "tiff"), RGB, 0), "tiff grey": (saved(GREY, "tiff"), grey(GREY), 0),
    "tiff of 16 bits": (saved(DEEP, "tiff"), grey(GREY), 1),
    "tiff of 16 bits, signed": (tiff((GREY.astype("<i2") * 128), 16, 2), grey(GREY), 1),
    "tiff of 32 bits": (tiff(GREY.astype("<u4") * 0x01010101, 32, 1), grey(GREY), 1),
    "tiff of 32 bits, signed": (tiff(GREY.astype("<i4") * 0x808080, 32, 2), grey(GREY), 1),
    "tiff of floats": (saved((GREY / 255).astype(np.float32), "tiff"), grey(GREY), 1),
    "tiff of floats that are none": (saved(np.full((SIDE, 40), np.nan, np.float32), "tiff"),
                                     np.zeros((SIDE, 40, 3)), 0),
    "tiff cmyk": (saved(Image.fromarray(RGB).convert("CMYK"), "tiff"), RGB, 1),
    "tiff with alpha": (saved(np.dstack([RGB, ALPHA]), "tiff"), OVER_WHITE, 1),
    "tiff, deflated": (saved(RGB, "tiff", compression="tiff_deflate"), RGB, 0),
    "tiff turned": (saved(RGB, "tiff", tiffinfo={274: 6}), upright(RGB, 6), 0),
    "gif": (saved(palette, "gif"), np.asarray(palette.convert("RGB")), 0),
    "gif of two frames": (saved(frames[0], "gif", save_all=True, append_images=frames[1:]), grey(GREY), 0),
    "bmp": (saved(RGB, "bmp"), RGB, 0), "pcx": (saved(RGB, "pcx"), RGB, 0), "sgi": (saved(RGB, "sgi"), RGB, 0),
    "webp, lossless": (saved(RGB, "webp", lossless=True), RGB, 0),
    "webp with alpha": (saved(np.dstack([RGB, np.where(ALPHA > 99, 255, 0).astype(np.uint8)]), "webp", lossless=True,
                              exact=True), np.where((ALPHA > 99)[..., None], RGB, 255), 0),
    "webp turned": (saved(RGB, "webp", lossless=True, exif=exif(turned(8))), upright(RGB, 8), 0),
    "jpeg": (saved(SMOOTH, "jpeg", quality=95), jpeg_pixels, 3),
    "jpeg grey": (saved(smooth.convert("L"), "jpeg", quality=95), grey(smooth.convert("L")), 3),
    "jpeg cmyk": (jpeg_cmyk, np.asarray(Image.open(BytesIO(jpeg_cmyk)).convert("RGB")), 3),
    "jpeg, progressive": (saved(SMOOTH, "jpeg", quality=95, progressive=True), jpeg_pixels, 3),
    **{f"jpeg turned {turn}": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(turn))),
                               upright(jpeg_pixels, turn), 3) for turn in range(1, 9)},
    "jpeg turned, big-endian": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(6, ">"), order=">")),
                                upright(jpeg_pixels, 6), 3),
    "jpeg turned, by a long": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(6, kind=4))),
                               upright(jpeg_pixels, 6), 3),
    "jpeg turned, an odd tag beside": (saved(SMOOTH, "jpeg", quality=95, exif=exif(odd_tag, turned(6))),
                                       upright(jpeg_pixels, 6), 3),
    "jpeg turned, a tag that leads astray": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(6), huge_tag)),
                                             upright(jpeg_pixels, 6), 3),
    "jpeg with an unknown turn": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(9))), jpeg_pixels, 3),
    "jpeg with broken exif": (saved(SMOOTH, "jpeg", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), jpeg_pixels, 3),
    "jpeg with cut exif": (saved(SMOOTH, "jpeg", quality=95, exif=exif(turned(6))[:17]), jpeg_pixels, 3),
    "one row": (saved(RGB[:1].repeat(60, 1), "png"), RGB[:1].repeat(60, 1), 0),
    "one column": (saved(RGB[:, :1].repeat(60, 0), "png"), RGB[:, :1].repeat(60, 0), 0),
    "one pixel": (saved(RGB[:1, :1], "png"), RGB[:1, :1], 0),
}
if "AVIF" in Image.OPEN:
    KINDS["avif"] = (saved(SMOOTH, "avif", quality=100, subsampling="4:4:4"), SMOOTH, 3)
if "JPEG2000" in Image.OPEN:
    KINDS["jpeg 2000"] = (saved(RGB, "jpeg2000"), RGB, 0)


def mutations(count, seed=7):
    """Real files with bytes changed, cut, repeated or exchanged."""
    random, files = np.random.default_rng(seed), [encoded for encoded, _, _ in KINDS.values()]
    for number in range(count):
        content = bytearray(files[number % len(files)])
        for _ in range(random.integers(1, 6)):
            place = int(random.integers(len(content)))
            match random.integers(4):
                case 0:
                    content[place] = random.integers(256)
                case 1:
                    del content[place:place + int(random.integers(1, 20))]
                case 2:
                    content[place:place] = content[:int(random.integers(1, 20))]
                case _:
                    content[place:place + 4] = os.urandom(4)
            if not content:
                content = bytearray(1)
        yield bytes(content)
