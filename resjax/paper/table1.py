"""Table 1: the architectures for ImageNet, with what they cost, counted from the traced computation."""

from itertools import groupby
from typing import Literal

from resjax.analysis import Layer, count_macs, count_parameters, list_layers
from resjax.models import imagenet_resnet
from resjax.models.resnet import Option

IMAGE = (224, 224, 3)
FLOPS = {18: "1.8e9", 34: "3.6e9", 50: "3.8e9", 101: "7.6e9", 152: "11.3e9"}  # multiply-adds, as the paper prints them
OPTIONS: dict[int, tuple[Option, ...]] = {
    18: ("plain", "A", "B", "C"), 34: ("plain", "A", "B", "C"), 50: ("B",), 101: ("B",), 152: ("B",)}


def table1() -> str:
    """Write Table 1 as Markdown: the layers with their output sizes; then parameters and multiply-adds."""
    columns = [describe(list_layers(imagenet_resnet(depth), IMAGE)) for depth in FLOPS]
    layers = [["layer", "output", *(f"{depth} layers" for depth in FLOPS)],
              *([*place, *(column[place] for column in columns)] for place in columns[0])]
    counts = [["network", "parameters", "multiply-adds", "paper"],
              *(count(depth, option, "1x1") for depth in FLOPS for option in OPTIONS[depth]),
              *(count(depth, "B", "3x3") for depth in (50, 101, 152))]
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
                once = [layer for layer in block if "/first/" in layer.name]
                name = f"conv{int(stage.removeprefix('stage')) + 1}_x"
                text = f"[{'; '.join(kernels[:len(once)])}] x {sum(layer.repeats for layer in block) // len(once)}"
                if name == "conv2_x":
                    text = f"3x3 max pool, stride 2; {text}"
        places[name, size] = text
    return places


def count(depth: int, option: Option, stride_in: Literal["1x1", "3x3"]) -> list[str]:
    """Count a network, beside the paper's figure, which is of the networks that stride in the first 1x1."""
    model = imagenet_resnet(depth, option, stride_in=stride_in)
    name = f"plain-{depth}" if option == "plain" else f"ResNet-{depth} {option}"
    if depth >= 50:
        name += " v1" if stride_in == "1x1" else " v1.5 (stride in the 3x3)"
    return [name, f"{count_parameters(model, IMAGE):,}", f"{count_macs(model, IMAGE):,}",
            FLOPS[depth] if stride_in == "1x1" else ""]


def markdown(rows: list[list[str]]) -> str:
    """Write a table; its first row is the head."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])
