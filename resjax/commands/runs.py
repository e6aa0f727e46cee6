"""Commands on experiments: train one, list and show them, prepare their mean image."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from resjax import experiment_files
from resjax.errors import BadInput
from resjax.experiment import Experiment, Photographs, image_shape
from resjax.serialization import flatten

SAME_KIND: Any = tyro.conf.AvoidSubcommands  # flags change an experiment's data, not what kind they are


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Every value of the experiment can be overridden; wrong names and types are refused."""

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    workdir: Path
    """Where the run is kept; the same command goes on there from where it was stopped."""
    distributed: bool = False
    """Join the processes that SLURM, Open MPI, Kubernetes or a TPU pod has started, each with this command."""


def train(experiment: Any, arguments: Sequence[str], program: str) -> None:
    """Train an experiment: FILE:NAME [--workdir W] [--seed S] [overrides]."""
    if not isinstance(experiment, Experiment):
        from resjax.commands.detection import train_detector

        train_detector(experiment, arguments, program)
        return
    from resjax.distributed import is_first, join  # each command imports what it needs, so that `list` is quick
    from resjax.training import train as train_experiment

    default = TrainArguments(experiment, Path("runs") / experiment.name)
    asked = tyro.cli(TrainArguments, prog=program, args=arguments, default=default, config=(SAME_KIND,))
    if asked.distributed:
        join()
    result = train_experiment(asked.experiment, asked.workdir)
    if not is_first():
        return
    print(f"{result['name']}: test error {result['test_top1_error']:.2f} % after {result['steps']} steps, "
          f"{result['images_per_second']:.0f} images/s, {asked.workdir / 'result.json'}")


def mean_image(experiment: Any, arguments: Sequence[str], program: str) -> None:
    """Compute the mean training image and the principal colours, FILE:NAME, before a training needs them."""
    from resjax.data import find_images, measure_statistics

    if not isinstance(experiment, Experiment):
        raise BadInput(f"{experiment.name} trains a detector, which measures its mean colour itself")
    experiment = tyro.cli(Experiment, prog=program, args=arguments, default=experiment, config=(SAME_KIND,))
    if not isinstance(experiment.data, Photographs):
        raise BadInput(f"{experiment.name} trains on images in memory, whose mean takes no time")
    train = find_images(experiment.data).train
    mean, colours = measure_statistics(train, experiment.data)
    red_green_blue, deviations = (", ".join(f"{value:.1f}" for value in values)
                                  for values in (mean.mean((0, 1)), np.linalg.norm(colours, axis=0)))
    print(f"{len(train.labels):,} training images: mean colour {red_green_blue}; "
          f"standard deviations along the principal colours {deviations}")


def list_experiments(file: Annotated[Path, tyro.conf.Positional]) -> None:
    """List the experiments of a file.

    Args:
        file: A Python file such as experiments/cifar10.py.
    """
    for name, run in experiment_files.load_runs(file).items():
        network = (f"{run.architecture.shortcut}-{run.architecture.depth}" if isinstance(run, Experiment) else
                   f"Faster R-CNN, {run.detector.backbone}")
        print(f"{name:24} {network}, {run.data.source}, {run.steps} steps")


def show(experiment: Any, arguments: Sequence[str], program: str) -> None:
    """Show an experiment, FILE:NAME: its values, its layers, its parameters and multiply-adds."""
    if not isinstance(experiment, Experiment):
        from resjax.commands.detection import show_detector

        show_detector(experiment, arguments, program)
        return
    from resjax.analysis import count_macs, count_parameters, list_layers

    experiment = tyro.cli(Experiment, prog=program, args=arguments, default=experiment, config=(SAME_KIND,))
    for key, value in flatten(experiment).items():
        print(f"{key:36} {value}")
    image, classes = image_shape(experiment.data), 1000 if experiment.architecture.family == "imagenet" else 10
    model = experiment.architecture.model(classes)
    print(f"\n{'layer':28} {'kernel':18} {'output':14} {'times':>5} {'multiply-adds':>15}")
    for layer in list_layers(model, image):
        kernel, output = ("x".join(map(str, shape)) for shape in (layer.kernel, layer.output))
        print(f"{layer.name:28} {kernel:18} {output:14} {layer.repeats:5} {layer.macs:15,}")
    print(f"\nFor images of {'x'.join(map(str, image))} and {classes} classes: "
          f"{count_parameters(model, image):,} parameters, {count_macs(model, image):,} multiply-adds")
