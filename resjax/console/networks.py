"""Commands that evaluate and export trained networks from any source."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from resjax.experiment import Resize
from resjax.experiment.fields import Format, TestProtocol
from resjax.experiment_files import load_runs
from resjax.models.families import Bare, StrideIn
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded
from resjax.system.platform import keep_compiled_programs
from resjax.system.progress import working
from resjax.system.terminal import aligned, room, say
from resjax.training.kinds import Exam, Kind, kind_at


@dataclass(frozen=True)
class Unsaid:
    """Details that some weights files do not state. An error tells you when a detail is needed."""

    stride_in: StrideIn | None = None
    """The bottleneck convolution that has the stride: 3x3 (v1.5, torchvision and timm) or 1x1 (v1, the paper)."""
    shortcut: Bare | None = None
    """The shortcuts of a network whose weights file has no projections: plain (no shortcuts), or A (option A: identity,
    with zeros for new channels)."""
    resize: Resize | None = None
    """The resize filter to use instead of the one that the weights specify: area (resjax's own filter), or a filter of
    Pillow or PyTorch."""
    key: str | None = None
    """The name of the set of weights to use, such as state_dict_ema, if a file contains several sets."""
    code: Path | None = None
    """For a run with a custom network, the Python file that defines the network. resjax executes this file."""


Asked = tyro.conf.OmitArgPrefixes[Unsaid]
NOTHING_SAID = Unsaid()
NETWORK = ("a run directory, a weights file or its folder, OWNER/NAME on the Hugging Face Hub, or a "
           "network that comes with resjax, such as resnet20")


def load_as(target: str, unsaid: Unsaid) -> tuple[Kind, Any]:
    """Load a network with the given details. Return its kind and the network."""
    with working(f"loading {target}"):
        keep_compiled_programs()
        place = expanded(target)
        kind = kind_at(target)
        return kind, kind.open(target, unsaid, own_model(place, unsaid.code))


def own_model(run_directory: Path, code: Path | None) -> Any:
    """Return the custom network that a file defines for a run; None without a file.

    Only a file that the user names is executed, never a file in the run directory. Raises BadInput if the file defines
    no such run.
    """
    if code is None or not (run_directory / "experiment.json").is_file():
        return None
    from resjax.training.run_directory import read_experiment  # imported here, so that the help is quick

    name, runs = read_experiment(run_directory).name, load_runs(code)
    matching = [run for run in runs.values() if run.name == name]
    check(bool(matching), f"{code} defines no experiment named {name!r}, which {run_directory} needs; it defines "
                       f"{', '.join(runs)}")
    return matching[0].own.model


def evaluate_networks(
    networks: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK ...",
                                                                            help_behavior_hint="")],
    split: Literal["train", "validation", "test"] = "test",
    views: TestProtocol = "single",
    batch_size: int = 128,
    data: str | None = None,
    directory: Path | None = None,
    by_class: bool = False,
    out: Path = Path("evaluation"),
    weights: Asked = Unsaid(),
) -> None:
    """Measure the error of a network or of an ensemble.

    A run is evaluated at its newest checkpoint. For a detector, the average precision is measured instead of the
    error.

    Args:
        networks: Run directories, weights files or their folders, OWNER/NAME on the Hugging Face Hub, or networks that
            come with resjax, such as resnet20. Several classifiers are evaluated as an ensemble, that is, by the mean
            of their softmax outputs.
        split: The images to evaluate on.
        views: The crops and scales of each test image. The softmax outputs are averaged over all crops and scales
            (section 3.4).
        batch_size: The number of images in a batch. It affects only speed and memory use.
        data: The data set to evaluate on: folder:PATH, tars:PATH or tfds:NAME for a classifier, voc:PATH or coco:PATH
            for a detector. Defaults to the data set that the network was trained on.
        directory: The folder of prepared TensorFlow Datasets. Defaults to the folder that the run used.
        by_class: Also write the error of each class, a confusion matrix, and a figure of the most confident mistakes.
        out: The folder for the tables and figures of `by_class`.
        weights: Details that some weights files do not state.
    """
    from resjax.training.images import check_held_out  # imported here, so that the help is quick

    if batch_size < 1:
        raise BadInput(f"batch-size is {batch_size}; it must be at least 1")
    if not networks:
        raise BadInput(f"give at least one network: {NETWORK}")
    check(not by_class or out.is_dir() or not out.exists(), f"--out {out} is not a folder")
    kinds, loaded = zip(*(load_as(network, weights) for network in networks), strict=True)
    check(len(set(kinds)) == 1, f"{networks[0]} is a {kinds[0].NOUN}, and another network is not; evaluate "
                                 "them separately")
    exam, rows, files = Exam(split, None if views == "single" else views, batch_size, data, directory), [], []
    with working(f"evaluating the {split} split"):
        for network in networks:
            check_held_out(network, split, data)
        if by_class:
            measured, rows, files = kinds[0].examine(loaded, exam, out)
        else:
            measured = kinds[0].measure(loaded, *exam)
    names = " + ".join(kinds[0].title_of(network) for network in loaded)
    say(f"{names}, {split}{'' if views == 'single' else f', {views}'}: {kinds[0].say_measured(measured)}")
    if by_class:
        say("\n" + "\n".join(aligned(rows, room(sys.stdout))))
        say(f"\nWrote to {out}: {', '.join(sorted(file.name for file in files))}")


def export_network(
    network: Annotated[str, tyro.conf.Positional],
    to: Format,
    out: Path,
    weights: Asked = Unsaid(),
) -> None:
    """Export a network to another library's format.

    The command writes the network to a new folder, together with a model card. The card states the network's errors, if
    they have already been measured.

    Args:
        network: A run directory, a weights file or its folder, OWNER/NAME on the Hugging Face Hub, or a network that
            comes with resjax, such as resnet20.
        to: The format. The formats for weights are torchvision (also for timm and pytorch-cifar-models), huggingface,
            keras, akamaster (pytorch_resnet_cifar10) and resjax (all networks of the paper, including plain ones). The
            formats for a function from pixels to logits are stablehlo (for JAX) and onnx (for ONNX Runtime).
        out: The folder to create.
        weights: Details that some weights files do not state.
    """
    kind, loaded = load_as(network, weights)
    with working(f"writing {out}"):
        folder = kind.export(loaded, to, out, Path(network))
    say(f"Wrote to {folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
