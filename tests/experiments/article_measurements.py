"""Small measurements for the article, made up so that every number in them differs from every other."""

from itertools import count

import numpy as np

from experiments.article.measurement import Found, Measured

NETS = ("plain_shallow", "plain_deep", "residual_shallow", "residual_deep")
MACHINE = {"kind": "cpu", "jax": "0.0.1", "flax": "0.0.2"}


def made_up(start, holds=True, code="def experiment():\n    return 1 < 2\n"):
    """All six experiments; `start` moves every number, and every claim holds or fails."""
    numbers = count(start)

    def number():
        return next(numbers) * 0.0137

    def some(names):
        return {name: number() for name in names}

    def losses():
        shallow, ratio = number(), 2 + start / 1000
        return dict(zip(NETS, (shallow, shallow * ratio, number(), shallow * ratio**2), strict=True))

    def curve(points, low=0.05):
        return [low + number() / (1 + i) for i in range(points)]

    def claims(*names):
        return dict.fromkeys(names, holds)

    degradation = {"window": next(numbers), **{family: {
        "shallow": next(numbers), "deep": next(numbers), "loss": losses(),
        "curves": {net: curve(40) for net in NETS}} for family in ("dense", "conv")}}
    gains = (1, 2, 4)
    both = [f"{kind}_{gain}" for kind in ("plain", "residual") for gain in gains]
    gradients = {"layers": next(numbers), "gains": gains, "vanished": number(), "exploded": number(),
                 "log_norms": {"bare": {net: [number() - 3 for _ in range(8)] for net in both},
                               "normed": {net: [number() - 3 for _ in range(8)] for net in both},
                               "trained": {net: [number() - 3 for _ in range(8)] for net in ("plain", "residual")}},
                 "decades": some(("plain", "shortcuts", "normed")), "spread": {"plain": next(numbers),
                                                                               "residual": next(numbers)},
                 "limit": next(numbers)}
    identity = {"decays": [0, 1e-3, 1e-2, 3e-2], "ratios": [curve(8) for _ in range(4)], "strongest": number(),
                "none": number(), "strong": number()}
    more_layers = {"added": next(numbers), "allowed": 1.05, **{family: {
        "curves": {"before": curve(20), "after": curve(20)}, "before": number(), "after": number()}
        for family in ("dense", "conv")}}
    options = ("plain", "A", "B", "C")
    dimensions = {"options": options, **{family: {
        "losses": {option: curve(2) for option in options}, "loss": some(options), "test_error": some(options),
        "between": number(), "to_plain": number()} for family in ("dense", "conv")}}
    hill = np.hypot(*np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7))) + 0.1
    landscape = {"span": number(), "points": next(numbers), "images": next(numbers), "layers": next(numbers),
                 "centre": some(("plain", "residual")),
                 "bent": {"plain": next(numbers), "residual": next(numbers)},
                 "grids": {"plain": [(9 * hill).tolist()], "residual": [(2 * hill).tolist()]}}
    found = {
        "degradation": Found(degradation, claims(*(f"{family}.{claim}" for family in ("dense", "conv") for claim in (
            "plain_worse", "residual_no_worse", "residual_lower")))),
        "gradients": Found(gradients, claims("vanishes", "explodes", "shortcuts_help", "norm_helps", "plain.even",
                                             "residual.even")),
        "identity": Found(identity, claims("dense.forward", "dense.backward", "conv.forward", "conv.backward",
                                           "decay")),
        "more_layers": Found(more_layers, claims("dense.same", "dense.no_worse", "conv.same", "conv.no_worse")),
        "dimensions": Found(dimensions, claims("dense.all_lower", "dense.close", "conv.all_lower", "conv.close")),
        "landscape": Found(landscape, claims("lower", "rounder"))}
    return [Measured(name, one, 3, code, float(number()), MACHINE) for name, one in found.items()]
