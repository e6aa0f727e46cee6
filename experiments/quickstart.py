"""Shows in a minute, without a download, that plain networks get worse with depth and residual networks do not.

    python experiments/quickstart.py

The script trains a shallow and a deep network of each kind on scikit-learn's handwritten digits. It writes a table like
the paper's Table 6 and training curves like its Figure 6 to the folder of the runs. If the training was stopped, the
same command resumes it.

Cost: about a minute on 2 CPU cores.
Result: in runs on an Intel Xeon (five seeds) and an AMD EPYC (one seed), the deep plain network's training loss is 3.5
to 6.2 times that of the shallow plain network. The deep residual network's training loss is 0.31 to 0.55 times that of
the shallow residual network (docs/results/quickstart.md).

We chose the depths, the learning rate and the number of steps to show this effect quickly. They differ from the
paper's.
"""

from pathlib import Path
from typing import Any

from resjax import Architecture, Data, Experiment, Optimizer
from resjax.console.command_line import script
from resjax.system.files import write_aside, write_text
from resjax.system.progress import one_by_one, working
from resjax.system.terminal import say_end, say_table

SHALLOW, DEEP = 8, 32
STEPS = 200


def network(depth: int, shortcut: str, seed: int = 0) -> Experiment:
    """Return a network of section 4.2 for 8x8 images, padded by 1 pixel, without flips (a mirrored 2 is no digit)."""
    name = f"plain-{depth}" if shortcut == "plain" else f"ResNet-{depth}"
    return Experiment(
        name=name, architecture=Architecture(depth=depth, shortcut=shortcut), seed=seed,
        data=Data(source="digits", pad=1, flip=False),
        optimizer=Optimizer(learning_rate=0.02, decay_steps=(STEPS * 3 // 4,)),
        steps=STEPS, batch_size=128, log_steps=10, checkpoint_steps=50, precise_batch_norm_steps=20)


RUNS = [network(depth, shortcut) for shortcut in ("plain", "A") for depth in (SHALLOW, DEEP)]
EXPERIMENTS = {e.name: e for e in RUNS}


def table(results: dict[str, dict[str, Any]], curves: dict[str, list[dict[str, Any]]]) -> str:
    """Format the results in Markdown. Training error and loss are taken from the last line of the log."""
    rows = [f"| {name} | {result['parameters']:,} | {curves[name][-1]['error']:.2f} | {curves[name][-1]['loss']:.3f} "
            f"| {result['test_top1_error']:.2f} |" for name, result in results.items()]
    return "\n".join(["| network | parameters | training error % | training loss | test error % |",
                      "|---|---|---|---|---|", *rows])


def verdict(curves: dict[str, list[dict[str, Any]]]) -> str:
    """Describe the result of the runs, whether or not it agrees with the paper."""
    loss = {name: lines[-1]["loss"] for name, lines in curves.items()}
    plain, residual = (loss[f"{kind}-{DEEP}"] / loss[f"{kind}-{SHALLOW}"] for kind in ("plain", "ResNet"))
    return (f"With {DEEP} layers instead of {SHALLOW}, the plain network's training loss is {plain:.3g} times as high, "
            f"and the residual network's is {residual:.3g} times as high.")


def draw(curves: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Draw the training loss over the steps, plain networks left and residual ones right, as in Figure 6."""
    import matplotlib.pyplot as plt  # imported here, since listing runs does not need it

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, kind, title in zip(axes, ("plain", "ResNet"), ("plain nets", "residual nets"), strict=True):
        for depth, style in ((SHALLOW, "--"), (DEEP, "-")):
            lines = curves[f"{kind}-{depth}"]
            axis.plot([line["step"] for line in lines], [line["loss"] for line in lines], style, color="black",
                      linewidth=2 if depth == DEEP else 1, label=f"{kind}-{depth}")
        axis.set(title=title, xlabel="iteration", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0].set_ylabel("training loss (cross-entropy)")
    write_aside(file, lambda aside: figure.savefig(aside, dpi=150))
    plt.close(figure)


def quickstart(workdir: Path = Path("runs/quickstart")) -> None:
    """Train a shallow and a deep network of each kind, in about a minute.

    Args:
        workdir: The folder for the runs, `table.md` and `curves.png`.
    """
    with working("loading JAX"):
        from resjax.training import read_metrics, train

    works = [float(run.architecture.depth) for run in RUNS]  # equal widths, so the cost is proportional to depth
    results = {run.name: train(run, workdir / run.name) for run in one_by_one(RUNS, works)}
    curves = {name: read_metrics(workdir / name, "train") for name in EXPERIMENTS}
    text = f"{table(results, curves)}\n\n{verdict(curves)}\n"
    write_text(workdir / "table.md", text)
    draw(curves, workdir / "curves.png")
    say_table(f"\n{text}")
    say_end(f"In {workdir}: table.md, curves.png", f"resjax report {workdir}", "resjax reproduce table6")


if __name__ == "__main__":
    script(quickstart)
