"""Commands on trained networks, wherever their weights come from: measure, use and export them."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from resjax.experiment import Resize
from resjax.models.variants import Bare, Form, Protocol, StrideIn
from resjax.system.errors import BadInput
from resjax.system.files import read_json
from resjax.system.platform import keep_compiled_programs
from resjax.system.progress import shown, working
from resjax.system.serialization import flatten
from resjax.system.terminal import harmless, say, tell

if TYPE_CHECKING:  # each function imports what needs JAX, so that its help is quick
    from resjax.network import Network
    from resjax.weights import Measured


@dataclass(frozen=True)
class Unsaid:
    """What a file of weights cannot say; the error says when it is needed."""

    stride_in: StrideIn | None = None
    """Where the bottlenecks of a file of weights stride: 3x3 (v1.5: torchvision, timm) or 1x1 (v1: the paper)."""
    shortcut: Bare | None = None
    """Whether a file of weights without projections is of a plain net or of one with option A."""
    resize: Resize | None = None
    """How images are resized, if not as the weights' description says: area (ours), or as Pillow does."""
    key: str | None = None
    """Which of several sets of weights in a file: the error lists them, such as state_dict, state_dict_ema."""


Asked = tyro.conf.OmitArgPrefixes[Unsaid]
NETWORK = ("a run directory, weights (a file, or a folder with one), OWNER/NAME on the Hugging Face Hub, or one that "
           "comes with resjax, such as resnet20")


def load_as(target: str, unsaid: Unsaid) -> "Network":
    """Load a network, with what was said of it."""
    with working(f"loading {target}"):
        keep_compiled_programs()
        from resjax.training import load

        network = load(target, stride_in=unsaid.stride_in, shortcut=unsaid.shortcut, key=unsaid.key)
    if unsaid.resize is None:
        return network
    return network._replace(data=replace(network.data, resize=unsaid.resize),
                            preprocessing=network.preprocessing.replace(resize=unsaid.resize))


def evaluate_networks(
    networks: Annotated[tuple[str, ...], tyro.conf.Positional],
    split: Literal["train", "validation", "test"] = "test",
    views: Protocol = "single",
    batch_size: int = 128,
    data: str | None = None,
    directory: Path | None = None,
    weights: Asked = Unsaid(),
) -> None:
    """Measure the errors of one network or several.

    Of a run's newest checkpoint, or of anyone's weights; of several together, as an ensemble.

    Args:
        networks: A run directory, weights (a file, or a folder with one), OWNER/NAME on the Hugging Face Hub, or
            one that comes with resjax, such as resnet20; of several, their mean softmax is measured (an ensemble).
        split: Which images to measure on.
        views: How photographs are looked at; several views are averaged.
        batch_size: Images that are looked at together; it changes the speed and nothing else.
        data: What to read, if not what the network was trained on: folder:PATH, tars:PATH or tfds:NAME.
        directory: Where prepared TFDS sets lie, if not where the run found them.
        weights: What a file of weights cannot say.
    """
    if batch_size < 1:
        raise BadInput(f"batch-size is {batch_size}; it must be at least 1")
    if not networks:
        raise BadInput(f"name at least one network: {NETWORK}")
    loaded = [load_as(network, weights) for network in networks]
    with working(f"evaluating, {split}"):
        from resjax.evaluation import measure

        errors = measure(loaded, split, views, batch_size, data, directory)
    names = " + ".join(network.name for network in loaded)
    say(f"{names}, {split}{'' if views == 'single' else f', {views}'}: top-1 error {errors.top1_error:.2f} %, "
          f"top-5 error {errors.top5_error:.2f} %, loss {errors.loss:.4f}, {errors.images} images")


def predict(
    network: Annotated[str, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    weights: Asked = Unsaid(),
) -> None:
    """Name the likeliest classes of pictures.

    One that cannot be read is named, and the others are classified.

    Args:
        network: A run directory, weights (a file, or a folder with one), OWNER/NAME on the Hugging Face Hub, or
            one that comes with resjax, such as resnet20.
        images: Image files of any size; the centre is brought to the size that the network was trained on.
        weights: What a file of weights cannot say.
    """
    if not images:
        raise BadInput("name at least one image file")
    loaded = load_as(network, weights)
    from resjax.evaluation import classify
    from resjax.network import class_name

    unread = False
    for file in shown(images, f"looking at pictures with {loaded.name}", len(images)):
        try:
            ranked = classify(file, loaded)
        except BadInput as error:
            unread = True
            tell(f"resjax: {harmless(str(error))}")
            continue
        named = ", ".join(f"{class_name(loaded, label)} {100 * part:.1f} %" for label, part in ranked)
        say(harmless(f"{file}: {named}"))
    if unread:
        sys.exit(1)


def export_network(
    network: Annotated[str, tyro.conf.Positional],
    to: Form,
    out: Path,
    weights: Asked = Unsaid(),
) -> None:
    """Write a network as others load it.

    Into a new folder, with a model card that states its measured errors.

    Args:
        network: A run directory, weights (a file, or a folder with one), OWNER/NAME on the Hugging Face Hub, or
            one that comes with resjax, such as resnet20.
        to: As whom to name the weights: torchvision (timm and pytorch-cifar-models too), huggingface, keras, akamaster
            (pytorch_resnet_cifar10), resjax (any network of the paper, plain ones too); or stablehlo, the whole
            function from pixels to logits for any process with JAX.
        out: The folder, which must not be there yet.
        weights: What a file of weights cannot say.
    """
    loaded = load_as(network, weights)
    with working(f"writing {out}"):
        from resjax.weights import export

        folder = export(loaded, to, out, *recorded(Path(network)))
    say(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")


def recorded(run_directory: Path) -> tuple[list["Measured"], str]:
    """Read what was measured of a run, and its recipe, for a model card; nothing of what is no finished run."""
    from resjax.training import read_experiment, read_metrics, read_result
    from resjax.weights import Measured

    if not (run_directory / "experiment.json").is_file():
        return [], ""
    experiment, result = read_experiment(run_directory), read_result(run_directory)
    recipe = "\n".join(f"    {name} = {value!r}" for name, value in flatten(experiment).items())
    if result is None:
        return [], recipe
    images_of, lines = f"{experiment.data.source}, test", read_metrics(run_directory, "test")
    errors = [Measured(images_of, "single", result["test_top1_error"], result["test_top5_error"],
                       lines[-1]["images"] if lines else None)]
    for file in sorted(run_directory.glob("errors-*.json")):  # by other views, as tables of the paper ask for
        kept = read_json(file, "state_digests", "top1_error", "top5_error", "images")
        if kept["state_digests"] == [result["state_digest"]]:
            views = file.stem.removeprefix("errors-")
            errors.append(Measured(images_of, views, kept["top1_error"], kept["top5_error"], kept["images"]))
    return errors, recipe
