"""What a run has logged, as curves to lay over each other: by what is measured, then on which images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Point = tuple[int, float]
Curves = dict[str, dict[str, list[Point]]]

POINTS = 150  # of a curve: more than a line of this width can show
QUANTITIES = {  # by their keys in the log; of a callback's numbers the key is the name
    "error": "error, %", "top1_error": "error, %", "mean_average_precision": "mAP, %", "loss": "loss",
    "learning_rate": "learning rate", "top5_error": "top-5 error, %", "eleven_point": "mAP by 11 points, %"}
SERIES = {"detection": "test"}  # by kinds of lines; the other kinds are series of their own
OWN = "own"


def curves_in(lines: Sequence[Mapping[str, Any]]) -> Curves:
    """Sort the numbers of a log into curves: a quantity, and for it those of training, validation, test and callback.

    Numbers that are not finite are left out. The average precision of a detector's classes is a quantity each.
    """
    found: Curves = {}
    for line in lines:
        series = SERIES.get(line["kind"], line["kind"])
        by_class = {f"AP of {name}, %": value for name, value in line.get("average_precision", {}).items()}
        told = {QUANTITIES.get(key, key if series == OWN else ""): value for key, value in line.items()
                if key not in ("step", "kind")}
        for name, value in (told | by_class).items():
            if name and type(value) in (int, float) and math.isfinite(value):
                found.setdefault(name, {}).setdefault(series, []).append((line["step"], value))
    return {name: {series: thinned(points) for series, points in some.items()} for name, some in found.items()}


def quantities(curves: Sequence[Curves]) -> list[str]:
    """Order what is measured in any of several runs: as in `QUANTITIES`, then callbacks' numbers and classes."""
    names = dict.fromkeys(name for some in curves for name in some)
    known = dict.fromkeys(QUANTITIES.values())
    return [*(name for name in known if name in names), *(name for name in names if name not in known)]


def thinned(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """Keep every n-th of many points, about `most` of them, and the last always."""
    every = max(1, -(-len(points) // most))
    return [*points[:-1:every], *points[-1:]]


def last_before(lines: Sequence[Mapping[str, Any]], step: int | None) -> Mapping[str, Any]:
    """Return the last training line, of up to a step if one is given; nothing where there is none."""
    trained = [line for line in lines if line["kind"] == "train" and (step is None or line["step"] <= step)]
    return trained[-1] if trained else {}
