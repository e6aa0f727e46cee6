"""Commands on trained networks, wherever their weights come from: measure, use and export them."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from resjax.experiment import Resize
from resjax.experiment_files import load_runs
from resjax.models.variants import Bare, Form, Protocol, StrideIn
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded
from resjax.system.platform import keep_compiled_programs
from resjax.system.progress import working
from resjax.system.terminal import aligned, room, say
from resjax.training.kinds import Exam, Kind, kind_at


@dataclass(frozen=True)
class Unsaid:
    """What a file of weights cannot say; the error says when it is needed."""

    stride_in: StrideIn | None = None
    """Which convolution of the bottlenecks strides: 3x3 (v1.5: torchvision, timm) or 1x1 (v1: the paper)."""
    shortcut: Bare | None = None
    """Whether a file of weights without projections holds a plain net or one with option A."""
    resize: Resize | None = None
    """How images are resized, if not as the weights' description says: area (ours), or as Pillow does."""
    key: str | None = None
    """Which set of weights to use in a file with several, such as state_dict or state_dict_ema; the error lists
    them."""
    code: Path | None = None
    """The Python file that a run with a network of its own was trained from; it is executed."""


Asked = tyro.conf.OmitArgPrefixes[Unsaid]
NOTHING_SAID = Unsaid()
NETWORK = ("a run directory, weights (a file, or a folder with one), OWNER/NAME on the Hugging Face Hub, or one that "
           "comes with resjax, such as resnet20")


def load_as(target: str, unsaid: Unsaid) -> tuple[Kind, Any]:
    """Load a network, with what was said of it, and return it after its kind."""
    with working(f"loading {target}"):
        keep_compiled_programs()
        place = expanded(target)
        kind = kind_at(target)
        return kind, kind.open(target, unsaid, own_model(place, unsaid.code))


def own_model(run_directory: Path, code: Path | None) -> Any:
    """Return the own network of the run in a folder, as a file defines it; None without. Raises BadInput for another.

    Only a file that is named is executed: what lies in a run's folder never is.
    """
    if code is None or not (run_directory / "experiment.json").is_file():
        return None
    from resjax.training.run_directory import read_experiment  # here, so that the help is quick

    name, runs = read_experiment(run_directory).name, load_runs(code)
    found = [run for run in runs.values() if run.name == name]
    check(bool(found), f"{code} has no run named {name!r}, as {run_directory} is; it has: {', '.join(runs)}")
    return found[0].own.model


def evaluate_networks(
    networks: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK ...",
                                                                            help_behavior_hint="")],
    split: Literal["train", "validation", "test"] = "test",
    views: Protocol = "single",
    batch_size: int = 128,
    data: str | None = None,
    directory: Path | None = None,
    by_class: bool = False,
    out: Path = Path("evaluation"),
    weights: Asked = Unsaid(),
) -> None:
    """Measure the errors of one network or several.

    A network is a run's newest checkpoint or anyone's weights. Several networks are measured together, as an ensemble.
    For a detector, the average precision is measured.

    Args:
        networks: A run directory, weights (a file, or a folder with one), OWNER/NAME on the Hugging Face Hub, or one
            that comes with resjax, such as resnet20. For several networks, their mean softmax is measured (an
            ensemble).
        split: Which images to measure on.
        views: The crops and scales of each test image over which softmax is averaged (section 3.4).
        batch_size: How many images go through the network together; this changes only the speed.
        data: The data set, if not the one that the network was trained on: folder:PATH, tars:PATH or tfds:NAME; for a
            detector, voc:PATH or coco:PATH.
        directory: The folder of prepared TFDS sets, if not where the run found them.
        by_class: Also report the errors of each class, a confusion matrix, and a sheet of the most confident mistakes.
        out: The folder for these tables and figures.
        weights: What a file of weights cannot say.
    """
    if batch_size < 1:
        raise BadInput(f"batch-size is {batch_size}; it must be at least 1")
    if not networks:
        raise BadInput(f"name at least one network: {NETWORK}")
    check(not by_class or out.is_dir() or not out.exists(), f"--out {out} is no folder")
    kinds, loaded = zip(*(load_as(network, weights) for network in networks), strict=True)
    check(len(set(kinds)) == 1, f"{networks[0]} is a {kinds[0].NOUN}, and another is none: measure them apart")
    exam, rows = Exam(split, None if views == "single" else views, batch_size, data, directory), []
    with working(f"evaluating, {split}"):
        if by_class:
            found, rows = kinds[0].examine(loaded, exam, out)
        else:
            found = kinds[0].measure(loaded, *exam)
    names = " + ".join(kinds[0].title_of(network) for network in loaded)
    say(f"{names}, {split}{'' if views == 'single' else f', {views}'}: {kinds[0].say_measured(found)}")
    if by_class:
        say("\n" + "\n".join(aligned(rows, room(sys.stdout))))
        say(f"\nIn {out}: {', '.join(sorted(file.name for file in out.iterdir()))}")


def export_network(
    network: Annotated[str, tyro.conf.Positional],
    to: Form,
    out: Path,
    weights: Asked = Unsaid(),
) -> None:
    """Write a network in another library's format.

    It is written into a new folder, with a model card that states its measured errors.

    Args:
        network: A run directory, weights (a file, or a folder with one), OWNER/NAME on the Hugging Face Hub, or
            one that comes with resjax, such as resnet20.
        to: Whose names and layout to write the weights in: torchvision (timm and pytorch-cifar-models too),
            huggingface, keras, akamaster (pytorch_resnet_cifar10), resjax (any network of the paper, plain ones too);
            or the whole function from pixels to logits: stablehlo, for any process with JAX, or onnx, for ONNX Runtime.
        out: The folder to write; it must not exist yet.
        weights: What a file of weights cannot say.
    """
    kind, loaded = load_as(network, weights)
    with working(f"writing {out}"):
        folder = kind.export(loaded, to, out, Path(network))
    say(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
