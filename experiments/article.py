"""Why residual networks train: five claims, each with a measurement, a picture and a verdict.

    python experiments/article.py [--only 3] [--workdir runs/article]

1 degradation, 2 vanishing and exploding gradients, 3 the identity is easy, 4 more layers do not hurt, 5 dimensions
that differ. All on scikit-learn's digits, with three seeds, on fully connected and on convolutional nets; the verdicts
are computed from the means over the seeds. `resjax reproduce article` is the same.

Cost: 4 min 42 s on 2 CPU cores. Result: 23 of 25 verdicts hold (experiments/results/README.md).
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import tyro
from flax import linen as nn
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from resjax import Architecture, BadInput, Data, Experiment, Optimizer, cifar_resnet, evaluate, load_data
from resjax.analysis import gradient_norms, residual_ratios, with_identity_blocks
from resjax.command_line import guarded
from resjax.data import Dataset, Preprocessing, mean_image, normalize
from resjax.models import BasicBlock, BatchNorm, DenseBlock, ResidualMLP, Shortcut
from resjax.network import Classifier
from resjax.paper import Drawing, Verdict, write_findings
from resjax.platform import keep_compiled_programs
from resjax.training import TrainState, fit

SEEDS = (0, 1, 2)
STEPS, BATCH, WINDOW = 150, 64, 25  # a loss is the mean over 25 steps: with fewer, noise decides between close nets


@cache
def digits() -> Dataset:
    """Load the data."""
    return load_data(Data(source="digits"))


def probe() -> tuple[jax.Array, jax.Array]:
    """Take one batch of images and labels to measure on."""
    train = digits().train
    return normalize(train.pixels[:BATCH], mean_image(train)), train.labels[:BATCH]


def recipe(seed: int, steps: int = STEPS, learning_rate: float = 0.02, weight_decay: float = 1e-4,
           pad: int = 1) -> Experiment:
    """Give the paper's recipe for small images, the rate divided by ten for the last quarter."""
    return Experiment(name="article", seed=seed, steps=steps, batch_size=BATCH, data=Data(pad=pad, flip=False),
                      architecture=Architecture(ghost_batch_size=BATCH),
                      optimizer=Optimizer(learning_rate=learning_rate, decay_steps=(steps * 3 // 4,),
                                          weight_decay=weight_decay))


@cache
def trained(model: nn.Module, seed: int, **settings: Any) -> tuple[TrainState, np.ndarray]:
    """Train a net from its first state: its last state, and the loss of every step."""
    return fit(recipe(seed, **settings), model, digits())


def final(losses: np.ndarray) -> float:
    """Average the loss over the last steps, as the curves do."""
    return float(losses[-WINDOW:].mean())


def mean(values: Any) -> float:
    """Average over the seeds."""
    return float(np.mean(list(values)))


def mlp(blocks: int, shortcut: str, **settings: Any) -> ResidualMLP:
    """Build a fully connected net of 2 blocks + 2 layers of 64 units, with batch norm."""
    return ResidualMLP((blocks,), (64,), 10, shortcut, **{"ghost_batch_size": BATCH, **settings})


def conv(depth: int, shortcut: str) -> nn.Module:
    """Build a net of section 4.2."""
    return cifar_resnet(depth, shortcut, ghost_batch_size=BATCH)


def panels(count: int, **settings: Any) -> tuple[Figure, list[Axes]]:
    """Make a figure of so many plots side by side."""
    figure, axes = plt.subplots(1, count, figsize=(1.5 + 4 * count, 3.8), layout="constrained", **settings)
    return figure, list(np.atleast_1d(axes))


def label(axis: Axes, x: str, y: str, legend: dict[str, Any] | None = None, **settings: Any) -> None:
    """Name the axes of a plot and, where there are curves, those."""
    axis.set(xlabel=x, ylabel=y, **settings)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(**{"fontsize": "small", **(legend or {})})


def degradation() -> Drawing:
    """Deeper plain nets reach a higher training loss; residual ones do not."""
    families: dict[str, tuple[Callable[..., nn.Module], int, int, dict[str, int]]] = {
        "fully connected": (lambda depth, shortcut: mlp((depth - 2) // 2, shortcut), 6, 22, {"steps": 500, "pad": 0}),
        "convolutional": (conv, 8, 26, {})}
    figure, axes = panels(2)
    claims = []
    for axis, (family, (build, shallow, deep, settings)) in zip(axes, families.items(), strict=True):
        loss = {}
        for shortcut, kind, color in (("plain", "plain", "tab:red"), ("A", "residual", "black")):
            for depth, style in ((shallow, "--"), (deep, "-")):
                curves = [trained(build(depth, shortcut), seed, **settings)[1] for seed in SEEDS]
                loss[kind, depth] = mean(map(final, curves))
                smooth = np.convolve(np.mean(curves, 0), np.full(WINDOW, 1 / WINDOW), "valid")
                axis.plot(np.arange(WINDOW, WINDOW + len(smooth)), smooth, style, color=color,
                          label=f"{kind}, {depth} layers")
        label(axis, "iteration", f"training loss (mean over {WINDOW} iterations)", title=family, yscale="log")
        worse, better = loss["plain", deep], loss["plain", shallow]
        ours, theirs = loss["residual", deep], loss["residual", shallow]
        claims += [
            Verdict(f"{family}, plain: {deep} layers have a higher training loss than {shallow} "
                    f"({worse:.3f} against {better:.3f})", worse > better),
            Verdict(f"{family}, residual: {deep} layers have no higher training loss than {shallow} "
                    f"({ours:.3f} against {theirs:.3f})", ours <= theirs),
            Verdict(f"{family}: with {deep} layers the residual net's loss is the lower "
                    f"({ours:.3f} against {worse:.3f})", ours < worse)]
    return Drawing("1 Degradation", figure, claims)


def gradients() -> Drawing:
    """Gradients of deep plain nets vanish or explode with the scale of the weights; shortcuts and batch norm help."""
    blocks, gains, (images, labels) = 20, (1.0, 2.0, 4.0), probe()
    figure, axes = panels(3, sharey=True)
    layers, kinds = np.arange(1, 2 * blocks + 3), (("plain", "plain", "tab:red"), ("A", "residual", "black"))
    first: dict[tuple[str, str, float], float] = {}
    for axis, (norm, group) in zip(axes, (("without batch norm", None), ("with batch norm", BATCH)), strict=False):
        for shortcut, kind, color in kinds:
            model = mlp(blocks, shortcut, ghost_batch_size=group)
            for gain, style in zip(gains, (":", "-", "--"), strict=True):
                init = jax.jit(model.clone(gain=gain).init)
                norms = np.log10([gradient_norms(model, init(jax.random.key(seed), images), images, labels)
                                  for seed in SEEDS])
                first[norm, kind, gain] = mean(norms[:, 0])
                axis.plot(layers, 10 ** norms.mean(0), style, color=color, label=f"{kind}, gain {gain:g}")
    spread = {}
    for shortcut, kind, color in kinds:
        model = mlp(blocks, shortcut)
        norms = [gradient_norms(model, trained(model, seed)[0].variables, images, labels) for seed in SEEDS]
        spread[kind] = mean(one.max() / one.min() for one in norms)
        axes[2].plot(layers, 10 ** np.mean(np.log10(norms), 0), color=color, label=f"{kind}, gain 2")
    for axis, title in zip(axes, ("without batch norm, at first", "with batch norm, at first",
                                  "with batch norm, after training"), strict=True):
        label(axis, "layer", "norm of the gradient", title=title, yscale="log", legend={
            "ncols": 2, "fontsize": "x-small", "loc": "upper center", "bbox_to_anchor": (0.5, -0.18)})

    def decades(norm: str, kind: str) -> float:
        return max(first[norm, kind, gain] for gain in gains) - min(first[norm, kind, gain] for gain in gains)

    bare, shortcuts, normed = decades(norm := "without batch norm", "plain"), decades(norm, "residual"), decades(
        "with batch norm", "plain")
    low, middle, high = (first[norm, "plain", gain] for gain in gains)
    return Drawing("2 Vanishing and exploding gradients", figure, [
        Verdict("plain, without batch norm: half of He's variance lets the first layer's gradient vanish, by a factor "
                f"of 10^{middle - low:.1f}", low < middle - 2),
        Verdict("plain, without batch norm: twice He's variance lets it explode, by a factor of "
                f"10^{high - middle:.1f}", high > middle + 2),
        Verdict("shortcuts: from gain 1 to 4 the first layer's gradient spans fewer decades than in the plain net "
                f"({shortcuts:.1f} against {bare:.1f})", shortcuts < bare),
        Verdict(f"batch norm does the same to the plain net ({normed:.1f} against {bare:.1f})", normed < bare),
        *(Verdict(f"{kind}, with batch norm, after training: the largest gradient of a layer is less than 100 times "
                  f"the smallest ({times:.0f} times)", times < 100) for kind, times in spread.items())])


def gives_back(block: nn.Module, shape: tuple[int, ...], last: str, seed: int) -> tuple[bool, bool]:
    """Set a block's last layer to zero: does it give back its input, and the gradient, to the bit?"""
    keys = jax.random.split(jax.random.key(seed), 3)
    x, dy = jax.nn.relu(jax.random.normal(keys[0], shape)), jax.random.normal(keys[2], shape)
    drawn = jax.jit(block.init)(keys[1], x)
    zeroed = {**drawn, "params": {**drawn["params"], last: jax.tree.map(jnp.zeros_like, drawn["params"][last])}}

    @jax.jit
    def forward_and_back(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, pull = jax.vjp(lambda x: block.apply(zeroed, x, mutable=["batch_stats"])[0], x)
        return y, pull(dy)[0]

    y, dx = forward_and_back(x)
    return bool((y == x).all()), bool((dx == jnp.where(x > 0, dy, 0)).all())


def identity() -> Drawing:
    """Show that a block whose last layer is zero is the identity, and that weight decay moves blocks towards it."""
    shortcut, conv3x3 = partial(Shortcut, "A", None, None), partial(nn.Conv, kernel_size=(3, 3), use_bias=False)
    blocks = {
        "fully connected": (DenseBlock(nn.Dense, lambda name: lambda z: z, shortcut, 64), (BATCH, 64), "fc2"),
        "convolutional": (BasicBlock(lambda filters, *_, name: conv3x3(filters, name=name),
                                     partial(BatchNorm, train=True, ghost_batch_size=BATCH), shortcut, 16),
                          (BATCH, 8, 8, 16), "bn2")}
    claims = []
    for kind, (block, shape, last) in blocks.items():
        forward, backward = zip(*(gives_back(block, shape, last, seed) for seed in SEEDS), strict=True)
        claims += [Verdict(f"{kind}: the block gives its input back, every bit", all(forward)),
                   Verdict(f"{kind}: the gradient passes unchanged where the input is positive, every bit",
                           all(backward))]
    model, (images, _) = mlp(8, "A"), probe()
    figure, (axis,) = panels(1)
    ratio = {}
    for decay, style in ((0.0, "o:"), (1e-3, "x-."), (1e-2, "s--"), (3e-2, "^-")):
        states = [trained(model, seed, weight_decay=decay)[0] for seed in SEEDS]
        values = np.mean([residual_ratios(model, state.variables, images) for state in states], 0)
        axis.plot(np.arange(1, 9), values, style, fillstyle="none", color="black", label=f"weight decay {decay:g}")
        ratio[decay] = mean(values)
    label(axis, "block", "||F(x)|| / ||x||", ylim=(0, None))
    claims.append(Verdict("strong weight decay moves trained blocks towards the identity: mean ||F(x)|| / ||x|| is "
                          f"{ratio[3e-2]:.3f} with 0.03, {ratio[0.0]:.3f} without", ratio[3e-2] < ratio[0.0]))
    return Drawing("3 The identity is easy", figure, claims)


@partial(jax.jit, static_argnums=0)
def logits(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Apply a net."""
    return model.apply(variables, images)


def more_layers() -> Drawing:
    """Identity blocks appended to a trained net change no bit, and further training does not make it worse."""
    figure, axes = panels(2)
    claims, (images, _) = [], probe()
    for axis, (kind, model, stage) in zip(axes, (("fully connected", mlp(4, "A"), 0),
                                                 ("convolutional", conv(14, "A"), 2)), strict=True):
        same, curves = True, {"as it was": [], "with two blocks more": []}
        for seed in SEEDS:
            state, _ = trained(model, seed)
            larger, variables = with_identity_blocks(model, state.variables, stage, 2, jax.random.key(seed))
            same &= bool((logits(model, state.variables, images) == logits(larger, variables, images)).all())
            for (_, losses), net, start in zip(curves.items(), (model, larger), (state.variables, variables),
                                               strict=True):
                begin = state.replace(**start)
                losses.append(fit(recipe(seed, steps=60, learning_rate=0.005), net, digits(), begin)[1])
        for (name, losses), style in zip(curves.items(), ({"color": "silver", "linewidth": 5}, {"color": "black"}),
                                         strict=True):
            axis.plot(np.mean(losses, 0), **style, label=name)
        label(axis, "iteration of further training", "training loss", title=kind, ylim=(0, None))
        old, new = (mean(map(final, losses)) for losses in curves.values())
        claims += [Verdict(f"{kind}: two appended blocks change no bit of the logits", same),
                   Verdict(f"{kind}: trained further, the larger net is no worse ({new:.4f} against {old:.4f}, at most "
                           "a twentieth more)", new <= 1.05 * old)]
    return Drawing("4 More layers do not hurt", figure, claims)


def dimensions() -> Drawing:
    """Where dimensions differ: zeros, or a learned projection; and projections everywhere."""
    families: dict[str, Callable[[str], nn.Module]] = {
        "fully connected, widths 32, 64, 128": lambda option: ResidualMLP((5,) * 3, (32, 64, 128), 10, option, BATCH),
        "convolutional, 26 layers": partial(conv, 26)}
    options = ("plain", "A", "B", "C")
    figure, axes = panels(2)
    claims = []
    for axis, (kind, build) in zip(axes, families.items(), strict=True):
        loss = {}
        for position, option in enumerate(options):
            model = build(option)
            fits = [trained(model, seed) for seed in SEEDS]
            losses = [final(curve) for _, curve in fits]
            nets = [Classifier(model, state.variables, Preprocessing(state.mean)) for state, _ in fits]
            error = mean(evaluate(net, digits().test).top1_error for net in nets)
            loss[option] = mean(losses)
            axis.bar(position, loss[option], color="lightgrey", edgecolor="black")
            axis.plot([position] * len(losses), losses, "k.")
            axis.annotate(f"test\n{error:.1f} %", (position, 0), (0, 3), textcoords="offset points", ha="center",
                          va="bottom", fontsize="x-small")
        label(axis, "shortcut", "training loss (bar: mean; dots: seeds)", title=kind, xticks=range(4),
              xticklabels=options)
        residual = [loss[option] for option in "ABC"]
        claims += [Verdict(f"{kind}: A, B and C all have a lower training loss than the plain net "
                           f"({', '.join(f'{value:.3f}' for value in residual)} against {loss['plain']:.3f})",
                           max(residual) < loss["plain"]),
                   Verdict(f"{kind}: A, B and C differ less among themselves than the nearest from the plain net",
                           max(residual) - min(residual) < loss["plain"] - max(residual))]
    return Drawing("5 Dimensions that differ", figure, claims)


IN_ORDER = (degradation, gradients, identity, more_layers, dimensions)


def article(workdir: Path = Path("runs/article"), only: int | None = None) -> None:
    """Make the experiments, print the verdicts, and save pictures and one page.

    Args:
        workdir: Where `article.md`, `article.html` and the pictures are kept.
        only: The number of one experiment.
    """
    if only not in (None, *range(1, len(IN_ORDER) + 1)):
        raise BadInput(f"only is {only}; the experiments are 1 to {len(IN_ORDER)}")

    def drawings() -> Iterator[Drawing]:
        for number, make in enumerate(IN_ORDER, 1):
            if only in (None, number):
                start = time.perf_counter()
                print(f"experiment {number} of {len(IN_ORDER)}: {make.__name__} ...", file=sys.stderr, flush=True)
                yield make()
                print(f"    {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    keep_compiled_programs()
    title = f"Why residual networks train: means over seeds {', '.join(map(str, SEEDS))}"
    print(write_findings(title, drawings(), workdir, "article"))


if __name__ == "__main__":
    raise SystemExit(guarded(lambda: tyro.cli(article)))
