"""The views (crops) of a test image (section 3.4), which pure functions cut from a uint8 image.

The image is first resized, usually so that its shorter side has `View.side` pixels. The network processes the views
`[views, height, width, 3]`, and the softmax outputs are averaged over the views.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, get_args

import numpy as np

from resjax.data import Crop, Preprocessing, centre_crop
from resjax.data.preprocessing import scaled
from resjax.experiment import Resize
from resjax.experiment.fields import TestProtocol
from resjax.system.errors import BadInput

PROTOCOLS: tuple[str, ...] = get_args(TestProtocol)
SCALES = (224, 256, 384, 480, 640)  # shorter sides, for networks trained on crops of 224
STRIDE = 32  # pixels of the image per pixel of the last map, along each side


class View(NamedTuple):
    """The shorter side to resize to, the size of the crops (None for the whole image), the number of crops, and the
    function that cuts them. If `squash` is given, images are resized to this height and width instead.
    """

    side: int
    size: tuple[int, int] | None
    number: int
    crop: Callable[[np.ndarray, int, int], np.ndarray]
    squash: tuple[int, int] | None = None


def views_of(protocol: str, preprocessing: Preprocessing) -> tuple[View, ...]:
    """Return the views whose softmax outputs are averaged. Raises BadInput for an unknown protocol."""
    height, width, _ = preprocessing.image_shape
    one, ten = partial(centre, rule=preprocessing.crop), partial(ten_crop, rule=preprocessing.crop)
    usual = round(min(height, width) * 256 / 224) if preprocessing.squash else min(height, width)
    side = preprocessing.shorter_side or usual
    match protocol:
        case "single":
            return (View(side, (height, width), 1, one, preprocessing.squash),)
        case "ten-crop":  # keeps the aspect ratio, even if the network usually squashes images
            return (View(side, (height, width), 10, ten),)
        case "multi-scale":
            sides = [STRIDE * round(scale * height / SCALES[0] / STRIDE) for scale in SCALES]
            return tuple(View(side, None, 1, one) for side in sides)
    raise BadInput(f"views is {protocol!r}; it must be one of {', '.join(PROTOCOLS)}")


def whole(height: int, width: int, side: int, rule: Resize = "area") -> tuple[int, int]:
    """Return the crop size for a whole image with shorter side `side`, rounded down to multiples of 32.

    The longer side is limited to twice the shorter one. The network is fully convolutional and takes any size. Rounding
    reduces the number of sizes, and thus of programs to compile.
    """
    long = min(scaled(max(height, width), side, min(height, width), rule), 2 * side) // STRIDE * STRIDE
    return (side, long) if height < width else (long, side)


def centre(image: np.ndarray, height: int, width: int, rule: Crop = "floor") -> np.ndarray:
    """Return one view, the centre crop."""
    return centre_crop(image, height, width, rule)[None]


def ten_crop(image: np.ndarray, height: int, width: int, rule: Crop = "floor") -> np.ndarray:
    """Return ten views: four corners, centre, and their mirror images (Krizhevsky et al. 2012)."""
    corners = [image[rows, columns] for rows in (slice(height), slice(-height, None))
               for columns in (slice(width), slice(-width, None))]
    five = np.stack([*corners, centre_crop(image, height, width, rule)])
    return np.concatenate([five, five[:, :, ::-1]])
