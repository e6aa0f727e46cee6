"""Commands that train, list and show experiments, and compute their mean images."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from resjax import experiment_files
from resjax.console.arguments import parse
from resjax.experiment import Architecture, Photographs
from resjax.models.formulas import count
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded, file_name
from resjax.system.progress import one_by_one, working
from resjax.system.serialization import flatten
from resjax.system.terminal import aligned, duration, quoted, room, say, say_end, speed, tell
from resjax.training.kinds import Kind, Run, kind_of

Value = TypeVar("Value")
MOST_SEEDS = 1_000
# Multiply-adds per second when ResNet-20 trains on 2 CPU cores at 684 images/s (187 ms per step, the lowest time with
# huge pages and default arenas in docs/results/onednn.md). Training makes three for each of the forward pass. Other
# networks reach about as many, so the cost of a run is given to one digit.
CPU = 684 * 3 * count(Architecture(), (32, 32, 3), 10).macs


@dataclass(frozen=True)
class TrainArguments(Generic[Value]):
    """Train a network, or resume its training. You can change all values of the run."""

    experiment: Annotated[Value, tyro.conf.arg(name="")]
    workdir: Path
    """The run directory. To resume a stopped run, repeat the command that started it."""
    seeds: int = 1
    """The number of runs to train, with consecutive seeds from `seed` on. If there are several, each run has a folder
    in `workdir`, named after its seed, such as seed0."""
    tensorboard: Path | None = None
    """Also write TensorBoard logs during training, to a subfolder of PATH with the name of the run directory."""
    distributed: bool = False
    """Train with all processes that SLURM, Open MPI, Kubernetes or a TPU pod has started with this command."""


def train(experiment: Run, arguments: Sequence[str], program: str) -> None:
    """Train a network, or resume its training."""
    arguments_of: Any = TrainArguments
    default = TrainArguments(experiment, Path("runs") / file_name(experiment.name))
    asked = parse(arguments_of[type(experiment)], arguments, program, default=default)
    logs = asked.tensorboard and expanded(asked.tensorboard)
    asked = replace(asked, workdir=expanded(asked.workdir), tensorboard=logs)
    with working("loading JAX"):  # each command imports only what it needs, so that `list` is quick
        from resjax.system.distributed import is_first, join

        kind = kind_of(asked.experiment)
    runs, pictures = by_seed(asked), []
    if asked.distributed:
        join()
    places = one_by_one(list(runs), [run.work() for run in runs.values()]) if len(runs) > 1 else runs
    for place in places:
        logs = asked.tensorboard and asked.tensorboard / place.relative_to(asked.workdir.parent)
        result = kind.train(runs[place], place, tensorboard=logs)
        if not is_first():
            continue
        if not asked.distributed:  # many processes restore a checkpoint together or not at all
            with working("drawing"):
                pictures = draw(kind, place)
        measure = kind.MEASURES[0]
        value = measure.written(measure.of(result)) or "-"
        say(f"{result['name']}: {measure.title.removesuffix(' %')} {value} % after {result['steps']:,} steps, "
            f"{speed(result['images_per_second'])}")
    if is_first():
        say_end(f"Wrote to {place}: {', '.join(['result.json', *pictures])}",
                f"resjax evaluate {quoted(place)}{code_flag(experiment, program)}",
                f"resjax report {quoted(asked.workdir.parent)}",
                *[f"resjax compare {quoted(asked.workdir)}"] * (len(runs) > 1))


def draw(kind: Kind, place: Path) -> list[str]:
    """Draw a finished run; return the names of the files. If its images or checkpoints are gone, only tell so."""
    try:
        return [picture.name for picture in kind.draw(place)]
    except BadInput as error:
        tell(f"{place}: nothing drawn ({error})")
        return []


def by_seed(asked: TrainArguments[Any]) -> dict[Path, Any]:
    """List the requested runs by folder. Raises BadInput for an implausible number of seeds."""
    check(1 <= asked.seeds <= MOST_SEEDS, f"seeds is {asked.seeds}; it must be in 1 ... {MOST_SEEDS}")
    if asked.seeds == 1:
        return {asked.workdir: asked.experiment}
    first = asked.experiment.seed
    return {asked.workdir / f"seed{seed}": replace(asked.experiment, seed=seed)
            for seed in range(first, first + asked.seeds)}


def code_flag(experiment: Any, program: str) -> str:
    """Return the flag that passes the file of a custom network (FILE in "resjax train FILE:NAME") to other commands."""
    file = program.removeprefix("resjax train ").rpartition(":")[0] or sys.argv[0]
    own = getattr(experiment, "own", None)
    return f" --code {quoted(file)}" if own and own.model is not None else ""


def mean_image(experiment: Any, arguments: Sequence[str], program: str) -> None:
    """Compute the mean training image before training."""
    experiment = parse(type(experiment), arguments, program, default=experiment)
    if not isinstance(experiment.data, Photographs):
        raise BadInput(f"{experiment.name} trains on {experiment.data.source}, whose mean image takes no time to "
                       "compute. Only experiments on photographs, such as resnet50, need mean-image")
    with working("finding the images"):
        import numpy as np

        from resjax.data import find_images, measure_statistics

        train = find_images(experiment.data).train
    mean, colours = measure_statistics(train, experiment.data)
    red_green_blue, deviations = (", ".join(f"{value:.1f}" for value in values)
                                  for values in (mean.mean((0, 1)), np.linalg.norm(colours, axis=0)))
    say(f"{len(train.labels):,} training images: mean colour {red_green_blue}; "
        f"standard deviations along the principal colours {deviations}")


def list_experiments(file: Annotated[Path | None, tyro.conf.Positional] = None) -> None:
    """List the experiments and their costs.

    Args:
        file: A Python file that defines experiments. For a file that comes with resjax, its name is enough, such as
            cifar10. By default, all experiments that come with resjax are listed.
    """
    files = [experiment_files.folder() / f"{stem}.py" for stem in experiment_files.SHIPPED] if file is None else [
        experiment_files.file_named(str(file))]
    for number, each in enumerate(files):
        runs = experiment_files.load_runs(each)
        sources = dict.fromkeys(run.data.source for run in runs.values())
        say(f"{chr(10) * bool(number)}{each.stem}: {', '.join(sources)}")
        rows = [HEAD, *([name, *cost_row(run)] for name, run in runs.items())]
        filled = [place for place, cells in enumerate(zip(*rows[1:], strict=True)) if set(cells) != {"-"}]
        say("\n".join(aligned([[cells[place] for place in filled] for cells in rows], room(sys.stdout))))
    say("\nmul-adds: multiply-adds for one image. cost: rough training time on 2 CPU cores, estimated from the "
        "multiply-adds. For a GPU or TPU: resjax plan NAME --on h100\nNext: resjax show NAME, resjax train NAME")


HEAD = ("name", "layers", "params", "mul-adds", "steps", "cost")


def cost_row(run: Any) -> list[str]:
    """Describe the cost of a run, with "-" for a number that is unknown until the images are read."""
    sizes = run.sizes()
    if sizes is None:
        return [run.title, "-", "-", short(run.steps), "-"]
    return [f"{run.architecture.depth}", short(sizes.parameters), short(sizes.macs), short(run.steps),
            rough_duration(3 * run.work() / CPU)]


def short(number: float) -> str:
    """Format a number with three digits, such as 270 k, 25.6 M or 3.86 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= 0.9995 * size:  # would be rounded up to it
            return f"{number / size:.3g} {unit}"
    return f"{number:g}"


def rough_duration(seconds: float) -> str:
    """Format a time roughly, such as 40 s, 5 h, 3 d or 2 y."""
    for unit, size in (("y", 365 * 86_400), ("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 0.99 * size:  # 1 h rather than 60 min
            return f"{seconds / size:.0f} {unit}"
    return duration(seconds)


def show(experiment: Any, arguments: Sequence[str], program: str) -> None:
    """Show an experiment's settings, layers and multiply-adds."""
    experiment = parse(type(experiment), arguments, program, default=experiment)
    with working("tracing the network"):
        parts = kind_of(experiment).parts(experiment)
    say("\n".join(f"{key:36} {value}" for key, value in flatten(experiment).items()))
    say(f"\n{parts}")
