"""Measures how much a custom loss or augmentation slows down the training of ResNet-20 on images of CIFAR-10's size.

    python experiments/benchmarks/own_parts.py [--parts Mixup CutMix]

The variants of the training step have no custom part, a custom loss, a custom augmentation, or both. A call makes five
steps of 128 images, including crops and flips, as in training on CPU. In each round, every variant is called once, in
the same process and in a new random order. The script prints one JSON line. For each variant, it contains the median
processor time and wall-clock time in ms per step, and the ratios of these times to those of the step without custom
parts.
"""

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from resjax import CutMix, Cutout, Experiment, LabelSmoothing, Mixup, Own, dataset
from resjax.console.command_line import script
from resjax.system.platform import keep_freed_memory
from resjax.training.in_memory import in_memory
from resjax.training.own import batch_for, optimizer_for
from resjax.training.packing import layout_for, most_unstacked
from resjax.training.step import draw_state

PARTS = {"without": Own(), "without, again": Own(), "LabelSmoothing": Own(loss=LabelSmoothing()),
         "Mixup": Own(augment=Mixup()), "CutMix": Own(augment=CutMix()), "Cutout": Own(augment=Cutout()),
         "both": Own(loss=LabelSmoothing(), augment=CutMix())}


def program(own: Own) -> tuple[Callable[[], None], int]:
    """Compile a call with these parts; return the call and its number of steps."""
    drawn = np.random.default_rng(0)
    data = dataset((drawn.integers(0, 256, (2_000, 32, 32, 3), np.uint8), np.arange(2_000) % 10),
                   (drawn.integers(0, 256, (10, 32, 32, 3), np.uint8), np.arange(10)))
    run, devices = Experiment(name="step", own=own), jax.devices()[:1]
    images, form = in_memory(run, data, devices), layout_for(devices[0].platform)
    model, optimizer = run.architecture.model(10), optimizer_for(run)
    state: Any = draw_state(jax.sharding.SingleDeviceSharding(devices[0]), model, optimizer, images.mean, 0)
    count, inputs = next(images.calls(state.key, range(run.steps)))
    state = form.pack(state, most_unstacked(model))
    compiled = form.steps.lower(model, optimizer, batch_for(run, images.batch), count, state, inputs).compile()

    def call() -> None:
        nonlocal state
        state, metrics = compiled(state, inputs)
        jax.block_until_ready((state, metrics))

    return call, count


def measure(parts: tuple[str, ...] = tuple(PARTS), rounds: int = 15) -> None:
    """Time the step without and with the given parts in each round, after a warm-up round."""
    keep_freed_memory()  # as resjax's command line does
    names = list(dict.fromkeys(["without", *parts]))
    programs = {name: program(PARTS[name]) for name in names}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in random.sample(names, len(names)):
            call, count = programs[name]
            begun, wall = time.process_time(), time.perf_counter()
            call()
            spent = (time.process_time() - begun) / count, (time.perf_counter() - wall) / count
            if number:
                seconds[name].append(spent)
    medians = {name: [1e3 * statistics.median(column) for column in zip(*some, strict=True)]
               for name, some in seconds.items()}
    print(json.dumps({name: {"processor_ms": round(cpu, 1), "wall_ms": round(wall, 1), "rounds": rounds,
                             "processor_ratio": round(cpu / medians["without"][0], 3),
                             "wall_ratio": round(wall / medians["without"][1], 3)}
                      for name, (cpu, wall) in medians.items()}))


if __name__ == "__main__":
    script(measure)
