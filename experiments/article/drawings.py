"""Draws the article's blocks, and shortcut options A, B and C in a block that changes the dimensions."""

from collections.abc import Callable, Sequence

from experiments.article.charts import TIMES, text
from experiments.article.figure3 import networks
from experiments.article.figures import panels

Say = Callable[[str], str]
WIDE, HIGH = 112, 24  # size of a layer's box
STEP = 50  # distance between layers
TOP = 52


def blocks(say: Say) -> str:
    """Draw a plain, a residual, a bottleneck and a fully connected block (Figures 2 and 5)."""
    two, dense = (f"3{TIMES}3, 64", f"3{TIMES}3, 64"), ("W₁, b₁", "W₂, b₂")
    three = (f"1{TIMES}1, 64", f"3{TIMES}3, 64", f"1{TIMES}1, 256")
    pairs = (((say("plain_block"), two, False), (say("basic_block"), two, True)),
             ((say("bottleneck"), three, True), (say("dense_block"), dense, True)))
    height = TOP + 3 * STEP + 58
    return panels([
        f'<svg class="panel" viewBox="0 0 350 {height}" role="img" aria-label="{pair[0][0]}; {pair[1][0]}">'
        f"{stack(64, *pair[0])}{stack(238, *pair[1])}</svg>" for pair in pairs])


def stack(middle: float, title: str, layers: Sequence[str], shortcut: bool) -> str:
    """Draw a block from its input (top) to its output (bottom), centred on the line `middle`."""
    left, right, end = middle - WIDE / 2, middle + WIDE / 2, TOP + len(layers) * STEP + 8
    parts = [text(left, 14, title, "title"), text(middle, TOP - 12, "x", "middle maths")]
    for i, layer in enumerate(layers):
        y = TOP + 10 + i * STEP
        parts += [down(middle, y - (16 if i == 0 else STEP - HIGH), y), box(left, y, WIDE, HIGH, layer)]
        if i < len(layers) - 1:
            parts.append(text(middle + 8, y + HIGH + 17, "ReLU", "soft"))
    bottom = TOP + 10 + (len(layers) - 1) * STEP + HIGH
    if shortcut:
        parts += [down(middle, bottom, end - 9), plus(middle, end),
                  f'<path class="shortcut" d="M{middle + 5} {TOP - 4}H{right + 12}q12 0 12 12V{end - 12}q0 12 -12 12'
                  f'H{middle + 10}"/>', head(middle + 10, end, "left"), text(right + 30, (TOP + end) / 2, "x", "maths"),
                  text(middle - 16, end + 5, "F(x) + x", "maths end"), down(middle, end + 9, end + 34)]
    else:
        parts.append(down(middle, bottom, end + 34))
        parts.append(text(middle - 16, end + 5, "F(x)", "maths end"))
    return "".join([*parts, text(middle + 8, end + 28, "ReLU", "soft")])


def options(say: Say) -> str:
    """Draw the shortcuts of options A, B and C with the shapes of ResNet-34, where the paper first uses them."""
    boxes = [box for box in networks()[-1].boxes if box.channels]
    i = next(i for i, box in enumerate(boxes) if i > 1 and box.channels != boxes[i - 1].channels)
    before, after = boxes[i - 1], boxes[i]
    wide, narrow = (f"{box.side}{TIMES}{box.side}, {box.channels}" for box in (before, after))
    stride = before.side // after.side
    added = say("zeros").format(count=after.channels - before.channels)
    return panels([
        option(say("option_A"), (wide, narrow), (boxes[i].label, boxes[i + 1].label),
               (say("every").format(stride=stride), added)),
        option(say("option_B"), (wide, narrow), (boxes[i].label, boxes[i + 1].label),
               (f"1{TIMES}1, {after.channels}, /{stride}", "BN")),
        option(say("option_C"), (wide, wide), (before.label, before.label),
               (f"1{TIMES}1, {before.channels}", "BN"))])


def option(title: str, shapes: tuple[str, str], layers: tuple[str, str], shortcut: tuple[str, str]) -> str:
    """Draw a block from left to right, with its layers above and its shortcut below."""
    parts = [text(0, 14, title, "title"), text(0, 78, "x", "maths"), text(0, 134, shapes[0], "soft"),
             text(350, 134, shapes[1], "soft end"), text(350, 78, "y", "maths end")]
    for y, turn, style, labels in ((50, -8, "", layers), (98, 8, " light", shortcut)):
        parts += [f'<path class="flow" d="M12 74q8 0 8 {turn}V{y - turn}q0 {turn} 8 {turn}H280q8 0 8 {-turn}'
                  f'V{74 + turn}"/>',
                  box(34, y - 12, 118, HIGH, labels[0], style), box(166, y - 12, 106, HIGH, labels[1], style)]
    return (f'<svg class="panel" viewBox="0 0 350 142" role="img" aria-label="{title}">{"".join(parts)}{plus(288, 74)}'
            f'<path class="flow" d="M297 74H330"/>{head(332, 74, "right")}</svg>')


def box(x: float, y: float, width: float, height: float, label: str, style: str = "") -> str:
    """Draw a layer."""
    return (f'<rect class="box{style}" x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>'
            f'{text(x + width / 2, y + height / 2 + 4, label, "middle")}')


def down(x: float, start: float, end: float) -> str:
    """Draw an arrow downwards."""
    return f'<path class="flow" d="M{x} {start}V{end - 2}"/>{head(x, end, "down")}'


def head(x: float, y: float, towards: str) -> str:
    """Draw an arrow head at a point."""
    ways = {"down": "l-3.5 -7h7z", "left": "l7 -3.5v7z", "right": "l-7 -3.5v7z"}
    return f'<path class="head" d="M{x} {y}{ways[towards]}"/>'


def plus(x: float, y: float) -> str:
    """Draw an addition."""
    return f'<circle class="sum" cx="{x}" cy="{y}" r="9"/><path class="flow" d="M{x - 5} {y}h10M{x} {y - 5}v10"/>'
