"""Facts for a model card, stored in card.json: errors, data set, licence and recipe."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from resjax.system.files import read_json, write_json
from resjax.system.serialization import check_value, convert

FILE = "card.json"
TYPES: dict[str, Any] = {  # types of the fields in the file
    "errors": tuple[tuple[str, str, float, float, int | None], ...],
    "precisions": tuple[tuple[str, str, float, float], ...], "recipe": str, "source": str, "licence": str}


class Measured(NamedTuple):
    """A measured error, with data set, views, top-1 and top-5 error in percent, and the number of images."""

    images_of: str
    views: str
    top1_error: float
    top5_error: float
    images: int | None


class Precision(NamedTuple):
    """A measured average precision in percent, by area and by 11 points, for one class or for all classes ("mean")."""

    images_of: str
    class_name: str
    by_area: float
    by_points: float


@dataclass(frozen=True, kw_only=True)
class Card:
    """The contents of a model card that the network alone does not determine."""

    errors: tuple[Measured, ...] = ()
    precisions: tuple[Precision, ...] = ()
    recipe: str = ""
    """The values of the run, one per line."""
    source: str = ""
    """The source of the training images, as in `data.source`."""
    licence: str = ""
    """The licence of the weights. Empty if none is known."""


class DataSet(NamedTuple):
    """A public data set, with a description, its licence, and the citation that its authors request."""

    title: str
    licence: str
    citation: str


DATA_SETS = {
    "tfds:cifar10": DataSet(
        "CIFAR-10: 50,000 training and 10,000 test photographs of 32x32, ten classes",
        "not stated; the authors ask for a citation (https://www.cs.toronto.edu/~kriz/cifar.html)",
        "A. Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, 2009."),
    "tfds:imagenet2012": DataSet(
        "ImageNet (ILSVRC 2012): 1.28 million training and 50,000 validation photographs, 1,000 classes",
        "non-commercial research and education, by the terms at https://image-net.org/download",
        "O. Russakovsky et al. ImageNet Large Scale Visual Recognition Challenge. IJCV, 2015."),
    "digits": DataSet(
        "scikit-learn's digits: 1,797 images of 8x8, ten classes",
        "CC BY 4.0 (UCI Machine Learning Repository)",
        "E. Alpaydin, C. Kaynak. Optical Recognition of Handwritten Digits. UCI, 1998."),
    "voc:BCCD": DataSet(
        "BCCD: 364 photographs of blood cells, 205 for training, 87 for validation and 72 for testing, three classes",
        "MIT, copyright (c) 2017 shenggan",
        "Shenggan. BCCD Dataset. https://github.com/Shenggan/BCCD_Dataset, 2017."),
}
PAPER = ("K. He, X. Zhang, S. Ren, J. Sun. Deep Residual Learning for Image Recognition. CVPR, 2016. "
         "https://arxiv.org/abs/1512.03385")


def about_data(card: Card) -> list[str]:
    """Write the sections about data set, licence and citation."""
    known = DATA_SETS.get(card.source)
    data = f"{known.title}. Licence: {known.licence}." if known else (
        f"Trained on {card.source}. Ask its owner for the licence." if card.source else "Unknown.")
    works = [PAPER, *([known.citation] if known else [])]
    licence = card.licence or "Unknown. Whoever publishes these weights must choose a licence."
    return ["## Data", data, "## Licence", licence, "## Citation", "\n".join(f"- {work}" for work in works)]


def write_card(card: Card, folder: Path) -> None:
    """Write `card.json`."""
    write_json(folder / FILE, asdict(card))


def read_card(folder: Path) -> Card:
    """Read `card.json`; without one, return an empty card. Raises BadInput, naming the file, if it is damaged."""
    file = folder / FILE
    if not file.is_file():
        return Card()
    content = read_json(file, *TYPES)
    values = {key: convert(content[key], hint) for key, hint in TYPES.items()}
    for key, hint in TYPES.items():
        check_value(f"{file}: {key}", values[key], hint)
    return Card(errors=tuple(Measured(*row) for row in values["errors"]), recipe=values["recipe"],
                precisions=tuple(Precision(*row) for row in values["precisions"]), source=values["source"],
                licence=values["licence"])


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
