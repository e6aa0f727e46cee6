"""Commands on trained networks, wherever their weights come from: measure, use and export them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from resjax.errors import BadInput
from resjax.evaluation import Protocol
from resjax.measure import classify, measure, recorded
from resjax.platform import keep_compiled_programs
from resjax.training import load
from resjax.weights import Bare, Form, StrideIn, export


@dataclass(frozen=True)
class Unsaid:
    """What tensors cannot say; the error says when it is needed."""

    stride_in: StrideIn | None = None
    """Where the bottlenecks of a file of weights stride: 3x3 (v1.5: torchvision, timm) or 1x1 (v1: the paper)."""
    shortcut: Bare | None = None
    """Whether a file of weights without projections is of a plain net or of one with option A."""
    key: str | None = None
    """Which of several sets of weights in a file: the error lists them, such as state_dict, state_dict_ema."""


Asked = tyro.conf.OmitArgPrefixes[Unsaid]
NETWORK = "a run's workdir, a file of weights, a folder with one, or OWNER/NAME on the Hugging Face Hub"


def evaluate_networks(
    networks: Annotated[tuple[str, ...], tyro.conf.Positional],
    split: Literal["train", "validation", "test"] = "test",
    views: Protocol = "single",
    batch_size: int = 128,
    data: str | None = None,
    directory: Path | None = None,
    unsaid: Asked = Unsaid(),
) -> None:
    """Measure the errors of a network, a run's newest checkpoint or anyone's weights, or of several together.

    Args:
        networks: A run's workdir, a file of weights, a folder with one, or OWNER/NAME on the Hugging Face Hub; of
            several, the mean of their softmax outputs is measured (an ensemble).
        split: Which images to measure on.
        views: How photographs are looked at; several views are averaged.
        batch_size: Images at once; it changes the speed and nothing else.
        data: What to read, if not what the network was trained on: folder:PATH, tars:PATH or tfds:NAME.
        directory: Where prepared TFDS sets lie, if not where the run found them.
        unsaid: What tensors cannot say.
    """
    if batch_size < 1:
        raise BadInput(f"batch-size is {batch_size}; it must be at least 1")
    if not networks:
        raise BadInput(f"name at least one network: {NETWORK}")
    keep_compiled_programs()
    loaded = [load(network, **asdict(unsaid)) for network in networks]
    errors = measure(loaded, split, views, batch_size, data, directory)
    names = " + ".join(network.name for network in loaded)
    print(f"{names}, {split}{'' if views == 'single' else f', {views}'}: top-1 error {errors.top1_error:.2f} %, "
          f"top-5 error {errors.top5_error:.2f} %, loss {errors.loss:.4f}, {errors.images} images")


def predict(
    network: Annotated[str, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    unsaid: Asked = Unsaid(),
) -> None:
    """Name the likeliest classes of image files.

    Args:
        network: A run's workdir, a file of weights, a folder with one, or OWNER/NAME on the Hugging Face Hub.
        images: Image files of any size; the centre square is brought to the size that the network was trained on.
        unsaid: What tensors cannot say.
    """
    if not images:
        raise BadInput("name at least one image file")
    keep_compiled_programs()
    loaded = load(network, **asdict(unsaid))
    for file in images:
        ranked = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in classify(file, loaded))
        print(f"{file}: {ranked}")


def export_network(
    network: Annotated[str, tyro.conf.Positional],
    to: Form,
    out: Path,
    unsaid: Asked = Unsaid(),
) -> None:
    """Write a network into a new folder as others load it, with a model card that states its measured errors.

    Args:
        network: A run's workdir, a file of weights, a folder with one, or OWNER/NAME on the Hugging Face Hub.
        to: As whom to name the weights: torchvision (timm and pytorch-cifar-models too), huggingface, keras, akamaster
            (pytorch_resnet_cifar10); or stablehlo, the whole function from pixels to logits for any process with JAX.
        out: The folder, which must not be there yet.
        unsaid: What tensors cannot say.
    """
    loaded = load(network, **asdict(unsaid))
    folder = export(loaded, to, out, *recorded(Path(network)))
    print(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}")
