"""Why residual networks train: six experiments, each with a measurement, a figure, and claims that hold or fail.

    python -m experiments.article [--only 3] [--workdir runs/article]      # in a checkout

The experiments are about (1) degradation, (2) vanishing and exploding gradients, (3) blocks that compute the identity,
(4) layers added to a trained network, (5) shortcuts where dimensions change, and (6) the loss landscape. They train
fully connected and convolutional networks on scikit-learn's digits, with three seeds each. Means over the seeds decide
whether a claim holds. The command writes one page, in English and Chinese, that explains the paper and shows the
measurements.

Cost: about 10 minutes of processor time in total.
Result: 25 of 27 claims hold (docs/results/article.md).
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from experiments.article.figure3 import titled
from experiments.article.measurement import Found, measured
from experiments.article.page import write_article
from resjax import Architecture, Data, Experiment, Optimizer, cifar_resnet, evaluate, load_data
from resjax.analysis import gives_back, gradient_norms, residual_ratios, with_gain, with_identity_blocks
from resjax.analysis.landscape import bends_down
from resjax.analysis.landscape import landscape as losses_around
from resjax.data import Dataset, Preprocessing, mean_image, normalize
from resjax.models import BasicBlock, BatchNorm, DenseBlock, ResidualMLP
from resjax.network import Classifier
from resjax.system.errors import check
from resjax.system.platform import keep_compiled_programs
from resjax.system.progress import one_by_one, working
from resjax.system.terminal import hung, say, say_end
from resjax.training import TrainState, train_in_memory

SEEDS = (0, 1, 2)
STEPS, BATCH, WINDOW = 150, 64, 25  # losses are means over 25 steps; with fewer, noise decides
KINDS = {"plain": "plain", "residual": "A"}


@cache
def digits() -> Dataset:
    """Load the digits."""
    return load_data(Data(source="digits"))


def probe() -> tuple[jax.Array, jax.Array]:
    """Return one batch of images and labels for measurements."""
    train = digits().train
    return normalize(train.pixels[:BATCH], mean_image(train)), train.labels[:BATCH]


def recipe(seed: int, steps: int = STEPS, learning_rate: float = 0.02, weight_decay: float = 1e-4,
           pad: int = 1) -> Experiment:
    """Return the paper's recipe for small images, with the learning rate divided by 10 for the last quarter."""
    return Experiment(name="article", seed=seed, steps=steps, batch_size=BATCH, data=Data(pad=pad, flip=False),
                      architecture=Architecture(ghost_batch_size=BATCH),
                      optimizer=Optimizer(learning_rate=learning_rate, decay_steps=(steps * 3 // 4,),
                                          weight_decay=weight_decay))


@cache
def trained(model: nn.Module, **settings: Any) -> list[tuple[TrainState, np.ndarray]]:
    """Train a network with each seed; return the last state and the loss of every step."""
    with working(f"training {titled(model)}"):
        return [train_in_memory(recipe(seed, **settings), model, digits()) for seed in SEEDS]


@partial(jax.jit, static_argnums=0)
def logits(model: nn.Module, variables: Any, images: jax.Array) -> Any:
    """Compute the logits of a network."""
    return model.apply(variables, images)


def final(losses: np.ndarray) -> float:
    """Return the mean loss of the last steps, over as many steps as in the curves."""
    return float(losses[-WINDOW:].mean())


def mean(values: Any) -> float:
    """Return the mean over the seeds."""
    return float(np.mean(list(values)))


def mlp(blocks: int, shortcut: str, **settings: Any) -> ResidualMLP:
    """Build a fully connected network of 2 `blocks` + 2 layers of 64 units, with batch norm."""
    return ResidualMLP((blocks,), (64,), 10, shortcut, **{"ghost_batch_size": BATCH, **settings})


def conv(depth: int, shortcut: str) -> nn.Module:
    """Build a network of section 4.2."""
    return cifar_resnet(depth, shortcut, ghost_batch_size=BATCH)


def degradation() -> Found:
    """Show that deeper plain networks reach a higher training loss, and that deeper residual networks do not."""
    families: dict[str, tuple[Callable[..., nn.Module], int, int, dict[str, int]]] = {
        "dense": (lambda depth, shortcut: mlp((depth - 2) // 2, shortcut), 6, 22, {"steps": 500, "pad": 0}),
        "conv": (conv, 8, 26, {})}
    found = Found({"window": WINDOW}, {})
    for family, (build, shallow, deep, settings) in families.items():
        loss, curves = {}, {}
        for kind, shortcut in KINDS.items():
            for size, depth in (("shallow", shallow), ("deep", deep)):
                losses = [curve for _, curve in trained(build(depth, shortcut), **settings)]
                loss[f"{kind}_{size}"] = mean(map(final, losses))
                curves[f"{kind}_{size}"] = np.convolve(np.mean(losses, 0), np.full(WINDOW, 1 / WINDOW), "valid")
        found.values[family] = {"shallow": shallow, "deep": deep, "loss": loss, "curves": curves}
        found.claims.update({
            f"{family}.plain_worse": loss["plain_deep"] > loss["plain_shallow"],
            f"{family}.residual_no_worse": loss["residual_deep"] <= loss["residual_shallow"],
            f"{family}.residual_lower": loss["residual_deep"] < loss["plain_deep"]})
    return found


def gradients() -> Found:
    """Show that the scale of the weights makes gradients of deep plain networks vanish or explode, and what helps."""
    blocks, gains, (images, labels) = 20, (1, 2, 4), probe()  # a gain of 2 is He's variance
    curves: dict[str, dict[str, Any]] = {"bare": {}, "normed": {}, "trained": {}}
    for norm, group in (("bare", None), ("normed", BATCH)):
        for kind, shortcut in KINDS.items():
            model = mlp(blocks, shortcut, ghost_batch_size=group)
            init = jax.jit(model.init)
            drawn = [init(jax.random.key(seed), images) for seed in SEEDS]
            for gain in gains:
                norms = [gradient_norms(model, with_gain(one, gain), images, labels) for one in drawn]
                curves[norm][f"{kind}_{gain}"] = np.log10(norms).mean(0)
    spread = {}
    for kind, shortcut in KINDS.items():
        model = mlp(blocks, shortcut)
        norms = [gradient_norms(model, state.variables, images, labels) for state, _ in trained(model)]
        spread[kind] = mean(one.max() / one.min() for one in norms)
        curves["trained"][kind] = np.log10(norms).mean(0)

    def decades(norm: str, kind: str) -> float:
        first = [curves[norm][f"{kind}_{gain}"][0] for gain in gains]
        return float(max(first) - min(first))

    low, middle, high = (float(curves["bare"][f"plain_{gain}"][0]) for gain in gains)
    bare, shortcuts, normed = decades("bare", "plain"), decades("bare", "residual"), decades("normed", "plain")
    limit = 100
    return Found(
        {"layers": 2 * blocks + 2, "gains": gains, "log_norms": curves, "vanished": middle - low,
         "exploded": high - middle, "decades": {"plain": bare, "shortcuts": shortcuts, "normed": normed},
         "spread": spread, "limit": limit},
        {"vanishes": 10 ** (middle - low) > limit, "explodes": 10 ** (high - middle) > limit,
         "shortcuts_help": shortcuts < bare, "norm_helps": normed < bare, "plain.even": spread["plain"] < limit,
         "residual.even": spread["residual"] < limit})


def identity() -> Found:
    """Show that a block whose last layer is zero is the identity, and that weight decay pulls blocks towards it."""
    batch_norm = partial(BatchNorm, train=True, ghost_batch_size=BATCH)
    blocks = {"dense": (DenseBlock(64), (BATCH, 64), "fc2"),
              "conv": (BasicBlock(16, norm=batch_norm), (BATCH, 8, 8, 16), "bn2")}
    claims = {}
    for family, (block, shape, last) in blocks.items():
        forward, backward = zip(*(gives_back(block, shape, last, jax.random.key(seed)) for seed in SEEDS), strict=True)
        claims |= {f"{family}.forward": all(forward), f"{family}.backward": all(backward)}
    model, (images, _) = mlp(8, "A"), probe()
    decays, ratios = (0.0, 1e-3, 1e-2, 3e-2), []
    for decay in decays:
        nets = [state.variables for state, _ in trained(model, weight_decay=decay)]
        ratios.append(np.mean([residual_ratios(model, net, images) for net in nets], 0))
    none, strong = float(ratios[0].mean()), float(ratios[-1].mean())
    return Found({"decays": decays, "ratios": ratios, "strongest": decays[-1], "none": none, "strong": strong},
                 {**claims, "decay": strong < none})


def more_layers() -> Found:
    """Show that appended identity blocks change no bit of a network's output, and do no harm in further training."""
    added, allowed, (images, _) = 2, 1.05, probe()
    found = Found({"added": added, "allowed": allowed}, {})
    for family, model, stage in (("dense", mlp(4, "A"), 0), ("conv", conv(14, "A"), 2)):
        same, curves = True, {"before": [], "after": []}
        for seed, (state, _) in zip(SEEDS, trained(model), strict=True):
            larger, variables = with_identity_blocks(model, state.variables, stage, added, jax.random.key(seed))
            same &= bool((logits(model, state.variables, images) == logits(larger, variables, images)).all())
            for net, which, start in ((model, "before", state.variables), (larger, "after", variables)):
                begin = state.replace(**start)
                _, losses = train_in_memory(recipe(seed, steps=60, learning_rate=0.005), net, digits(), begin)
                curves[which].append(losses)
        before, after = (mean(map(final, losses)) for losses in curves.values())
        found.values[family] = {"curves": {which: np.mean(losses, 0) for which, losses in curves.items()},
                                "before": before, "after": after}
        found.claims.update({f"{family}.same": same, f"{family}.no_worse": after <= allowed * before})
    return found


def dimensions() -> Found:
    """Compare the shortcuts for changing dimensions: zeros, a learned projection, and projections everywhere."""
    families: dict[str, Callable[[str], nn.Module]] = {
        "dense": lambda option: ResidualMLP((5,) * 3, (32, 64, 128), 10, option, BATCH), "conv": partial(conv, 26)}
    found = Found({"options": ("plain", "A", "B", "C")}, {})
    for family, build in families.items():
        losses, error = {}, {}
        for option in found.values["options"]:
            model = build(option)
            losses[option] = [final(curve) for _, curve in trained(model)]
            nets = [Classifier(model, state.variables, Preprocessing(state.mean)) for state, _ in trained(model)]
            error[option] = mean(evaluate(net, digits().test).top1_error for net in nets)
        loss = {option: mean(values) for option, values in losses.items()}
        best, worst = min(loss[o] for o in "ABC"), max(loss[o] for o in "ABC")
        found.values[family] = {"losses": losses, "loss": loss, "test_error": error, "between": worst - best,
                                "to_plain": loss["plain"] - worst}
        found.claims.update({f"{family}.all_lower": worst < loss["plain"],
                             f"{family}.close": worst - best < loss["plain"] - worst})
    return found


def landscape() -> Found:
    """Show that the loss around residual networks is lower and curves downwards less often than around plain ones."""
    span, points, (images, labels) = 0.5, 15, probe()
    grids = {}
    for kind, model in ((kind, conv(26, shortcut)) for kind, shortcut in KINDS.items()):
        grids[kind] = [losses_around(model, state.variables, images, labels, jax.random.key(seed), span, points)
                       for seed, (state, _) in zip(SEEDS, trained(model), strict=True)]
    centre = {kind: mean(grid[points // 2, points // 2] for grid in some) for kind, some in grids.items()}
    bent = {kind: 100 * mean(bends_down(grid).mean() for grid in some) for kind, some in grids.items()}
    return Found({"span": span, "points": points, "images": len(labels), "layers": 26, "centre": centre, "bent": bent,
                  "grids": grids},
                 {"lower": centre["residual"] < centre["plain"], "rounder": bent["residual"] < bent["plain"]})


IN_ORDER = (degradation, gradients, identity, more_layers, dimensions, landscape)
WORK = {"degradation": 5, "gradients": 1, "identity": 1, "more_layers": 4, "dimensions": 6, "landscape": 2}  # roughly


def article(workdir: Path = Path("runs/article"), only: int | None = None) -> None:
    """Run the experiments and write the page. Results that the same code has already measured are reused.

    Args:
        workdir: The folder for `article.html`, `article.md` and the results in `measured`.
        only: Run only the experiment with this number. With 3, for example, the page is `only3.html`.
    """
    check(only in (None, *range(1, len(IN_ORDER) + 1)), f"only is {only}; the experiments are 1 to {len(IN_ORDER)}")
    keep_compiled_programs()
    wanted, measurements = IN_ORDER if only is None else IN_ORDER[only - 1:only], []
    for experiment in one_by_one(wanted, [WORK[one.__name__] for one in wanted], "experiment"):
        with working(f"measuring: {experiment.__name__.replace('_', ' ')}"):
            measurements.append(measured(experiment, len(SEEDS), workdir / "measured"))
    with working("writing the page"):
        claims, page = write_article(measurements, workdir, "article" if only is None else f"only{only}")
    say("\n".join(hung(mark, text) for mark, text in claims))
    say_end(f"Wrote {page}. Open it in a browser", "resjax list", "resjax train resnet20")

