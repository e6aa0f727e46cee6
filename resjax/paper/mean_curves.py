"""Draws mean curves over several runs of a recipe, with a band of one standard deviation on each side."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resjax.evaluation.drawings import literal
from resjax.paper.figures import STYLES
from resjax.training.kinds import Run, kind_of
from resjax.training.log import read_metrics


class Curve(NamedTuple):
    """The values that several runs of a recipe logged at the same steps: `values` `[runs, steps]`, in percent."""

    recipe: str
    title: str
    steps: np.ndarray
    values: np.ndarray


def curves_of(recipe: str, run: Run, run_directories: Sequence[Path]) -> list[Curve]:
    """Read the curves of a recipe's runs, at the steps that all of them have logged."""
    curves = []
    for name, (kind, key) in kind_of(run).CURVES.items():
        logs = [{line["step"]: line[key] for line in read_metrics(directory, kind) if line.get(key) is not None}
                for directory in run_directories]
        steps = sorted(set.intersection(*map(set, logs)))
        if steps:
            curves.append(Curve(recipe, curve_title(run, name), np.array(steps),
                               np.array([[log[step] for step in steps] for log in logs], float)))
    return curves


def curve_title(run: Run, name: str) -> str:
    """Return an axis title: "test error, %" or, for detectors, "test mAP, %"."""
    measure = kind_of(run).MEASURES[0]
    return {"train": "training error, %"}.get(name, f"{name} {'mAP' if measure.higher_is_better else 'error'}, %")


def draw_curves(recipes: Sequence[Sequence[Curve]]) -> Figure:
    """Draw one axis per kind of curve. A recipe has the same colour on all axes, and a legend below names it."""
    titles = sorted({curve.title for curves in recipes for curve in curves}, key=lambda title: (
        not title.startswith("train"), not title.startswith("test"), title))
    names = [f"{literal(curves[0].recipe)} (n={len(curves[0].values)})" for curves in recipes if curves]
    columns = min(2, max(1, len(titles)))
    rows = -(-max(1, len(titles)) // columns)
    figure = Figure(figsize=(9, 3.4 * rows + 0.22 * len(names)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(titles):]:
        axis.set_axis_off()
    for axis, title in zip(axes, titles, strict=False):
        for number, curves in enumerate(recipes):
            for curve in curves:
                if curve.title == title:
                    draw_mean_curve(axis, curve, number)
        axis.set(xlabel="iteration", ylabel=title, xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    if names:
        handles = [axes[0].plot([], [], color=f"C{number % 10}", linestyle=STYLES[number // 10 % len(STYLES)])[0]
                   for number, curves in enumerate(recipes) if curves]
        figure.legend(handles, names, loc="outside lower left", fontsize="small", frameon=False)
    return figure


def draw_mean_curve(axis: Axes, curve: Curve, number: int) -> None:
    """Draw a mean with its band or, for a single step such as a final test, a point with an error bar."""
    mean, style, colour = curve.values.mean(0), STYLES[number // 10 % len(STYLES)], f"C{number % 10}"
    deviation = curve.values.std(0, ddof=1) if len(curve.values) > 1 else np.zeros_like(mean)
    if len(curve.steps) == 1:
        axis.errorbar(curve.steps, mean, deviation, fmt="o", color=colour, capsize=4, clip_on=False)
        return
    axis.plot(curve.steps, mean, linestyle=style, color=colour)
    if deviation.any():
        axis.fill_between(curve.steps, np.maximum(mean - deviation, 0), mean + deviation, color=colour, alpha=0.2,
                          linewidth=0)
