"""Commands on detectors: train one, and find objects in pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from resjax.console.arguments import parse
from resjax.detection.config import Detection
from resjax.system.errors import check
from resjax.system.files import file_name, write_aside
from resjax.system.platform import keep_compiled_programs
from resjax.system.progress import working
from resjax.system.serialization import flatten
from resjax.system.terminal import say, say_end


@dataclass(frozen=True)
class TrainArguments:
    """Train a detector, or go on where it was stopped. All values can be changed."""

    detection: Annotated[Detection, tyro.conf.arg(name="")]
    workdir: Path
    """Where the run is kept; the same command goes on there from where it was stopped."""
    distributed: bool = False
    """Join the processes that SLURM, Open MPI, Kubernetes or a TPU pod has started, each with this command."""


def train_detector(detection: Detection, arguments: Sequence[str], program: str) -> None:
    """Train a detector, or go on where it was stopped."""
    default = TrainArguments(detection, Path("runs") / file_name(detection.name))
    asked = parse(TrainArguments, arguments, program, default=default)
    with working("loading JAX"):
        from resjax.detection import train
        from resjax.detection.pictures import draw_run
        from resjax.system.distributed import is_first, join

    if asked.distributed:
        join()
    result = train.train_detector(asked.detection, asked.workdir)
    if not is_first():
        return
    pictures = []
    if not asked.distributed:  # many processes restore a checkpoint together or not at all
        with working("drawing"):
            pictures = [picture.name for picture in draw_run(asked.workdir)]
    precision = result["mean_average_precision"]
    told = "no test image has an object that counts" if precision is None else (
        f"mean average precision {precision:.2f} % at an overlap of 0.5")
    say(f"{result['name']}: {told} after {result['steps']:,} steps, {result['images_per_second']:.1f} images/s")
    say_end(f"In {asked.workdir}: {', '.join(['result.json', *pictures])}", f"resjax detect {asked.workdir} IMAGE")


def show_detector(detection: Detection, arguments: Sequence[str], program: str) -> None:
    """Show a detector's run, FILE:NAME: its values, and the parameters of its parts."""
    from resjax.plan.detector import parameters_of

    detection = parse(Detection, arguments, program, default=detection)
    say("\n".join(f"{key:36} {value}" for key, value in flatten(detection).items()))
    with working("tracing the network"):
        classes, parts = parameters_of(detection)
    say("\n" + "\n".join(f"{part:36} {count:12,} parameters" for part, count in parts.items()))
    say(f"\nFor {classes} classes: {sum(parts.values()):,} parameters, {len(detection.detector.anchor_sizes)} x "
        f"{len(detection.detector.anchor_ratios)} anchors every {detection.detector.stride} pixels")


def detect(
    network: Annotated[Path, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path = Path("detections"),
    score: float = 0.5,
) -> None:
    """Find objects in pictures, and draw them.

    They are printed, and their boxes drawn into copies of the pictures.

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
    with working("loading the detector"):
        from resjax.detection.draw import confident, draw_boxes
        from resjax.detection.evaluate import find_in, restore_detector

        keep_compiled_programs()
        trained = restore_detector(network)
    out.mkdir(parents=True, exist_ok=True)
    for file, (pixels, everything) in zip(images, find_in(images, trained), strict=True):
        found = confident(everything, score)
        picture = out / f"{file.stem}.png"
        write_aside(picture, draw_boxes(pixels, found, trained.classes).save)
        say(f"{file}: {len(found.scores)} objects, {picture}")
        for (x1, y1, x2, y2), value, label in zip(found.boxes, found.scores, found.labels, strict=True):
            name = trained.classes[label - 1]
            say(f"  {name:16} {100 * value:5.1f} %  x {x1:.0f} to {x2:.0f}, y {y1:.0f} to {y2:.0f}")
