"""The paper's tables as data: what was published, which experiment makes it, what the paper claims of it.

And Table 1, the architectures for ImageNet, with what they cost, counted from the traced computation.
"""

from itertools import groupby
from typing import Literal, NamedTuple

from flax import linen as nn

from resjax.evaluation import Protocol
from resjax.models import VGG, imagenet_resnet
from resjax.models.counts import Layer, count_macs, count_parameters, list_layers
from resjax.models.stacking import FIRST
from resjax.models.variants import Option, StrideIn


class Claim(NamedTuple):
    """What the paper says of a row beside another: its test error is lower or higher."""

    relation: Literal["<", ">"]
    other: str


class Row(NamedTuple):
    """One network: its experiment, its depth, and its published error in percent; and its top-5 error, where given.

    `members` are the experiments and seeds of an ensemble, whose softmax outputs are averaged. `deviation` is
    given where the paper has several runs. `sign` "~": the error was read off Figure 6; ">": the paper says only that
    it is above. `reruns` is what honest reruns by others reach with their last iteration.
    """

    experiment: str
    title: str
    layers: int
    error: float
    deviation: float | None = None
    sign: Literal["", "~", ">"] = ""
    reruns: tuple[float, float] | None = None
    claims: tuple[Claim, ...] = ()
    top5: float | None = None
    members: tuple[tuple[str, int], ...] = ()


class Other(NamedTuple):
    """A network of others that a table compares with, and its published errors in percent."""

    title: str
    error: float | None
    top5: float | None = None


class Table(NamedTuple):
    """A table of the paper: the file of its experiments, its rows, how the errors are measured.

    `error` is the error of the rows; where that is the top-1 error, rows can have a top-5 error beside it.
    """

    name: str
    title: str
    file: str
    protocol: str
    rows: tuple[Row, ...]
    views: Protocol = "single"
    error: Literal["top1", "top5"] = "top1"
    figures: tuple[str, ...] = ()
    others: tuple[Other, ...] = ()


def plain(layers: int, error: float, reruns: float | None = None, sign: Literal["~", ">"] = "~") -> Row:
    """Describe a plain net: worse than every shallower one ("degradation", Figure 6 left)."""
    shallower = (depth for depth in (20, 32, 44, 56, 110) if depth < layers)
    return Row(f"plain{layers}", f"plain-{layers}", layers, error, sign=sign,
               reruns=(reruns, reruns) if reruns else None,
               claims=tuple(Claim(">", f"plain{depth}") for depth in shallower))


def resnet(layers: int, error: float, reruns: tuple[float, float] | None = None,
           deviation: float | None = None) -> Row:
    """Describe a residual net: better than the plain net of its depth and every shallower residual one."""
    shallower = (depth for depth in (20, 32, 44, 56, 110) if depth < layers)
    return Row(f"resnet{layers}", f"ResNet-{layers}", layers, error, deviation, reruns=reruns,
               claims=(Claim("<", f"plain{layers}"), *(Claim("<", f"resnet{depth}") for depth in shallower)))


TABLE6 = Table(
    "table6", "Table 6: test error on CIFAR-10", "cifar10.py",
    "test error in percent after the last iteration, the single original view of all 10,000 test images",
    (
        plain(20, 9.5, 9.5), plain(32, 10.0, 9.9), plain(44, 12.0, 11.4), plain(56, 13.5, 12.8),
        plain(110, 60.0, sign=">"),
        resnet(20, 8.75, (8.2, 8.8)), resnet(32, 7.51, (7.4, 7.8)), resnet(44, 7.17, (7.1, 7.4)),
        resnet(56, 6.97, (6.9, 7.4)), resnet(110, 6.61, (6.6, 7.0), deviation=0.16),
        Row("resnet1202", "ResNet-1202", 1202, 7.93, claims=(Claim(">", "resnet110"),)),  # it overfits (section 4.2)
    ), figures=("figure6", "figure7"))


