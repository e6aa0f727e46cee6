"""Why residual networks train: five claims, each with a measurement, a picture and a verdict.

    python experiments/article.py [--only 3] [--workdir runs/article]

1 degradation, 2 vanishing and exploding gradients, 3 the identity is easy, 4 more layers do not hurt, 5 dimensions
that differ. All on scikit-learn's digits, with three seeds, on fully connected and on convolutional nets; the verdicts
are computed from the means over the seeds. `resjax reproduce article` is the same.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import tyro
from flax import linen as nn

from resjax import Architecture, BadInput, Data, Experiment, Optimizer, cifar_resnet, evaluate, load
from resjax.analysis import gradient_norms, residual_ratios, with_identity_blocks
from resjax.data import epochs_spanned, mean_image, shuffled, subtract
from resjax.dispatch import guarded
from resjax.models import BasicBlock, BatchNorm, DenseBlock, ResidualMLP, Shortcut
from resjax.paper import Drawing, Verdict, write_findings
from resjax.training import initial_state, sgd
from resjax.training.step import train_steps

SEEDS = (0, 1, 2)
STEPS, BATCH, LAST = 150, 128, 10  # a loss is the mean over the last ten steps
RECIPE = Experiment(name="article", architecture=Architecture(norm_group=BATCH), batch_size=BATCH,
                    data=Data(source="digits", pad=1, flip=False))


class Fit(NamedTuple):
    """A trained net: its variables, and the loss of every step."""

    variables: Any
    losses: np.ndarray

    @property
    def loss(self) -> float:
        """The loss at the end."""
        return float(self.losses[-LAST:].mean())


@cache
def digits() -> Any:
    """Load the data, and the mean training image."""
    data = load(RECIPE.data)
    return data, mean_image(data.train)


@cache
def optimizer(steps: int, peak: float, weight_decay: float) -> Any:
    """Build the paper's optimiser, its rate divided by ten for the last quarter."""
    return sgd(Optimizer(peak=peak, drop_steps=(steps * 3 // 4,), weight_decay=weight_decay))


@cache
def fit(model: nn.Module, seed: int, steps: int = STEPS, peak: float = 0.02, weight_decay: float = 1e-4) -> Fit:
    """Train a net from its first state."""
    first = initial_state(model, optimizer(steps, peak, weight_decay), digits()[1], seed)
    return go_on(model, first, steps, peak, weight_decay)


def go_on(model: nn.Module, state: Any, steps: int, peak: float, weight_decay: float = 1e-4) -> Fit:
    """Train a net from a given state."""
    train, images = digits()[0].train, len(digits()[0].train.labels)
    order = shuffled(state.key, 0, epochs_spanned(steps, BATCH, images), images)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    (state,), (metrics,) = train_steps(RECIPE, model, optimizer(steps, peak, weight_decay), sharding, steps, (state,),
                                       train, (order,))
    return Fit(state.variables, np.asarray(metrics.loss / metrics.images))


def probe() -> tuple[jax.Array, jax.Array]:
    """Take one batch of images and labels to measure on."""
    data, mean = digits()
    return subtract(data.train.pixels[:BATCH], mean), data.train.labels[:BATCH]


def mean(values: Any) -> float:
    """Average over the seeds."""
    return float(np.mean(list(values)))


def mlp(blocks: int, shortcut: str, **settings: Any) -> ResidualMLP:
    """Build a fully connected net of 2 blocks + 2 layers of 64 units, with batch norm."""
    return ResidualMLP((blocks,), (64,), 10, shortcut, **{"norm_group": BATCH, **settings})


def conv(depth: int, shortcut: str) -> nn.Module:
    """Build a net of section 4.2."""
    return cifar_resnet(depth, shortcut, norm_group=BATCH)


def degradation() -> Drawing:
    """Deeper plain nets reach a higher training loss; residual ones do not."""
    families: dict[str, tuple[Callable[..., nn.Module], int, int]] = {
        "fully connected": (lambda depth, shortcut: mlp((depth - 2) // 2, shortcut), 6, 42),
        "convolutional": (conv, 8, 32)}
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    claims = []
    for axis, (family, (build, shallow, deep)) in zip(axes, families.items(), strict=True):
        loss = {}
        for shortcut, kind, color in (("plain", "plain", "tab:red"), ("A", "residual", "black")):
            for depth, style in ((shallow, "--"), (deep, "-")):
                fits = [fit(build(depth, shortcut), seed) for seed in SEEDS]
                loss[kind, depth] = mean(one.loss for one in fits)
                axis.plot(np.mean([one.losses for one in fits], 0), style, color=color, label=f"{kind}, {depth} layers")
        axis.set(title=family, xlabel="iteration", ylabel="training loss", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
        worse, better = loss["plain", deep], loss["plain", shallow]
        claims.append(Verdict(f"{family}, plain: {deep} layers have a higher training loss than {shallow} "
                            f"({worse:.3f} against {better:.3f})", worse > better))
        ours, theirs = loss["residual", deep], loss["residual", shallow]
        claims.append(Verdict(f"{family}, residual: {deep} layers have no higher training loss than {shallow} "
                            f"({ours:.3f} against {theirs:.3f})", ours <= theirs))
        claims.append(Verdict(f"{family}: with {deep} layers the residual net's loss is the lower "
                            f"({ours:.3f} against {worse:.3f})", ours < worse))
    return Drawing("1 Degradation", figure, claims)


def gradients() -> Drawing:
    """Gradients of deep plain nets vanish or explode with the scale of the weights; shortcuts and batch norm help."""
    blocks, gains = 20, (1.0, 2.0, 4.0)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    images, labels = probe()
    first: dict[tuple[str, str, float], float] = {}
    for axis, (norm, group) in zip(axes, (("without batch norm", None), ("with batch norm", BATCH)), strict=True):
        for shortcut, color in (("plain", "tab:red"), ("A", "black")):
            for gain, style in zip(gains, (":", "-", "--"), strict=True):
                model = mlp(blocks, shortcut, norm_group=group, gain=gain)
                norms = [gradient_norms(model, jax.jit(model.init)(jax.random.key(seed), images), images, labels)
                         for seed in SEEDS]
                first[norm, shortcut, gain] = mean(np.log10(one[0]) for one in norms)
                kind = "plain" if shortcut == "plain" else "residual"
                axis.plot(np.arange(1, 2 * blocks + 3), 10 ** np.mean(np.log10(norms), 0), style, color=color,
                          label=f"{kind}, gain {gain:g}")
        axis.set(title=f"{norm}, at initialisation", xlabel="layer", ylabel="norm of the gradient", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="x-small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18))

    def decades(norm: str, shortcut: str) -> float:
        values = [first[norm, shortcut, gain] for gain in gains]
        return max(values) - min(values)

    plain, residual = (decades("without batch norm", shortcut) for shortcut in ("plain", "A"))
    normed = decades("with batch norm", "plain")
    claims = [
        Verdict("plain, without batch norm: half of He's variance lets the first layer's gradient vanish, by a factor "
              f"of 10^{first['without batch norm', 'plain', 2.0] - first['without batch norm', 'plain', 1.0]:.1f}",
              first["without batch norm", "plain", 1.0] < first["without batch norm", "plain", 2.0] - 2),
        Verdict("plain, without batch norm: twice He's variance lets it explode, by a factor of "
              f"10^{first['without batch norm', 'plain', 4.0] - first['without batch norm', 'plain', 2.0]:.1f}",
              first["without batch norm", "plain", 4.0] > first["without batch norm", "plain", 2.0] + 2),
        Verdict("shortcuts: from gain 1 to 4 the first layer's gradient spans fewer decades than in the plain net "
              f"({residual:.1f} against {plain:.1f})", residual < plain),
        Verdict(f"batch norm does the same to the plain net ({normed:.1f} against {plain:.1f})", normed < plain)]
    for shortcut, kind in (("plain", "plain"), ("A", "residual")):
        model = mlp(blocks, shortcut)
        trained = [gradient_norms(model, fit(model, seed).variables, images, labels) for seed in SEEDS]
        claims.append(Verdict(f"{kind}, with batch norm, after training: the largest gradient of a layer is less than "
                            f"100 times the smallest ({mean(one.max() / one.min() for one in trained):.0f} times)",
                            mean(one.max() / one.min() for one in trained) < 100))
    return Drawing("2 Vanishing and exploding gradients", figure, claims)


def gives_back(block: nn.Module, shape: tuple[int, ...], last: str, seed: int) -> tuple[bool, bool]:
    """Set a block's last layer to zero: does it give back its input, and the gradient, to the bit?"""
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.nn.relu(jax.random.normal(keys[0], shape))
    drawn = block.init(keys[1], x)
    zeroed = {**drawn, "params": {**drawn["params"], last: jax.tree.map(jnp.zeros_like, drawn["params"][last])}}
    y, pull = jax.vjp(lambda x: block.apply(zeroed, x, mutable=["batch_stats"])[0], x)
    dy = jax.random.normal(keys[2], shape)
    return bool((y == x).all()), bool((pull(dy)[0] == jnp.where(x > 0, dy, 0)).all())


def identity() -> Drawing:
    """Show that a block whose last layer is zero is the identity, and that weight decay moves blocks towards it."""
    conv3x3 = partial(nn.Conv, kernel_size=(3, 3), padding=1, use_bias=False)
    blocks = {
        "fully connected": (DenseBlock(nn.Dense, no_norm, partial(Shortcut, "A", None, None), 64), (BATCH, 64), "fc2"),
        "convolutional": (BasicBlock(lambda filters, *_, name: conv3x3(filters, name=name),
                                     partial(BatchNorm, train=True, group=BATCH),
                                     partial(Shortcut, "A", None, None), 16), (BATCH, 8, 8, 16), "bn2")}
    claims = []
    for kind, (block, shape, last) in blocks.items():
        forward, backward = zip(*(gives_back(block, shape, last, seed) for seed in SEEDS), strict=True)
        claims += [Verdict(f"{kind}: the block gives its input back, every bit", all(forward)),
                   Verdict(f"{kind}: the gradient passes unchanged where the input is positive, every bit",
                           all(backward))]
    decays = (0.0, 1e-3, 1e-2, 3e-2)
    model, (images, _) = mlp(8, "A"), probe()
    ratios = {decay: np.mean([residual_ratios(model, fit(model, seed, weight_decay=decay).variables, images)
                              for seed in SEEDS], 0) for decay in decays}
    figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
    for (decay, values), style in zip(ratios.items(), (":", "-.", "--", "-"), strict=True):
        axis.plot(np.arange(1, 9), values, style, marker="o", color="black", label=f"weight decay {decay:g}")
    axis.set(xlabel="block", ylabel="||F(x)|| / ||x||", ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    weak, strong = ratios[0.0].mean(), ratios[3e-2].mean()
    claims.append(Verdict("strong weight decay moves trained blocks towards the identity: mean ||F(x)|| / ||x|| is "
                        f"{strong:.3f} with 0.03, {weak:.3f} without", bool(strong < weak)))
    return Drawing("3 The identity is easy", figure, claims)


def no_norm(name: str) -> Callable[[jax.Array], jax.Array]:
    """Stand in for batch norm where there is none."""
    return lambda z: z


def more_layers() -> Drawing:
    """Identity blocks appended to a trained net change no bit, and further training does not make it worse."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    claims = []
    images, _ = probe()
    for axis, (kind, model, stage) in zip(axes, (("fully connected", mlp(4, "A"), 0),
                                                 ("convolutional", conv(14, "A"), 2)), strict=True):
        same, before, after = True, [], []
        for seed in SEEDS:
            variables = fit(model, seed).variables
            larger, more = with_identity_blocks(model, variables, stage, 2, jax.random.key(seed))
            same &= bool((jax.jit(model.apply)(variables, images) == jax.jit(larger.apply)(more, images)).all())
            for net, start, found in ((model, variables, before), (larger, more, after)):
                first = initial_state(net, optimizer(60, 0.005, 1e-4), digits()[1], seed)
                state = first.replace(**jax.tree.map(jnp.copy, start))  # as the state is donated
                found.append(go_on(net, state, 60, 0.005))
        for fits, style, label in ((before, "--", "as it was"), (after, "-", "with two blocks more")):
            axis.plot(np.mean([one.losses for one in fits], 0), style, color="black", label=label)
        axis.set(title=kind, xlabel="iteration of further training", ylabel="training loss", ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
        old, new = (mean(one.loss for one in fits) for fits in (before, after))
        claims += [Verdict(f"{kind}: two appended blocks change no bit of the logits", same),
                   Verdict(f"{kind}: trained further, the larger net is no worse ({new:.4f} against {old:.4f}, at most "
                         "a twentieth more)", new <= 1.05 * old)]
    return Drawing("4 More layers do not hurt", figure, claims)


def dimensions() -> Drawing:
    """Where dimensions differ: zeros, or a learned projection; and projections everywhere."""
    data, image = digits()
    test = jax.device_put(data.test)
    families = {
        "fully connected, widths 32, 64, 128": lambda option: ResidualMLP((5,) * 3, (32, 64, 128), 10, option, BATCH),
        "convolutional, 26 layers": lambda option: conv(26, option)}
    options = ("plain", "A", "B", "C")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    claims = []
    for axis, (kind, build) in zip(axes, families.items(), strict=True):
        fits = {option: [fit(build(option), seed) for seed in SEEDS] for option in options}
        loss = {option: mean(one.loss for one in some) for option, some in fits.items()}
        error = {option: [evaluate(build(option), one.variables, image, test, 120).top1_error for one in some]
                 for option, some in fits.items()}
        for position, option in enumerate(options):
            axis.bar(position, loss[option], color="lightgrey", edgecolor="black")
            axis.plot([position] * len(SEEDS), [one.loss for one in fits[option]], "k.")
            axis.annotate(f"test\n{mean(error[option]):.1f} %", (position, 0), (0, 3), textcoords="offset points",
                          ha="center", va="bottom", fontsize="x-small")
        axis.set(title=kind, xlabel="shortcut", ylabel="training loss (bar: mean; dots: seeds)")
        axis.set_xticks(range(4), options)
        residual = [loss[option] for option in "ABC"]
        claims += [Verdict(f"{kind}: A, B and C all have a lower training loss than the plain net "
                         f"({', '.join(f'{value:.3f}' for value in residual)} against {loss['plain']:.3f})",
                         max(residual) < loss["plain"]),
                   Verdict(f"{kind}: A, B and C differ less among themselves than the nearest from the plain net",
                         max(residual) - min(residual) < loss["plain"] - max(residual))]
    return Drawing("5 Dimensions that differ", figure, claims)


EXPERIMENTS_IN_ORDER = (degradation, gradients, identity, more_layers, dimensions)


def article(workdir: Path = Path("runs/article"), only: int | None = None) -> None:
    """Make the experiments, print the verdicts, and save pictures and one page.

    Args:
        workdir: Where `article.md`, `article.html` and the pictures are kept.
        only: The number of one experiment.
    """
    if only not in (None, *range(1, len(EXPERIMENTS_IN_ORDER) + 1)):
        raise BadInput(f"only is {only}; the experiments are 1 to {len(EXPERIMENTS_IN_ORDER)}")
    chosen = [make for number, make in enumerate(EXPERIMENTS_IN_ORDER, 1) if only in (None, number)]
    print(write_findings("Why residual networks train", (make() for make in chosen), workdir, "article"))


if __name__ == "__main__":
    raise SystemExit(guarded(lambda: tyro.cli(article)))
