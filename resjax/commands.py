"""What the command line can do, one function a command."""

import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import tyro

from resjax import catalogue
from resjax.analysis import count_macs, count_parameters, list_layers
from resjax.data import prepare_cifar10, subtract
from resjax.data.prepared import data_directory
from resjax.doctor import examine
from resjax.errors import BadInput
from resjax.evaluation import Protocol
from resjax.experiment import Experiment, Photographs, flatten, image_shape
from resjax.measure import look_at, measure
from resjax.photographs import find_photographs, measure_statistics
from resjax.processes import is_first, join
from resjax.training import restore
from resjax.training import train as train_experiment

SAME_KIND = tyro.conf.AvoidSubcommands  # flags change an experiment's data, not what kind they are
EXPERIMENTS = Path(__file__).parents[1] / "experiments"  # beside the package, in a checkout


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Every value of the experiment can be overridden; wrong names and types are refused."""

    experiment: Annotated[Experiment, tyro.conf.arg(name="")]
    workdir: Path
    """Where the run is kept; the same command goes on there from where it was stopped."""
    distributed: bool = False
    """Join the processes that SLURM, Open MPI, Kubernetes or a TPU pod has started, each with this command."""


def train(experiment: Experiment, arguments: Sequence[str], program: str) -> None:
    """Train an experiment: FILE:NAME [--workdir W] [--seed S] [overrides]."""
    default = TrainArguments(experiment, Path("runs") / experiment.name)
    asked = tyro.cli(TrainArguments, prog=program, args=arguments, default=default, config=(SAME_KIND,))
    if asked.distributed:
        join()
    result = train_experiment(asked.experiment, asked.workdir)
    if not is_first():
        return
    print(f"{result['name']}: test error {result['test_top1_error']:.2f} % after {result['steps']} steps, "
          f"{result['images_per_second']:.0f} images/s, {asked.workdir / 'result.json'}")


def mean_image(experiment: Experiment, arguments: Sequence[str], program: str) -> None:
    """Compute the mean training image and the principal colours, FILE:NAME, before a training needs them."""
    experiment = tyro.cli(Experiment, prog=program, args=arguments, default=experiment, config=(SAME_KIND,))
    if not isinstance(experiment.data, Photographs):
        raise BadInput(f"{experiment.name} trains on images in memory, whose mean takes no time")
    photos = find_photographs(experiment.data)
    mean, colours = measure_statistics(photos, experiment.data)
    red_green_blue, deviations = (", ".join(f"{value:.1f}" for value in values)
                                  for values in (mean.mean((0, 1)), np.linalg.norm(colours, axis=0)))
    print(f"{len(photos.train.labels):,} training images: mean colour {red_green_blue}; "
          f"standard deviations along the principal colours {deviations}")


def list_experiments(file: Annotated[Path, tyro.conf.Positional]) -> None:
    """List the experiments of a file.

    Args:
        file: A Python file such as experiments/cifar10.py.
    """
    for name, e in catalogue.load_experiments(file).items():
        print(f"{name:24} {e.architecture.shortcut}-{e.architecture.depth}, {e.data.source}, {e.steps} steps")


def show(experiment: Experiment, arguments: Sequence[str], program: str) -> None:
    """Show an experiment, FILE:NAME: its values, its layers, its parameters and multiply-adds."""
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


def evaluate_run(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    split: Literal["train", "validation", "test"] = "test",
    views: Protocol = "single",
    batch_size: int = 128,
    source: str | None = None,
    directory: Path | None = None,
) -> None:
    """Measure the errors of a run's newest checkpoint, or of several runs together.

    Args:
        runs: The run's workdir; of several, the mean of their softmax outputs is measured (an ensemble).
        split: Which images to measure on.
        views: How photographs are looked at; several views are averaged.
        batch_size: Images at once; it changes the speed and nothing else.
        source: What to read, if not what the run was trained on: folder:PATH, tars:PATH or tfds:NAME.
        directory: Where prepared TFDS sets lie, if not where the run found them.
    """
    if batch_size < 1:
        raise BadInput(f"batch-size is {batch_size}; it must be at least 1")
    if not runs:
        raise BadInput("name at least one run")
    trained = [restore(run) for run in runs]
    errors = measure(trained, split, views, batch_size, source, directory)
    names = " + ".join(f"{each.experiment.name}, step {each.state.step}" for each in trained)
    print(f"{names}, {split}{'' if views == 'single' else f', {views}'}: top-1 error {errors.top1_error:.2f} %, "
          f"top-5 error {errors.top5_error:.2f} %, loss {errors.loss:.4f}, {errors.images} images")


def predict(
    run: Annotated[Path, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
) -> None:
    """Name the likeliest classes of image files.

    Args:
        run: The run's workdir.
        images: Image files of any size; the centre square is brought to the size that the network was trained on.
    """
    if not images:
        raise BadInput("name at least one image file")
    trained = restore(run)
    for file in images:
        image = subtract(jax.device_put(look_at(file, trained)), trained.state.mean)
        logits = trained.model.apply(trained.state.variables, image[None])
        probabilities, classes = jax.lax.top_k(jax.nn.softmax(logits[0]), min(5, len(trained.classes)))
        ranked = ", ".join(f"{trained.classes[c]} {100 * p:.1f} %" for p, c in zip(probabilities, classes, strict=True))
        print(f"{file}: {ranked}")


def prepare(
    name: Annotated[Literal["cifar10"], tyro.conf.Positional],
    directory: Path | None = None,
    archive: Path | None = None,
) -> None:
    """Get a data set and write it as TFDS reads it.

    Args:
        name: The data set.
        directory: Where to; by default RESJAX_DATA, else ~/tensorflow_datasets.
        archive: A local copy of the official cifar-10-binary.tar.gz; without it, it is downloaded.
    """
    prepare_cifar10(data_directory(directory), archive)


def doctor(directory: Path | None = None) -> None:
    """Check this machine: versions, devices, arithmetic, data.

    Args:
        directory: Where prepared TFDS sets lie; by default RESJAX_DATA, else ~/tensorflow_datasets.
    """
    findings = list(examine(data_directory(directory)))
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'LOOK'}  {finding.text}")
    if not all(finding.ok for finding in findings):
        sys.exit(1)


def reproduce(
    table: Annotated[str, tyro.conf.Positional],
    runs: Path = Path("runs"),
    seeds: int | None = None,
    only: str = "",
    scale: float = 1.0,
    shard: str = "1/1",
    together: int | None = None,
    experiments: Path = EXPERIMENTS,
    source: str | None = None,
    directory: Path | None = None,
    distributed: bool = False,
) -> None:
    """Reproduce a table of the paper: train what is missing, and set ours beside the paper's.

    Args:
        table: table1 (counted, not trained), table2 ... table6; or article, the experiments of experiments/article.py.
        runs: The folder of all runs; the table is saved there too. The same command goes on after any stop.
        seeds: Runs of each row, with the seeds 0, 1, ...; by default 5 on CIFAR-10, and 1 on ImageNet as in the paper.
        only: Some rows only: resnet20,plain20.
        scale: Shorten the schedule in proportion; such numbers are labelled and never stand as the reproduction.
        shard: Train one part of the runs, such as 2/8, and leave the others to other machines.
        together: Seeds of a row to train in one program; by default all on an accelerator, and one on CPU.
        experiments: The folder of the experiment files.
        source: What to read in place of what the experiments say: folder:PATH, tars:PATH or tfds:NAME.
        directory: Where prepared TFDS sets lie; by default RESJAX_DATA, else ~/tensorflow_datasets.
        distributed: Join the processes that SLURM, Open MPI, Kubernetes or a TPU pod has started.
    """
    from resjax import paper  # here, as matplotlib takes half a second that other commands need not wait

    if table == "article":  # not a table: what a student sees of the paper's claims in minutes
        catalogue.load_file(experiments / "article.py").article(runs / "article")
        return
    if table == "table1":
        print(paper.table1())
        return
    if distributed:
        join()
    wanted = paper.find_table(table)
    seeds = (5 if table == "table6" else 1) if seeds is None else seeds
    rows = [name for name in only.split(",") if name]
    planned = paper.plan(wanted, experiments, runs, seeds, rows, scale, directory, source)
    together = (1 if jax.default_backend() == "cpu" else seeds) if together is None else together
    if together < 1:
        raise BadInput(f"together is {together}; it must be at least 1")
    paper.train_missing(paper.part(planned, shard), together, partial(tell, table))
    chosen = [f"--seeds {seeds}", *[f"--only {only}"] * bool(only), *[f"--scale {scale:g}"] * (scale != 1)]
    file = paper.conclude(wanted, planned, scale, runs, f"resjax reproduce {table} {' '.join(chosen)}")
    if is_first():
        print(f"\n{file.read_text()}\n{file}")


def tell(table: str, text: str) -> None:
    """Print how far a table has come."""
    if is_first():
        print(f"{table}  {text}", file=sys.stderr, flush=True)


def report(
    folder: Annotated[Path, tyro.conf.Positional] = Path("runs"),
    out: Path | None = None,
    tensorboard: Path | None = None,
) -> None:
    """Write one page of HTML about all runs in a folder; it opens without a network.

    Args:
        folder: The folder of the runs.
        out: The page; by default report.html in the folder.
        tensorboard: Also write the curves as TensorBoard logs, into this folder.
    """
    from resjax import paper

    file = out or folder / "report.html"
    paper.write_report(folder, file)
    print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    if tensorboard:
        paper.write_tensorboard(folder, tensorboard)
        print(f"tensorboard --logdir {tensorboard}")
