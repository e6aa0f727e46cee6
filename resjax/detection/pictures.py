"""Draws the training curve of a run and its detections in a few test images."""

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

from resjax.detection.annotations import AnnotatedImages
from resjax.detection.draw import draw_boxes
from resjax.detection.evaluate import Pictures, TrainedDetector, find_all, restore_detector
from resjax.detection.images import open_annotated
from resjax.system.files import write_aside
from resjax.training.log import read_metrics

SCORE = 0.5  # lowest score to draw
MOST_EXAMPLES = 6
SIDE = 320  # minimum length of the longer side of a drawn image, in pixels


def draw_run(folder: Path) -> tuple[Path, Path]:
    """Draw `curve.png` and `detections.png` into a finished run's folder."""
    trained = restore_detector(folder)
    images = open_annotated(trained.detection.data, train=False, classes=trained.classes)
    files = folder / "curve.png", folder / "detections.png"
    draw_training_curve(folder, files[0])
    write_aside(files[1], draw_examples(trained, images).save)
    return files


def draw_training_curve(folder: Path, file: Path) -> None:
    """Draw the training loss over the steps, and the mean average precision on the test images."""
    train, test = (read_metrics(folder, kind) for kind in ("train", "detection"))
    figure, loss = plt.subplots(figsize=(6, 3.6), layout="constrained")
    loss.plot([line["step"] for line in train], [line["loss"] for line in train], color="grey", linewidth=1)
    loss.set(xlabel="iteration", ylabel="training loss (sum of four)", ylim=(0, None))
    precision = loss.twinx()
    precision.plot([line["step"] for line in test], [line["mean_average_precision"] for line in test], "o-",
                   color="black")
    precision.set(ylabel="test mAP at IoU 0.5, %", ylim=(0, 100))
    write_aside(file, lambda aside: figure.savefig(aside, dpi=120))
    plt.close(figure)


def draw_examples(trained: TrainedDetector, images: AnnotatedImages) -> Image.Image:
    """Draw the detections in the first few images, side by side."""
    count = min(MOST_EXAMPLES, len(images.records))
    pixels = tuple(images.pixels(index) for index in range(count))
    few, run = Pictures(images.classes, tuple(images.records[:count]), pixels), trained.detection
    only_good = replace(run, sampling=replace(run.sampling, lowest_score=SCORE))
    detections = find_all(trained._replace(detection=only_good), few)
    drawings = []
    for image, detected in zip(pixels, detections, strict=True):
        growth = max(1, round(SIDE / max(image.shape[:2])))
        large = image.repeat(growth, 0).repeat(growth, 1)
        drawings.append(draw_boxes(large, detected._replace(boxes=growth * detected.boxes), trained.classes))
    return beside_each_other(drawings)


def beside_each_other(pictures: list[Image.Image], columns: int = 3) -> Image.Image:
    """Arrange images in rows."""
    width, height = (max(picture.size[axis] for picture in pictures) for axis in (0, 1))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(pictures)), height * rows), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    return sheet
