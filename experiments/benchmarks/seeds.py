"""Several seeds of ResNet-20 in one program, beside one seed alone: milliseconds a step and seed, in one run.

    python experiments/benchmarks/seeds.py [--seeds 5] [--rounds 10]

The ways: `vmap`, which makes grouped convolutions (what `train_together` does); `map`, one seed after the other
within the program; `unrolled`, the steps of all seeds side by side. Prints one JSON line; `ratio` is the time of
all seeds over that of one.
"""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from jax import lax

from resjax import Architecture, Experiment
from resjax.data import Batch
from resjax.training import initial_state, sgd, train_step

BATCH = 128


def main(seeds: int = 5, rounds: int = 10) -> None:
    """Time every way in turn.

    Args:
        seeds: How many train together.
        rounds: How often each way is timed; the medians are printed.
    """
    experiment = Experiment(name="seeds", architecture=Architecture(depth=20))
    model, optimizer = experiment.architecture.model(classes=10), sgd(experiment.optimizer)
    first = jax.jit(initial_state, static_argnums=(0, 1))
    states = [first(model, optimizer, jnp.zeros((32, 32, 3)), seed) for seed in range(seeds)]
    batch = Batch(jax.random.normal(jax.random.key(1), (BATCH, 32, 32, 3)), jnp.arange(BATCH) % 10)

    def step(state: Any) -> Any:
        return train_step(model, optimizer, state, batch)[0]

    def stacked(states: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    ways: dict[str, tuple[Callable[..., Any], Any]] = {
        "alone": (step, states[0]), "vmap": (jax.vmap(step), stacked(states)),
        "map": (lambda many: lax.map(step, many), stacked(states)),
        "unrolled": (lambda many: [step(state) for state in many], states)}
    compiled = {name: jax.jit(function).lower(argument).compile() for name, (function, argument) in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 2):
        for name, (_, argument) in ways.items():
            start = time.perf_counter()
            jax.block_until_ready(compiled[name](argument))
            if number >= 2:
                times[name].append(1000 * (time.perf_counter() - start))
    milliseconds = {name: statistics.median(values) for name, values in times.items()}
    print(json.dumps({
        "device": jax.devices()[0].device_kind, "seeds": seeds,
        "milliseconds": {name: round(value, 1) for name, value in milliseconds.items()},
        "ratio": {name: round(value / milliseconds["alone"], 2) for name, value in milliseconds.items()}}))


if __name__ == "__main__":
    tyro.cli(main)
