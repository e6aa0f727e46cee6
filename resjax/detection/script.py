"""The command line of a file of detectors: `python FILE NAME [--workdir W] [overrides]`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from resjax.detection.config import Detection
from resjax.detection.pictures import draw_run
from resjax.detection.train import train_detector
from resjax.dispatch import guarded
from resjax.errors import BadInput


@dataclass(frozen=True)
class TrainArguments:
    """Every value of the run can be overridden; wrong names and types are refused."""

    detection: Annotated[Detection, tyro.conf.arg(name="")]
    workdir: Path
    """Where the run is kept; the same command goes on there from where it was stopped."""


def run(detections: Mapping[str, Detection]) -> None:
    """Be the command line of a file of detectors, and exit with its code."""
    sys.exit(guarded(lambda: train_one_of(detections, sys.argv[1:], Path(sys.argv[0]).name)))


def train_one_of(detections: Mapping[str, Detection], arguments: Sequence[str], program: str) -> None:
    """Train the detector that is named. Raises BadInput that lists those there are."""
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
