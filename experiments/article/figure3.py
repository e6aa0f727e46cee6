"""Draws the networks of the paper's Figure 3 (VGG-19, plain-34 and ResNet-34) from the Flax modules.

Layers, shapes and multiply-adds are read from the traced modules.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

from experiments.article.charts import TIMES, text
from resjax.models import VGG, ResidualMLP, imagenet_resnet
from resjax.models.counts import Layer, count_macs, count_parameters, list_layers
from resjax.paper.table1 import IMAGE

PITCH, BOX = 21, 16  # distance between layers, and height of a layer


class Box(NamedTuple):
    """A layer or a pooling: its name, the side of its output (1 for a vector), and its multiply-adds."""

    label: str
    side: int
    macs: int = 0
    channels: int = 0  # 0 for a pooling


class Net(NamedTuple):
    """A network: its layers and poolings in order, its counts, and whether it has shortcuts."""

    name: str
    boxes: tuple[Box, ...]
    macs: int
    parameters: int
    residual: bool

    @property
    def layers(self) -> int:
        """The number of weighted layers."""
        return sum(box.channels > 0 for box in self.boxes)

    @property
    def billions(self) -> float:
        """Multiply-adds, in billions."""
        return self.macs / 1e9

    @property
    def millions(self) -> float:
        """Parameters, in millions."""
        return self.parameters / 1e6

    @property
    def of_vgg(self) -> float:
        """Multiply-adds in percent of VGG-19's."""
        return 100 * self.macs / networks()[0].macs


def titled(model: Any) -> str:
    """Describe a network of basic or fully connected blocks in a few words."""
    kind = "plain" if model.shortcut == "plain" else f"residual ({model.shortcut})"
    family = "fully connected" if isinstance(model, ResidualMLP) else "convolutional"
    return f"{2 * sum(model.blocks) + 2} layers, {family}, {kind}"


@cache
def networks() -> tuple[Net, ...]:
    """Read VGG-19, plain-34 and ResNet-34 (option A, as in the paper's figure) from their modules."""
    models = {"VGG-19": VGG(19), "plain-34": imagenet_resnet(34, "plain"), "ResNet-34": imagenet_resnet(34, "A")}
    return tuple(Net(name, tuple(boxes_of(list_layers(model, IMAGE))), count_macs(model, IMAGE),
                     count_parameters(model, IMAGE), name.startswith("ResNet")) for name, model in models.items())


def boxes_of(layers: Sequence[Layer]) -> Iterator[Box]:
    """List the layers, with the poolings where the size changes without a stride."""
    side, channels = IMAGE[0], IMAGE[2]
    for layer in one_by_one(layers):
        inputs, outputs = layer.kernel[-2:]
        if len(layer.kernel) == 4:
            if layer.output[0] < side // layer.stride:
                yield Box("pool", layer.output[0] * layer.stride)
            side, channels = layer.output[0], outputs
            stride = f", /{layer.stride}" if layer.stride > 1 else ""
            size = f"{layer.kernel[0]}{TIMES}{layer.kernel[1]}"
            yield Box(f"{size}, {outputs}{stride}", side, layer.macs, channels)
            continue
        seen = math.isqrt(inputs // channels) if side > 1 else side  # the side of the maps that are flattened
        if seen < side:
            yield Box("average_pool" if seen == 1 else "pool", seen)
        side, channels = 1, outputs
        yield Box(f"fc {outputs}", side, layer.macs, channels)


def one_by_one(layers: Sequence[Layer]) -> list[Layer]:
    """Expand stacked identical blocks into their layers, block after block."""
    single = []
    for _, group in groupby(layers, lambda layer: layer.name.rpartition("/")[0]):
        some = list(group)
        single += [layer._replace(repeats=1, macs=layer.macs // layer.repeats)
                   for _ in range(some[0].repeats) for layer in some]
    return single


def figure3(say: Callable[[str], str], width: int) -> str:
    """Draw the three networks in columns, with maps of equal size at equal heights. Bars show multiply-adds if they
    fit.

    `width` is 350 for narrow pages, and 700 or more for wide ones.
    """
    nets, gutter = networks(), 26 if width < 700 else 48
    column, sides = (width - gutter) / len(nets), sorted({box.side for net in nets for box in net.boxes}, reverse=True)
    rows = {side: max(sum(box.side == side for box in net.boxes) for net in nets) for side in sides}
    top, tops = 66.0, {}
    for side in sides:
        tops[side] = top
        top += rows[side] * PITCH + 14
    bands = "".join(
        text(0, tops[side] + 12, str(side), "soft") + f'<path class="grid" d="M0 {tops[side] - 9:.1f}H{width}"/>'
        for side in sides)
    drawn = "".join(column_of(net, gutter + i * column, column, tops, say) for i, net in enumerate(nets))
    kind = "narrow" if width < 700 else "wide"
    return (f'<svg class="nets {kind}" viewBox="0 0 {width} {top:.0f}" role="img" '
            f'aria-label="{", ".join(net.name for net in nets)}">{bands}{drawn}</svg>')


def column_of(net: Net, left: float, width: float, tops: dict[int, float], say: Callable[[str], str]) -> str:
    """Draw a network from top to bottom, below its name and its counts."""
    wide = width > 200
    box_width = 112 if wide else 82
    bars, most = left + box_width + 34, max(box.macs for other in networks() for box in other.boxes)
    next_place, places = dict(tops), list[float]()
    parts = [text(left, 14, net.name, "title"),
             text(left, 32, f"{net.billions:.1f}{TIMES}10⁹{' ' + say('macs') if wide else ''}", "soft"),
             text(left, 47, f"{net.millions:.1f}{TIMES}10⁶{' ' + say('parameters') if wide else ''}", "soft")]
    for box in net.boxes:
        y = next_place[box.side]
        next_place[box.side] += PITCH
        if places:
            parts.append(f'<path class="flow" d="M{left + box_width / 2:.1f} {places[-1] + BOX:.1f}V{y:.1f}"/>')
        places.append(y)
        if box.channels:
            parts.append(f'<rect class="layer c{box.channels}" x="{left:.1f}" y="{y:.1f}" width="{box_width}" '
                         f'height="{BOX}" rx="3"/>')
            if wide:
                cost = (left + width - 20 - bars) * box.macs / most
                parts.append(f'<rect class="cost" x="{bars:.1f}" y="{y + 4:.1f}" width="{cost:.1f}" height="8"/>')
        parts.append(text(left + box_width / 2, y + 12, box.label if box.channels else say(box.label), "middle"))
    return "".join(parts) + (arcs(net, places, left, left + box_width) if net.residual else "")


def arcs(net: Net, places: Sequence[float], left: float, right: float) -> str:
    """Draw the shortcuts around every two layers after the first, dashed where dimensions change."""
    layers = [(box, y) for box, y in zip(net.boxes, places, strict=True) if box.channels]
    drawn, middle = [], (left + right) / 2
    for (before, _), (one, start), (_, end) in zip(layers[:-2:2], layers[1:-1:2], layers[2::2], strict=False):
        changes = one.channels != before.channels
        y, low = start - (PITCH - BOX) / 2, end + BOX + (PITCH - BOX) / 2
        drawn.append(f'<path class="shortcut{" dashed" if changes else ""}" d="M{middle:.1f} {y:.1f}H{right + 4:.1f}'
                     f'q8 0 8 8V{low - 8:.1f}q0 8 -8 8H{middle:.1f}"/>')
    return "".join(drawn)