def imagenet(name: str, title: str, layers: int, error: float, top5: float | None, *claims: Claim) -> Row:
    """Describe a network of Table 1."""
    return Row(name, title, layers, error, top5=top5, claims=claims)


TABLE2 = Table(
    "table2", "Table 2: plain and residual networks on ImageNet", "imagenet.py",
    "top-1 error in percent of the 50,000 validation images, 10-crop", (
        imagenet("plain18", "plain-18", 18, 27.94, None),
        imagenet("plain34", "plain-34", 34, 28.54, None, Claim(">", "plain18")),
        imagenet("resnet18A", "ResNet-18 A", 18, 27.88, None),
        imagenet("resnet34A", "ResNet-34 A", 34, 25.03, None, Claim("<", "resnet18A"), Claim("<", "plain34")),
    ), views="ten-crop", figures=("figure4",))

TABLE3 = Table(
    "table3", "Table 3: ImageNet, 10-crop", "imagenet.py",
    "top-1 and top-5 error in percent of the 50,000 validation images, 10-crop", (
        imagenet("plain34", "plain-34", 34, 28.54, 10.02),
        imagenet("resnet34A", "ResNet-34 A", 34, 25.03, 7.76, Claim("<", "plain34")),
        imagenet("resnet34B", "ResNet-34 B", 34, 24.52, 7.46, Claim("<", "resnet34A")),
        imagenet("resnet34C", "ResNet-34 C", 34, 24.19, 7.40, Claim("<", "resnet34B")),
        imagenet("resnet50", "ResNet-50", 50, 22.85, 6.71, Claim("<", "resnet34C")),
        imagenet("resnet101", "ResNet-101", 101, 21.75, 6.05, Claim("<", "resnet50")),
        imagenet("resnet152", "ResNet-152", 152, 21.43, 5.71, Claim("<", "resnet101")),
    ), views="ten-crop",
    others=(Other("VGG-16", 28.07, 9.33), Other("GoogLeNet", None, 9.15), Other("PReLU-net", 24.27, 7.38)))

TABLE4 = Table(
    "table4", "Table 4: ImageNet, single models", "imagenet.py",
    "top-1 and top-5 error in percent of the 50,000 validation images, fully convolutional, five scales", (
        imagenet("resnet34B", "ResNet-34 B", 34, 21.84, 5.71),
        imagenet("resnet34C", "ResNet-34 C", 34, 21.53, 5.60, Claim("<", "resnet34B")),
        imagenet("resnet50", "ResNet-50", 50, 20.74, 5.25, Claim("<", "resnet34C")),
        imagenet("resnet101", "ResNet-101", 101, 19.87, 4.60, Claim("<", "resnet50")),
        imagenet("resnet152", "ResNet-152", 152, 19.38, 4.49, Claim("<", "resnet101")),
    ), views="multi-scale", others=(
        Other("VGG (ILSVRC'14), test", None, 8.43), Other("GoogLeNet (ILSVRC'14)", None, 7.89),
        Other("VGG (v5)", 24.4, 7.1), Other("PReLU-net", 21.59, 5.71), Other("BN-inception", 21.99, 5.81)))

TABLE5 = Table(
    "table5", "Table 5: ImageNet, ensembles", "imagenet.py",
    "top-5 error in percent, fully convolutional, five scales. The paper's are of the test images, whose labels are "
    "not public; ours are of the 50,000 validation images. Of its six models the paper names two, both of 152 layers; "
    "the others of ours are 34 B, 34 C, 50 and 101", (
        Row("ensemble", "ResNet, six models", 152, 3.57, members=(
            ("resnet34B", 0), ("resnet34C", 0), ("resnet50", 0), ("resnet101", 0), ("resnet152", 0), ("resnet152", 1))),
    ), views="multi-scale", error="top5", others=(
        Other("VGG (ILSVRC'14)", 7.32), Other("GoogLeNet (ILSVRC'14)", 6.66), Other("VGG (v5)", 6.8),
        Other("PReLU-net", 4.94), Other("BN-inception", 4.82)))

