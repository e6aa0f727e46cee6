"""Draws the article's figures from the measurements, with labels in English or Chinese."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.article import charts
from experiments.article.charts import BOTTOM, LEFT, RIGHT, TOP, Axis, Curve, linear, logarithmic, panel, swatch
from experiments.article.contours import contour_panel, scale_of_losses
from resjax.paper.run_curves import thinned
from resjax.paper.tables import TABLES

Say = Callable[[str], str]
FAMILIES = ("dense", "conv")
NETS = {"plain_shallow": "plain thin dashed", "plain_deep": "plain", "residual_shallow": "residual thin dashed",
        "residual_deep": "residual"}


def panels(drawn: Sequence[str], legend: Sequence[str] = ()) -> str:
    """Arrange panels side by side (below each other on narrow pages), with the legend below."""
    key = f'<div class="legend">{"".join(legend)}</div>' if legend else ""
    return f'<div class="panels of{len(drawn)}">{"".join(drawn)}</div>{key}'


def published(say: Say) -> str:
    """Draw the paper's errors by depth: Tables 2 and 3 for ImageNet, Table 6 for CIFAR-10."""
    two, three, six = (TABLES[name].rows for name in ("table2", "table3", "table6"))
    imagenet = {"plain": [row for row in two if row.experiment.startswith("plain")],
                "residual": [*(row for row in two if row.experiment.startswith("resnet")),
                             *(row for row in three if row.layers >= 50)]}
    cifar = {"plain": [row for row in six if row.experiment.startswith("plain") and row.sign != ">"],
             "residual": [row for row in six if row.experiment.startswith("resnet")]}
    drawn = []
    for title, rows, layers, ticks in (
            ("ImageNet", imagenet, (15, 180), (18, 34, 50, 101, 152)),
            ("CIFAR-10", cifar, (17, 1500), (20, 44, 110, 1202))):
        errors = [row.error for some in rows.values() for row in some]
        x = Axis(*layers, [(tick, str(tick)) for tick in ticks], say("depth"), log=True)
        y = linear(int(min(errors)), max(errors), say("top1_error" if title == "ImageNet" else "error_on"))
        drawn.append(panel(title, x, y, [
            Curve([(row.layers, row.error) for row in some], kind, marks=True) for kind, some in rows.items()]))
    return panels(drawn, [swatch(kind, say(kind), mark=True) for kind in ("plain", "residual")])


def degradation(values: Mapping[str, Any], say: Say) -> str:
    """Draw the training loss of shallow and deep networks over the iterations."""
    drawn, first = [], values["window"]
    for family in FAMILIES:
        curves = {net: thinned(list(enumerate(values[family]["curves"][net], first)), 130) for net in NETS}
        heights = [y for points in curves.values() for _, y in points]
        x = linear(0, max(x for points in curves.values() for x, _ in points), say("iteration"))
        y = logarithmic(min(heights) * 0.9, max(heights) * 1.1, say("training_loss"))
        drawn.append(panel(say(family), x, y, [Curve(points, NETS[net]) for net, points in curves.items()]))
    depths = {size: "/".join(str(values[family][size]) for family in FAMILIES) for size in ("shallow", "deep")}
    names = [swatch(style, say("legend_net").format(kind=say(kind), depth=depths[size]))
             for net, style in NETS.items() for kind, size in [net.split("_")]]
    return panels(drawn, names)


def gradients(values: Mapping[str, Any], say: Say) -> str:
    """Draw the norm of the loss's gradient with respect to each layer's weights."""
    dashes = dict(zip(values["gains"], ("dotted", "", "dashed"), strict=True))
    curves, drawn = values["log_norms"], []
    norms = [norm for some in curves.values() for layers in some.values() for norm in layers]
    for stage in ("bare", "normed", "trained"):
        some_layers = [1, *range(10, values["layers"] + 1, 10)]
        x = Axis(1, values["layers"], [(layer, str(layer)) for layer in some_layers], say("layer"))
        y = logarithmic(10 ** min(norms) * 0.5, 10 ** max(norms) * 2, say("gradient_norm"))
        some = [Curve([(layer, 10**norm) for layer, norm in enumerate(layers, 1)],
                      f"{net.split('_')[0]} {dashes[int(net.split('_')[1])] if '_' in net else ''}")
                for net, layers in curves[stage].items()]
        drawn.append(panel(say(stage), x, y, some))
    return panels(drawn, [swatch(f"{kind} {dash}", say("legend_gain").format(kind=say(kind), gain=gain))
                          for gain, dash in dashes.items() for kind in ("plain", "residual")])


