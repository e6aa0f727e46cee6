"""Measures layer responses, gradients and the effect of removing a block, in trained CIFAR-10 networks.

    python experiments/benchmarks/trained.py [resnet20 ...] [--out DIR] [--directory DIR]

A network is given as a run directory, a weights file, or the name of a network that comes with resjax. The script
prints one line per measurement, and saves all measurements and a plot in DIR. Cost on 2 CPU cores: half a minute for a
network of 20 layers, several minutes for one of 56.
"""

from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import tyro

from resjax import Data, Network, evaluate, load, load_data
from resjax.analysis import gradient_norms, residual_ratios, response_deviations, without_block
from resjax.console.command_line import guarded
from resjax.data import Dataset
from resjax.system.files import write_aside, write_json
from resjax.system.progress import track
from resjax.system.terminal import say

SEEN = 640  # images per gradient, which form ten batch-norm groups, without crops and flips


def measure(name: str, network: Network, data: Dataset) -> dict[str, Any]:
    """Measure all layers and blocks of a network."""
    model, variables = network.model, network.variables
    images = network.preprocessing.normalize(data.train.pixels[:SEEN])
    errors = {"all": evaluate(network, data.test).top1_error}
    removable = [(stage, index) for stage, blocks in enumerate(model.blocks) for index in range(blocks - 1)]
    for stage, index in track(removable, f"{name}: removing one block at a time", len(removable)):
        smaller, left = without_block(model, variables, stage, index)
        errors[f"{stage + 1}.{index + 2}"] = evaluate(
            network._replace(model=smaller, variables=left), data.test).top1_error
    found = {"test_error_without_block": errors,
             "response_deviations": response_deviations(network, data.test).tolist(),
             "gradient_norms": gradient_norms(model, variables, images, data.train.labels[:SEEN]).tolist()}
    if model.shortcut != "plain":  # plain networks add nothing to F(x)
        found["residual_ratios"] = residual_ratios(model, variables, images).tolist()
    return found


def state(name: str, found: dict[str, Any]) -> list[str]:
    """Describe the measurements in sentences."""
    whole, *without = found["test_error_without_block"].values()
    norms = found["gradient_norms"]
    said = [f"{name}: {whole:.2f} % test error; {min(without):.2f} to {max(without):.2f} % without any one of its "
            f"{len(without)} blocks that are not the first of their stage",
            f"{name}: the mean standard deviation of a layer's response is {np.mean(found['response_deviations']):.3f}",
            f"{name}: the gradient's norm in the first layer is {norms[0] / norms[-2]:.2f} times that in the last "
            f"convolution; over all layers the largest is {max(norms) / min(norms):.1f} times the smallest"]
    if "residual_ratios" in found:
        ratios = found["residual_ratios"]
        said.append(f"{name}: ||F(x)|| / ||x|| of its blocks: {min(ratios):.2f} to {max(ratios):.2f}")
    return said


def draw(found: dict[str, dict[str, Any]], file: Path) -> None:
    """Draw responses and gradients by layer, and the test error without each block."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for name, values in found.items():
        for axis, key in zip(axes, ("response_deviations", "gradient_norms"), strict=False):
            axis.plot(range(1, len(values[key]) + 1), values[key], "o-", markersize=3, label=name)
            axis.xaxis.get_major_locator().set_params(integer=True)
        whole, *without = values["test_error_without_block"].items()
        axes[2].plot([block for block, _ in without], [error for _, error in without], "o", label=name)
        axes[2].axhline(whole[1], linestyle="--", linewidth=0.8, color=axes[2].lines[-1].get_color())
    axes[2].tick_params("x", rotation=90, labelsize="small")
    for axis, title, below, beside in zip(
            axes, ("responses", "gradients", "one block removed"), ("layer", "layer", "stage.block"),
            ("standard deviation", "norm of the loss's gradient", "test error (%); dashed: none removed"), strict=True):
        axis.set(title=title, xlabel=below, ylabel=beside, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    write_aside(file, lambda aside: figure.savefig(aside, dpi=150))


def main(networks: Annotated[tuple[str, ...], tyro.conf.Positional] = ("resnet20",), out: Path = Path("runs/trained"),
         directory: Path | None = None) -> None:
    """Measure trained networks of CIFAR-10.

    Args:
        networks: Run directories, weights files, or names of networks that come with resjax.
        out: The folder for `trained.json` and `trained.png`.
        directory: The folder of prepared TensorFlow Datasets. Defaults to RESJAX_DATA.
    """
    data = load_data(Data(source="tfds:cifar10", directory=directory))
    found: dict[str, dict[str, Any]] = {}
    sentences: list[str] = []
    for name in networks:
        found[name] = measure(name, load(name), data)
        said = state(name, found[name])
        sentences += said
        say("\n".join(said))
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "trained.json", {"measured": sentences, "networks": found})
    draw(found, out / "trained.png")


if __name__ == "__main__":
    raise SystemExit(guarded(lambda: tyro.cli(main)))
