"""Draws Figures 4, 6 and 7 of the paper from runs, and checks whether the paper's claims hold."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resjax.analysis import response_deviations
from resjax.data import load_data
from resjax.experiment import Data
from resjax.paper.reproduce import Planned, planned_result, scaled_name
from resjax.paper.table import LEAST_STEPS, Table
from resjax.system.distributed import is_first
from resjax.system.errors import BadInput
from resjax.system.files import read_json, write_aside, write_json
from resjax.system.terminal import tell
from resjax.training import read_metrics, read_result, restore

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))  # distinguishable in grey


class Verdict(NamedTuple):
    """A claim with its measurement, and whether it holds (None if the training was too short to judge)."""

    claim: str
    holds: bool | None


class Drawing(NamedTuple):
    """A figure, its title, and the claims about it."""

    title: str
    figure: Figure
    claims: Sequence[Verdict]


def draw_figures(table: Table, runs: Sequence[Planned], scale: float, folder: Path) -> list[dict[str, Any]]:
    """Save a table's figures from its finished runs as SVG; return title, file and claims of each."""
    finished = list({run.row: run for run in reversed(runs) if planned_result(run)}.values())
    saved = []
    for name in table.figures if finished else ():
        make = {"figure4": figure4, "figure6": figure6, "figure7": figure7}[name]
        try:
            drawing = make(sorted(finished, key=lambda run: (not is_plain(run), run.row.layers)))
        except BadInput as error:  # such as a missing checkpoint
            tell(f"{name} is left out: {error}" if is_first() else "")
            continue
        file = folder / f"{scaled_name(name, scale)}.svg"
        if is_first():
            save_figure(drawing.figure, file)
        plt.close(drawing.figure)
        saved.append({"title": drawing.title, "file": file.name, "claims": drawing.claims})
    return saved


def save_figure(figure: Figure, file: Path | BytesIO) -> None:
    """Save a figure as SVG, atomically; equal figures give equal bytes."""
    def write(aside: Path | BytesIO) -> None:
        figure.savefig(aside, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))

    with plt.rc_context({"svg.hashsalt": file.stem if isinstance(file, Path) else "page"}):
        write_aside(file, write) if isinstance(file, Path) else write(file)


def is_plain(run: Planned) -> bool:
    """Return whether a run's network is plain rather than residual."""
    return bool(run.experiment.architecture.shortcut == "plain")


def curve(run: Planned, kind: str) -> tuple[list[int], list[float]]:
    """Read a run's iterations and errors in percent; `kind` is "train" or, if test errors were measured, "test"."""
    key = "error" if kind == "train" else "top1_error"
    lines = [line for line in read_metrics(run.run_directory, kind) if key in line]
    return [line["step"] for line in lines], [line[key] for line in lines]


def figure4(runs: Sequence[Planned]) -> Drawing:
    """Draw training errors, and validation errors on centre crops, over the iterations on ImageNet, as in Figure 4."""
    deep = [run for run in runs if run.row.layers > 18]  # the paper's networks with 18 layers are equally accurate
    return draw_errors("Figure 4", "validation error on centre crops", runs, deep)


def figure6(runs: Sequence[Planned]) -> Drawing:
    """Draw training errors and test errors over the iterations on CIFAR-10, as in Figure 6."""
    return draw_errors("Figure 6", "test error", runs, runs)


def draw_errors(name: str, test: str, runs: Sequence[Planned], paired: Sequence[Planned]) -> Drawing:
    """Draw training errors (thin) and `test` errors (bold) over the iterations, for plain (left) and residual networks.

    `runs` has one run per row, plain networks first, sorted by depth. The claims compare the final training errors, at
    equal depth only for the networks in `paired`.
    """
    plain, residual = ([run for run in runs if is_plain(run) == kind] for kind in (True, False))
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for axis, some, title in zip(axes, (plain, residual), ("plain networks", "residual networks"), strict=True):
        for run, style in zip(some, STYLES, strict=False):
            axis.plot(*curve(run, "train"), linestyle=style, linewidth=0.8, color="tab:blue")
            axis.plot(*curve(run, "test"), linestyle=style, linewidth=1.8, color="black", label=run.row.title)
        axis.set(title=title, xlabel="iteration")
        add_grid_and_legend(axis)
    axes[0].set(ylabel="error (%)", ylim=(0, None))  # set last, because one side may be empty and both share the axis
    figure.suptitle(f"{test} (bold) and training error (thin)", fontsize="medium")
    last = {run.row.title: curve(run, "train")[1][-1] for run in runs}
    claimed = [*pairwise(plain), *pairwise(deepest_first(residual)), *same_depth(
        [run for run in residual if run in paired], plain)]
    return Drawing(f"{name}: errors over the iterations", figure, compared(
        claimed, last, "{} has a lower training error than {}: {:.2f} % versus {:.2f} %"))


