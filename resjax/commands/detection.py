"""The command on a trained detector: find objects in pictures."""

from pathlib import Path
from typing import Annotated

import tyro

from resjax.detection.draw import confident, draw_boxes
from resjax.detection.restore import find_in, restore_detector
from resjax.errors import check
from resjax.platform import keep_compiled_programs


def detect(
    network: Annotated[Path, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path = Path("detections"),
    score: float = 0.5,
) -> None:
    """Find objects in picture files; print them, and draw their boxes into a copy of each picture.

    Args:
        network: The workdir of a detector's run.
        images: Picture files of any size.
        out: The folder of the pictures with boxes, each named like its file.
        score: The lowest score that counts, 0 to 1.
    """
    check(bool(images), "name at least one image file")
    check(0 <= score <= 1, f"score is {score}; it lies in [0, 1]")
    names = [file.stem for file in images]
    check(len(set(names)) == len(names), "two images have the same name, and their pictures would be one file")
    keep_compiled_programs()
    trained = restore_detector(network)
    out.mkdir(parents=True, exist_ok=True)
    for file, (pixels, everything) in zip(images, find_in(images, trained), strict=True):
        found = confident(everything, score)
        picture = out / f"{file.stem}.png"
        draw_boxes(pixels, found, trained.classes).save(picture)
        print(f"{file}: {len(found.scores)} objects, {picture}")
        for (x1, y1, x2, y2), value, label in zip(found.boxes, found.scores, found.labels, strict=True):
            name = trained.classes[label - 1]
            print(f"  {name:16} {100 * value:5.1f} %  x {x1:.0f} to {x2:.0f}, y {y1:.0f} to {y2:.0f}")
