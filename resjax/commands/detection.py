"""Commands on detectors: train one, and find objects in pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from resjax.detection.config import Detection
from resjax.detection.draw import confident, draw_boxes
from resjax.detection.pictures import draw_run
from resjax.detection.restore import find_in, restore_detector
from resjax.detection.train import train_detector
from resjax.errors import BadInput, check
from resjax.platform import keep_compiled_programs


@dataclass(frozen=True)
class TrainArguments:
    """Every value of the run can be overridden; wrong names and types are refused."""

    detection: Annotated[Detection, tyro.conf.arg(name="")]
    workdir: Path
    """Where the run is kept; the same command goes on there from where it was stopped."""


def train_one_of(detections: Mapping[str, Detection], arguments: Sequence[str], program: str) -> None:
    """Carry out `FILE NAME [--workdir W] [overrides]`, for a file of detectors that is run as a script.

    Raises BadInput that lists the names there are.
    """
    names = "\n".join(f"  {name}" for name in detections)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"python {program} NAME [--workdir W] [--seed S] [overrides]; NAME --help tells more.\n{names}")
        return
    name, *rest = arguments
    if name not in detections:
        raise BadInput(f"unknown detector {name!r}. There are: {', '.join(detections)}")
    default = TrainArguments(detections[name], Path("runs") / name)
    asked = tyro.cli(TrainArguments, prog=f"{program} {name}", args=rest, default=default)
    result = train_detector(asked.detection, asked.workdir)
    pictures = " and ".join(map(str, draw_run(asked.workdir)))
    print(f"{result['name']}: mean average precision {result['mean_average_precision']:.2f} % at an overlap of 0.5 "
          f"after {result['steps']} steps, {result['images_per_second']:.1f} images/s, "
          f"{asked.workdir / 'result.json'}, {pictures}")


def detect(
    network: Annotated[Path, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path = Path("detections"),
    score: float = 0.5,
) -> None:
    """Find objects in picture files; print them, and draw their boxes into copies of the pictures.

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
