"""Writes Table 1, the ImageNet architectures with their costs, which are computed by formula."""

from resjax.experiment import Architecture
from resjax.models.families import Option, StrideIn, imagenet_blocks
from resjax.models.formulas import count
from resjax.paper.table import markdown

IMAGE = (224, 224, 3)
FLOPS = {18: "1.8e9", 34: "3.6e9", 50: "3.8e9", 101: "7.6e9", 152: "11.3e9"}  # multiply-adds as printed in the paper
VGG_FLOPS = {16: "15.3e9", 19: "19.6e9"}
OPTIONS: dict[int, tuple[Option, ...]] = {
    18: ("plain", "A", "B", "C"), 34: ("plain", "A", "B", "C"), 50: ("B",), 101: ("B",), 152: ("B",)}


def table1() -> str:
    """Write Table 1 as Markdown, with layers and output sizes first, and then parameters and multiply-adds."""
    columns = [stage_kernels(depth) for depth in FLOPS]
    layers = [["layer", "output", *(f"{depth} layers" for depth in FLOPS)],
              *([*place, *(column[place] for column in columns)] for place in columns[0])]
    counts = [["network", "parameters", "multiply-adds", "paper"],
              *(count_resnet(depth, option, "1x1") for depth in FLOPS for option in OPTIONS[depth]),
              *(count_resnet(depth, "B", "3x3") for depth in (50, 101, 152)),
              *(size_row(f"VGG-{depth}", Architecture(family="vgg", depth=depth, shortcut="plain"), flops)
                for depth, flops in VGG_FLOPS.items())]
    return f"{markdown(layers)}\n\n{markdown(counts)}\n"


def stage_kernels(depth: int) -> dict[tuple[str, str], str]:
    """Describe a network by the kernels of every stage, keyed by the paper's stage name and output size."""
    kind, blocks = imagenet_blocks(depth)
    places = {("conv1", "112x112"): "7x7, 64, stride 2"}
    for stage, repeats in enumerate(blocks):
        filters, side = 64 * 2**stage, 56 // 2**stage
        kernels = (f"3x3, {filters}; 3x3, {filters}" if kind == "basic" else
                   f"1x1, {filters}; 3x3, {filters}; 1x1, {4 * filters}")
        pool = "3x3 max pool, stride 2; " if stage == 0 else ""
        places[f"conv{stage + 2}_x", f"{side}x{side}"] = f"{pool}[{kernels}] x {repeats}"
    places["", "1x1"] = "average pool, 1000-d fc, softmax"
    return places


def size_row(name: str, architecture: Architecture, paper: str) -> list[str]:
    """Return a network's parameters and multiply-adds, with the paper's number."""
    sizes = count(architecture, IMAGE, 1000)
    return [name, f"{sizes.parameters:,}", f"{sizes.macs:,}", paper]


def count_resnet(depth: int, option: Option, stride_in: StrideIn) -> list[str]:
    """Return a network's row. The paper has a number only for a stride in the first 1x1 convolution."""
    name = f"plain-{depth}" if option == "plain" else f"ResNet-{depth} {option}"
    if depth >= 50:
        name += " v1" if stride_in == "1x1" else " v1.5 (stride in the 3x3)"
    architecture = Architecture(family="imagenet", depth=depth, shortcut=option, stride_in=stride_in)
    return size_row(name, architecture, FLOPS[depth] if stride_in == "1x1" else "")
