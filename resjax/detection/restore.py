"""A trained detector, read back from its folder, and what it sees in a picture."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np

from resjax.detection.annotations import Annotated, Drawn, read_image
from resjax.detection.average_precision import Found
from resjax.detection.config import Detection
from resjax.detection.evaluate import TrainedDetector, find_all
from resjax.detection.networks import FasterRCNN
from resjax.detection.step import draw_onto
from resjax.training.restore import restore_state
from resjax.training.run_directory import read_described


@dataclass(frozen=True)
class Pictures:
    """Picture files without annotations, as a set."""

    classes: tuple[str, ...]
    records: tuple[Annotated, ...]
    images: tuple[np.ndarray, ...]
    left_out: tuple[str, ...] = ()

    def pixels(self, index: int) -> np.ndarray:
        """Return a picture."""
        return self.images[index]


def read_detection(folder: Path) -> Detection:
    """Read the run that a folder holds. Raises BadInput where there is none."""
    return read_described(folder, Detection, {})[0]


def restore_detector(folder: str | Path, device: jax.Device | None = None) -> TrainedDetector:
    """Restore the newest checkpoint of a run onto one device, and of a finished run the one that its result tells of.

    Raises BadInput where there is none, or it is damaged or another. Nothing in the run's folder changes.
    """
    folder = Path(folder)
    detection, (classes,) = read_described(folder, Detection, {"classes": tuple[str, ...]})
    model = FasterRCNN(detection.detector, len(classes))
    place = jax.sharding.SingleDeviceSharding(device or jax.local_devices()[0])
    draw = partial(draw_onto, place, detection, len(classes), np.zeros((1, 1, 3), np.float32))
    state = restore_state(folder, detection, jax.eval_shape(draw, detection.seed), place)
    return TrainedDetector(detection, classes, model, state.variables, np.asarray(state.mean))


def find_in(files: tuple[Path, ...], trained: TrainedDetector) -> list[tuple[np.ndarray, Found]]:
    """Detect in picture files; return each file's pixels uint8 `[height, width, 3]` and what was found in it.

    Raises BadInput, naming the file, where one is missing or no image.
    """
    with ThreadPoolExecutor() as pool:
        images = tuple(pool.map(read_image, files))
    records = tuple(Drawn(str(file), *image.shape[:2]).record() for file, image in zip(files, images, strict=True))
    pictures = Pictures(trained.classes, records, images)
    return list(zip(images, find_all(trained, pictures), strict=True))
