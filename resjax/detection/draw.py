"""Draws boxes with classes and scores."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from resjax.detection.average_precision import Detected


def draw_boxes(pixels: np.ndarray, detections: Detected, classes: Sequence[str]) -> Image.Image:
    """Draw detections on an image uint8 `[height, width, 3]`, the best on top, with one colour per class."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    canvas, width = ImageDraw.Draw(picture), max(1, round(min(picture.size) / 200))
    for i in np.argsort(detections.scores, kind="stable"):
        label = int(detections.labels[i])
        colour = colour_of(label, len(classes))
        x1, y1, x2, y2 = (float(side) for side in detections.boxes[i])
        canvas.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colour, width=width)
        text = f"{classes[label - 1]} {detections.scores[i]:.2f}"
        place = (x1 + width, max(y1 - 12, 0))
        canvas.rectangle(canvas.textbbox(place, text), fill=colour)
        canvas.text(place, text, fill="black")
    return picture


def colour_of(label: int, classes: int) -> tuple[int, int, int]:
    """Return the colour of a class; the hues of all classes are evenly spaced."""
    red, green, blue = colorsys.hsv_to_rgb((label - 1) / max(classes, 1), 0.7, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def confident(detections: Detected, lowest: float) -> Detected:
    """Keep the detections with a score of at least `lowest`, best first."""
    order = np.argsort(-detections.scores, kind="stable")
    selected = order[detections.scores[order] >= lowest]
    return Detected(detections.boxes[selected], detections.scores[selected], detections.labels[selected])
