"""Converts a run's log to curves, with one curve per quantity and set of images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Point = tuple[int, float]
Curves = dict[str, dict[str, list[Point]]]

POINTS = 150  # points per curve; a line of this width could not show more
QUANTITIES = {  # titles by key in the log; a callback's numbers keep their names
    "error": "error, %", "top1_error": "error, %", "mean_average_precision": "mAP, %", "loss": "loss",
    "learning_rate": "learning rate", "top5_error": "top-5 error, %", "eleven_point": "mAP by 11 points, %"}
SERIES = {"detection": "test"}  # series by kind of line; other kinds are separate series
OWN = "own"


def curves_in(lines: Sequence[Mapping[str, Any]]) -> Curves:
    """Sort the numbers of a log into curves of training, validation, test and callback, for each quantity.

    Numbers that are not finite are left out. The average precision of each class is a separate quantity.
    """
    curves: Curves = {}
    for line in lines:
        series = SERIES.get(line["kind"], line["kind"])
        by_class = {} if series == OWN else {f"AP of {name}, %": value
                                             for name, value in line.get("average_precision", {}).items()}
        quantities = {key if series == OWN else QUANTITIES.get(key, ""): value for key, value in line.items()
                      if key not in ("step", "kind")}
        for name, value in (quantities | by_class).items():
            if name and type(value) in (int, float) and math.isfinite(value):
                curves.setdefault(name, {}).setdefault(series, []).append((line["step"], value))
    return {name: {series: thinned(points) for series, points in some.items()} for name, some in curves.items()}


def quantities(curves: Sequence[Curves]) -> list[str]:
    """Sort the quantities of several runs in the order of `QUANTITIES`, followed by callbacks' numbers and classes."""
    names = dict.fromkeys(name for some in curves for name in some)
    known = dict.fromkeys(QUANTITIES.values())
    return [*(name for name in known if name in names), *(name for name in names if name not in known)]


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """Thin out the points to about `most`, evenly spaced. The last point is always kept."""
    every = max(1, -(-len(points) // most))
    return [*points[:-1:every], *points[-1:]]


def last_before(lines: Sequence[Mapping[str, Any]], step: int | None) -> Mapping[str, Any]:
    """Return the last training line, or the last one up to `step` if given; empty if there is none."""
    trained = [line for line in lines if line["kind"] == "train" and (step is None or line["step"] <= step)]
    return trained[-1] if trained else {}
