"""Draws contour plots from a grid of losses, as SVG with colours from the page's CSS."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import contourpy
import numpy as np
from scipy.ndimage import zoom

from experiments.article.charts import text

LEVELS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # loss values that separate the bands
SIDE, TOP = 306, 24


def contour_panel(title: str, grid: Any, span: float) -> str:
    """Draw the loss `[points, points]` from -`span` to `span` in both directions, around the trained network.

    Cubic splines interpolate the logarithm of the loss between the points, so that contours are smooth.
    """
    fine = np.exp(zoom(np.log(np.asarray(grid, float)), 4, order=3))
    at = np.linspace(0, SIDE, len(fine))
    contours = contourpy.contour_generator(at, at, fine, fill_type=contourpy.FillType.OuterOffset)
    edges = (0.0, *LEVELS, np.inf)
    bands = []
    for band, (low, high) in enumerate(pairwise(edges)):
        polygons, offsets = cast(Any, contours.filled(low, min(high, 1e30)))
        path = "".join(outline(points[start:stop]) for points, ends in zip(polygons, offsets, strict=True)
                       for start, stop in pairwise(ends))
        bands.append(f'<path class="band b{band}" d="{path}"/>' if path else "")
    middle = SIDE / 2
    ticks = "".join(text(22 + SIDE * place, TOP + SIDE + 18, signed(span * (2 * place - 1)), "middle")
                    for place in (0, 0.25, 0.5, 0.75, 1))
    return (f'<svg class="panel" viewBox="0 0 350 {TOP + SIDE + 28}" role="img" aria-label="{title}">'
            f'{text(22, 14, title, "title")}<g transform="translate(22 {TOP})">{"".join(bands)}'
            f'<path class="cross" d="M{middle - 6} {middle}h12M{middle} {middle - 6}v12"/></g>{ticks}</svg>')


def outline(points: np.ndarray) -> str:
    """Format a closed line."""
    return "M" + "L".join(f"{x:.0f} {y:.0f}" for x, y in points) + "Z"


def scale_of_losses(name: str) -> str:
    """Draw the legend of the loss bands."""
    bands = "".join(f'<span><i class="band b{band}"></i>{label}</span>'
                    for band, label in enumerate(band_names(LEVELS)))
    return f'<div class="legend losses"><span>{name}</span>{bands}</div>'


def band_names(levels: Sequence[float]) -> list[str]:
    """Label the bands by their upper ends, the last one by its lower end."""
    return [*(f"<{level:g}".replace("<", "&lt; ") for level in levels), f"≥ {levels[-1]:g}"]


def signed(value: float) -> str:
    """Format a number with a true minus sign."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")
