"""Draws confusion matrices, the most confident mistakes, and saliency maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resjax.system.files import write_aside

NAMED, COUNTED = 60, 20  # largest numbers of classes for which names and counts are drawn


def draw_confusion(counts: np.ndarray, names: Sequence[str], title: str, file: Path) -> None:
    """Draw a confusion matrix as a PNG. Mistakes set the colour scale, because correct predictions outnumber them."""
    classes = len(names)
    mistakes = np.where(np.eye(classes, dtype=bool), 0, counts)
    side = min(16, max(5, 2.5 + 0.45 * classes))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.add_subplot()
    colours = axis.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(1, mistakes.max()))
    figure.colorbar(colours, ax=axis, shrink=0.7, label="images by true and predicted class")
    axis.set(xlabel="predicted class", ylabel="true class", title=literal(title))
    if classes <= NAMED:
        short = [literal(cut_name(name)) for name in names]
        axis.set_xticks(range(classes), short, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(classes), short)
    for row, column in np.ndindex(counts.shape) if classes <= COUNTED else ():
        right, dark = row == column, mistakes[row, column] > 0.6 * mistakes.max()
        if counts[row, column]:
            axis.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=8,
                      weight="bold" if right else "normal", color="white" if dark else "black")
    save_png(figure, file)


def draw_sheet(pictures: Sequence[tuple[np.ndarray, str]], file: Path) -> None:
    """Draw images `[height, width, channels]` under their titles as a PNG, with six images per row."""
    columns = min(6, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.35 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (pixels, title) in zip(axes, pictures, strict=False):
        draw_image(axis, pixels)
        axis.set_title(literal(title), fontsize=8)
    save_png(figure, file)


def draw_saliency(pixels: np.ndarray, saliency: np.ndarray, title: str, file: Path) -> None:
    """Draw an image `[height, width, channels]` and its saliency map `[height, width]` side by side, as a PNG."""
    figure = Figure(figsize=(7.5, 2.9), layout="constrained")
    image, alone, together = figure.subplots(1, 3)
    draw_image(image, pixels)
    colours = alone.imshow(saliency, cmap="inferno", vmin=0)
    figure.colorbar(colours, ax=alone, shrink=0.8)
    strongest = max(float(np.quantile(saliency, 0.98)), np.finfo(np.float32).tiny)  # clip the few largest values
    light = 0.15 + 0.85 * np.clip(saliency / strongest, 0, 1)
    draw_image(together, (pixels * light[..., None]).astype(np.uint8))
    for axis, name in ((image, "image"), (alone, "gradient"), (together, "saliency")):
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    figure.suptitle(literal(title), fontsize=10)
    save_png(figure, file)


def draw_image(axis: Axes, pixels: np.ndarray) -> None:
    """Show uint8 `[height, width, channels]`, in colour or grey, without interpolation."""
    grey = pixels.shape[-1] != 3
    axis.imshow(pixels[..., 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=255,
                interpolation="nearest")


def cut_name(name: str, most: int = 22) -> str:
    """Truncate a long name."""
    return name if len(name) <= most else f"{name[:most - 1]}…"


def literal(name: str) -> str:
    """Escape dollar signs, between which Matplotlib expects a formula."""
    return name.replace("$", r"\$")


def save_png(figure: Figure, file: Path) -> None:
    """Save a figure as a PNG, atomically."""
    write_aside(file, lambda aside: figure.savefig(aside, format="png", dpi=120))