def figure7(runs: Sequence[Planned]) -> Drawing:
    """Draw the standard deviation of every 3x3 layer's response, in layer order and sorted.

    `runs` has the form described in `draw_errors`. Responses are measured on the test images with the last checkpoint,
    after batch norm and before the ReLU or the addition. The claims of section 4.2 compare the means over the layers.
    """
    measured = [responses(run) for run in runs]
    means = {run.row.title: deviations.mean() for run, deviations in zip(runs, measured, strict=True)}
    figure, axes = plt.subplots(2, 1, figsize=(9, 6), layout="constrained")
    for index, (run, deviations) in enumerate(zip(runs, measured, strict=True)):
        layers = np.arange(1, len(deviations) + 1)
        for axis, values in zip(axes, (deviations, np.sort(deviations)[::-1]), strict=True):
            axis.plot(layers, values, "--" if is_plain(run) else "-", color=f"C{index}", label=run.row.title,
                      linewidth=1 + 0.3 * index)
    for axis, order in zip(axes, ("in the order of the network", "sorted by deviation"), strict=True):
        axis.set(xlabel=f"layer, {order}", ylabel="standard deviation", ylim=(0, None))
        axis.xaxis.get_major_locator().set_params(integer=True)
        add_grid_and_legend(axis)
    plain, residual = ([run for run in runs if is_plain(run) == kind] for kind in (True, False))
    claimed = [*same_depth(residual, plain), *pairwise(deepest_first(residual))]
    return Drawing("Figure 7: standard deviations of the layers' responses", figure, compared(
        claimed, means, "{} has smaller responses than {}: mean deviation {:.3f} versus {:.3f}"))


def deepest_first(residual: Sequence[Planned]) -> list[Planned]:
    """Sort the residual networks that the paper compares with each other: all but ResNet-1202."""
    return [run for run in reversed(residual) if run.row.layers < 1000]


def same_depth(residual: Sequence[Planned], plain: Sequence[Planned]) -> list[tuple[Planned, Planned]]:
    """Pair residual and plain networks of equal depth."""
    return [(run, other) for run in residual for other in plain if run.row.layers == other.row.layers]


def compared(pairs: Sequence[tuple[Planned, Planned]], values: Mapping[str, float], claim: str) -> list[Verdict]:
    """Claim that the first run of each pair has the lower value; `claim` is a template for titles and values."""
    verdicts = []
    for pair in pairs:
        low, high = (run.row.title for run in pair)
        short = any(run.experiment.steps < LEAST_STEPS for run in pair)
        text = claim.format(low, high, values[low], values[high])
        verdicts.append(Verdict(text, None if short else bool(values[low] < values[high])))
    return verdicts


def responses(run: Planned) -> np.ndarray:
    """Return the standard deviations of a finished run's layers, measured once and then stored in its folder."""
    file, result = run.run_directory / "responses.json", read_result(run.run_directory) or {}
    if file.exists():
        stored = read_json(file, "state_digest", "deviations")
        if stored["state_digest"] == result.get("state_digest"):
            return np.array(stored["deviations"])
    trained, data = restore(run.run_directory), run.experiment.data
    assert isinstance(data, Data)  # CIFAR-10
    test = load_data(data).test
    count = len(test.labels)
    batch_size = max(size for size in range(1, min(count, 100) + 1) if count % size == 0)
    deviations = response_deviations(trained.network, jax.device_put(test), batch_size)
    if is_first():
        write_json(file, {"state_digest": result.get("state_digest"), "images": count,
                          "deviations": deviations.tolist()})
    return deviations


def add_grid_and_legend(axis: Axes) -> None:
    """Add a grid and, if there are labels, a legend to an axis."""
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize="small")