LEAST_STEPS = 1_000  # of a schedule: after fewer, noise decides which of two nets is ahead
TABLES = {table.name: table for table in (TABLE2, TABLE3, TABLE4, TABLE5, TABLE6)}

IMAGE = (224, 224, 3)
FLOPS = {18: "1.8e9", 34: "3.6e9", 50: "3.8e9", 101: "7.6e9", 152: "11.3e9"}  # multiply-adds, as the paper prints them
VGG_FLOPS = {16: "15.3e9", 19: "19.6e9"}
OPTIONS: dict[int, tuple[Option, ...]] = {
    18: ("plain", "A", "B", "C"), 34: ("plain", "A", "B", "C"), 50: ("B",), 101: ("B",), 152: ("B",)}


def table1() -> str:
    """Write Table 1 as Markdown: the layers with their output sizes; then parameters and multiply-adds."""
    columns = [describe(list_layers(imagenet_resnet(depth), IMAGE)) for depth in FLOPS]
    layers = [["layer", "output", *(f"{depth} layers" for depth in FLOPS)],
              *([*place, *(column[place] for column in columns)] for place in columns[0])]
    counts = [["network", "parameters", "multiply-adds", "paper"],
              *(count_resnet(depth, option, "1x1") for depth in FLOPS for option in OPTIONS[depth]),
              *(count_resnet(depth, "B", "3x3") for depth in (50, 101, 152)),
              *(count(f"VGG-{depth}", VGG(depth), flops) for depth, flops in VGG_FLOPS.items())]
    return f"{markdown(layers)}\n\n{markdown(counts)}\n"


def describe(layers: list[Layer]) -> dict[tuple[str, str], str]:
    """Describe a network: the kernels of every stage, by the paper's name of the stage and its output size.

    `layers` is what runs: "conv1", "stage1/first/conv1", ..., "stage1/rest/conv1" (all further blocks), ..., "fc".
    """
    places = {}
    for stage, group in groupby(layers, lambda layer: layer.name.split("/")[0]):
        block = [layer for layer in group if "shortcut" not in layer.name]
        size = "x".join(map(str, block[-1].output[:2])) if stage != "fc" else "1x1"
        kernels = [f"{layer.kernel[0]}x{layer.kernel[1]}, {layer.kernel[3]}" for layer in block if stage != "fc"]
        match stage:
            case "conv1":
                name, text = "conv1", f"{kernels[0]}, stride 2"
            case "fc":
                name, text = "", f"average pool, {block[0].kernel[1]}-d fc, softmax"
            case _:
                once = [layer for layer in block if f"/{FIRST}/" in layer.name]
                name = f"conv{int(stage.removeprefix('stage')) + 1}_x"
                text = f"[{'; '.join(kernels[:len(once)])}] x {sum(layer.repeats for layer in block) // len(once)}"
                if name == "conv2_x":
                    text = f"3x3 max pool, stride 2; {text}"
        places[name, size] = text
    return places


def count(name: str, model: nn.Module, paper: str) -> list[str]:
    """Count a network's parameters and multiply-adds, beside the paper's figure."""
    return [name, f"{count_parameters(model, IMAGE):,}", f"{count_macs(model, IMAGE):,}", paper]


def count_resnet(depth: int, option: Option, stride_in: StrideIn) -> list[str]:
    """Count a network of Table 1, beside the paper's figure, which is of the networks that stride in the first 1x1."""
    name = f"plain-{depth}" if option == "plain" else f"ResNet-{depth} {option}"
    if depth >= 50:
        name += " v1" if stride_in == "1x1" else " v1.5 (stride in the 3x3)"
    return count(name, imagenet_resnet(depth, option, stride_in=stride_in), FLOPS[depth] if stride_in == "1x1" else "")


def markdown(rows: list[list[str]]) -> str:
    """Write a table; its first row is the head. A bar within a cell is written so that it ends none."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], ["---"] * len(cells[0]), *cells[1:]])
