"""Commands on detectors: train one, and find objects in pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from resjax.detection.config import Detection
from resjax.detection.draw import confident, draw_boxes
from resjax.detection.restore import find_in, restore_detector
from resjax.distributed import is_first, join
from resjax.errors import check
from resjax.platform import keep_compiled_programs
from resjax.serialization import flatten


@dataclass(frozen=True)
class TrainArguments:
    """Every value of the run can be overridden; wrong names and types are refused."""

    detection: Annotated[Detection, tyro.conf.arg(name="")]
    workdir: Path
    """Where the run is kept; the same command goes on there from where it was stopped."""
    distributed: bool = False
    """Join the processes that SLURM, Open MPI, Kubernetes or a TPU pod has started, each with this command."""


def train_detector(detection: Detection, arguments: Sequence[str], program: str) -> None:
    """Train a detector: FILE:NAME [--workdir W] [--seed S] [overrides]."""
    from resjax.detection import train
    from resjax.detection.pictures import draw_run

    default = TrainArguments(detection, Path("runs") / detection.name)
    asked = tyro.cli(TrainArguments, prog=program, args=arguments, default=default)
    if asked.distributed:
        join()
    result = train.train_detector(asked.detection, asked.workdir)
    if not is_first():
        return
    alone = not asked.distributed  # many processes restore a checkpoint together or not at all
    pictures = " and ".join(map(str, draw_run(asked.workdir))) if alone else "without pictures"
    print(f"{result['name']}: mean average precision {result['mean_average_precision']:.2f} % at an overlap of 0.5 "
          f"after {result['steps']} steps, {result['images_per_second']:.1f} images/s, "
          f"{asked.workdir / 'result.json'}, {pictures}")


def show_detector(detection: Detection, arguments: Sequence[str], program: str) -> None:
    """Show a detector's run, FILE:NAME: its values, and the parameters of its parts."""
    from resjax.detection.plan import parameters_of

    detection = tyro.cli(Detection, prog=program, args=arguments, default=detection)
    for key, value in flatten(detection).items():
        print(f"{key:36} {value}")
    classes, parts = parameters_of(detection)
    print()
    for part, count in parts.items():
        print(f"{part:36} {count:12,} parameters")
    print(f"\nFor {classes} classes: {sum(parts.values()):,} parameters, {len(detection.detector.anchor_sizes)} x "
          f"{len(detection.detector.anchor_ratios)} anchors every {detection.detector.stride} pixels")


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
