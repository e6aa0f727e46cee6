"""Measures the cost of depth: compile time, memory and step time of ResNet-20, 56, 110 and 1202 at batch 128.

    python experiments/benchmarks/depth.py [--out DIR]

Each depth runs in a separate process, so that its peak memory can be measured. The script prints one JSON line per
depth, and saves all lines and a plot in DIR. Cost: about 5 minutes on 2 CPU cores, and 14.5 GiB of memory for 1202
layers.
"""

import json
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import tyro

from resjax import Architecture, Experiment
from resjax.data import Batch
from resjax.training import build_optimizer, initial_state, train_step

BATCH = 128
DEPTHS = (20, 56, 110, 1202)


def measure(depth: int) -> dict[str, Any]:
    """Compile a step, and run it for half a minute and at least four times."""
    jax.config.update("jax_enable_compilation_cache", False)
    experiment = Experiment(name="depth", architecture=Architecture(depth=depth))
    model = experiment.architecture.model(classes=10)
    optimizer = build_optimizer(experiment.optimizer, experiment.steps)
    state = jax.jit(initial_state, static_argnums=(0, 1))(model, optimizer, jnp.zeros((32, 32, 3)), 0)
    batch = Batch(jax.random.normal(jax.random.key(1), (BATCH, 32, 32, 3)), jnp.arange(BATCH) % 10)

    start = time.perf_counter()
    compiled = jax.jit(lambda state, batch: train_step(model, optimizer, state, batch),
                       donate_argnums=0).lower(state, batch).compile()
    compile_seconds = time.perf_counter() - start
    seconds: list[float] = []
    while len(seconds) < 4 or sum(seconds) < 30:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, batch))
        seconds.append(time.perf_counter() - start)
    return {
        "depth": depth, "device": jax.devices()[0].device_kind, "compile_seconds": round(compile_seconds, 1),
        "step_seconds": round(statistics.median(seconds[1:]), 3),
        "temporary_gigabytes": round(compiled.memory_analysis().temp_size_in_bytes / 2**30, 2),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def draw(found: list[dict[str, Any]], file: Path) -> None:
    """Draw step time, memory and compile time over depth. The first two have a reference line proportional to depth."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    depths = [line["depth"] for line in found]
    for axis, key, label, grows in zip(
            axes, ("step_seconds", "temporary_gigabytes", "compile_seconds"),
            ("a training step (s)", "temporary memory (GiB)", "compiling (s)"), (True, True, False), strict=True):
        values = [line[key] for line in found]
        axis.plot(depths, values, "ko-")
        if grows:
            axis.plot(depths, [values[-1] * depth / depths[-1] for depth in depths], "--", color="grey",
                      label="proportional to depth")
            axis.set(yscale="log")
            axis.legend(fontsize="small")
        else:
            axis.set(ylim=(0, 1.2 * max(values)))
        axis.set(xscale="log", xlabel="layers", ylabel=label)
        axis.set_xticks(depths, [str(depth) for depth in depths])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.savefig(file, dpi=150)


def main(out: Path = Path("runs/depth")) -> None:
    """Measure all depths.

    Args:
        out: The folder for `depth.json` and `depth.png`.
    """
    found = []
    for depth in DEPTHS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            found.append(process.submit(measure, depth).result())
        print(json.dumps(found[-1]), flush=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "depth.json").write_text("".join(json.dumps(line) + "\n" for line in found), "utf-8")
    draw(found, out / "depth.png")


if __name__ == "__main__":
    tyro.cli(main)
