"""Composes scenes of several digits of varied size, on an uneven background. The digits are scikit-learn's."""

from dataclasses import dataclass

import cv2
import numpy as np

from resjax.data import load_data
from resjax.detection.annotations import Annotated, Drawn, Stated
from resjax.experiment import Data

SIDE = 96  # pixels
DIGITS = (2, 5)  # smallest and largest number of digits in a scene
SIDES = (18, 40)  # side of a digit's image, in pixels
SCENES = {"train": 1_000, "test": 200}
TRIES = 50


@dataclass(frozen=True)
class Scenes:
    """Scenes in memory."""

    classes: tuple[str, ...]
    records: tuple[Annotated, ...]
    images: np.ndarray
    remarks: tuple[str, ...] = ()

    def pixels(self, index: int) -> np.ndarray:
        """Return a scene: uint8 `[height, width, 3]`."""
        pixels: np.ndarray = self.images[index]
        return pixels


def compose_scenes(split: str) -> Scenes:
    """Compose the scenes of a split ("train" or "test") from its digits. The result is deterministic."""
    digits = load_data(Data(source="digits"))
    images, labels = map(np.asarray, digits.train if split == "train" else digits.test)
    random = np.random.default_rng([17, list(SCENES).index(split)])
    scenes = [compose(random, images, labels, f"{split} scene {number}") for number in range(SCENES[split])]
    return Scenes(digits.classes, tuple(record for _, record in scenes), np.stack([pixels for pixels, _ in scenes]))


def compose(random: np.random.Generator, images: np.ndarray, labels: np.ndarray,
            name: str) -> tuple[np.ndarray, Annotated]:
    """Place digits with little overlap. The box of a digit is the bounding box of its ink."""
    ground = cv2.resize(random.uniform(0, 120, (4, 4)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    scene = np.repeat(ground[:, :, None], 3, 2) + random.normal(0, 8, (SIDE, SIDE, 1))
    drawn, taken = Drawn(name, SIDE, SIDE), np.zeros((SIDE, SIDE), bool)
    for _ in range(random.integers(DIGITS[0], DIGITS[1] + 1)):
        chosen = random.integers(len(labels))
        side = int(random.integers(SIDES[0], SIDES[1] + 1))
        ink = cv2.resize(images[chosen, :, :, 0].astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR) / 255
        rows, columns = (np.flatnonzero((ink > 0.25).any(axis)) for axis in (1, 0))
        colour = random.uniform(140, 255, 3)
        for _ in range(TRIES):
            top, left = random.integers(0, SIDE - side + 1, 2)
            box = (slice(top + rows[0], top + rows[-1] + 1), slice(left + columns[0], left + columns[-1] + 1))
            if not taken[box].any():
                taken[box] = True
                place = scene[top:top + side, left:left + side]
                place[:] = place * (1 - ink[:, :, None]) + colour * ink[:, :, None]
                corners = (box[1].start, box[0].start, box[1].stop, box[0].stop)
                drawn.add(Stated("", corners, int(labels[chosen]) + 1))
                break
    return np.clip(scene, 0, 255).astype(np.uint8), drawn.record()