def identity(values: Mapping[str, Any], say: Say) -> str:
    """Draw the size of F relative to its input in each block, by weight decay."""
    styles = ("decay0 dotted", "decay1 dashed", "decay2", "decay3 bold")
    blocks = len(values["ratios"][0])
    x = Axis(0.5, blocks + 0.5, [(block, str(block)) for block in range(1, blocks + 1)], say("block"))
    y = linear(0, max(max(ratios) for ratios in values["ratios"]), "‖F(x)‖ / ‖x‖")
    curves = [Curve(list(enumerate(ratios, 1)), style, marks=True)
              for ratios, style in zip(values["ratios"], styles, strict=True)]
    names = [swatch(style, f"{say('weight_decay')} {decay:g}", mark=True)
             for decay, style in zip(values["decays"], styles, strict=True)]
    return panels([panel(say("dense"), x, y, curves)], names)


def more_layers(values: Mapping[str, Any], say: Say) -> str:
    """Draw the loss during further training, for the original network and with appended identity blocks."""
    drawn, styles = [], {"before": "before", "after": "residual"}
    for family in FAMILIES:
        curves = values[family]["curves"]
        x = linear(0, len(curves["before"]), say("further_iteration"))
        y = linear(0, max(max(losses) for losses in curves.values()), say("training_loss_linear"))
        drawn.append(panel(say(family), x, y, [Curve(list(enumerate(curves[which], 1)), style)
                                               for which, style in styles.items()]))
    return panels(drawn, [swatch(style, say(which).format(**values)) for which, style in styles.items()])


def dimensions(values: Mapping[str, Any], say: Say) -> str:
    """Draw the training loss by kind of shortcut, with a dot for every seed and the test error below."""
    drawn = []
    for family in FAMILIES:
        losses, options = values[family]["losses"], values["options"]
        names = [say("plain") if option == "plain" else option for option in options]
        x = Axis(-0.6, 3.6, list(enumerate(names)), "")
        y = linear(0, max(max(some) for some in losses.values()), say("training_loss_linear"))
        bars = "".join(bar(x.place(i), y.place(values[family]["loss"][option]), "plain" if i == 0 else "residual")
                       for i, option in enumerate(options))
        dots = [Curve([(i, loss) for loss in losses[option]], "seed", marks=True, line=False)
                for i, option in enumerate(options)]
        errors = "".join(charts.text(LEFT + (RIGHT - LEFT) * x.place(i), BOTTOM + 36,
                                     f"{values[family]['test_error'][option]:.1f}\N{NO-BREAK SPACE}%", "soft middle")
                         for i, option in enumerate(options))
        title = charts.text(0, BOTTOM + 36, say("test_error"), "soft")
        drawn.append(panel(say(family), x, y, dots, bars + title + errors))
    return panels(drawn)


def bar(across: float, high: float, style: str) -> str:
    """Draw a bar at a position, with a height from 0 to 1."""
    middle, height = LEFT + (RIGHT - LEFT) * across, (BOTTOM - TOP) * high
    return (f'<rect class="bar {style}" x="{middle - 22:.1f}" y="{BOTTOM - height:.1f}" width="44" '
            f'height="{height:.1f}"/>')


def landscape(values: Mapping[str, Any], say: Say) -> str:
    """Draw the loss around a plain and a residual network as contours on the same scale."""
    grids = {kind: some[0] for kind, some in values["grids"].items()}
    drawn = [contour_panel(say(f"{kind}_net").format(**values), grid, values["span"]) for kind, grid in grids.items()]
    return panels(drawn) + scale_of_losses(say("loss"))


MEASURED: dict[str, Callable[[Mapping[str, Any], Say], str]] = {
    "degradation": degradation, "gradients": gradients, "identity": identity, "more_layers": more_layers,
    "dimensions": dimensions, "landscape": landscape}
