"""One training step of ResNet-20 at batch 128: ours beside PyTorch's, alternating in one run.

    pip install -e '.[benchmark]' && python experiments/benchmarks/train_step.py

Prints one JSON line: milliseconds a step (medians), their ratio, compile seconds, peak memory. Beside one step a
call stand the same with the blocks in a loop, and with four steps in a loop, as training runs. Both nets are
float32 with batch norm over the whole batch; PyTorch's is timed in its better layout, on GPU under `torch.compile`
with CUDA graphs, TF32 as PyTorch and XLA have it by default there.
"""

import json
import random
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from jax import lax

from resjax import Architecture, Experiment
from resjax.data import Batch
from resjax.training import initial_state, sgd, train_step

BATCH = 128
LOOP = 4  # steps in the loop over steps


def ours(architecture: Architecture, steps: int) -> tuple[Callable[[], Any], float]:
    """Compile our step; return a function that makes it, and the seconds it took to compile."""
    experiment = Experiment(name="benchmark", architecture=architecture)
    model, optimizer = architecture.model(classes=10), sgd(experiment.optimizer)
    state = initial_state(model, optimizer, jnp.zeros((32, 32, 3)), seed=0)
    batch = Batch(jax.random.normal(jax.random.key(1), (BATCH, 32, 32, 3)), jnp.arange(BATCH) % 10)

    def step(state: Any, batch: Batch) -> tuple[Any, Any]:
        if steps == 1:
            return train_step(model, optimizer, state, batch)
        return lax.scan(lambda state, _: train_step(model, optimizer, state, batch), state, length=steps)

    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    seconds = time.perf_counter() - start

    def call() -> None:
        nonlocal state
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))

    return call, seconds


def theirs(channels_last: bool, gpu: bool) -> Callable[[], Any]:
    """Build the same net and step in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        """The basic block with option A."""

        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
            self.stride, self.more = stride, outputs - inputs

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            if self.more:
                x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
            return functional.relu(y + x)

    widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
    device = torch.device("cuda" if gpu else "cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                        *[Block(*width) for width in widths],
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).to(device, memory_format=layout)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(BATCH, 3, 32, 32, device=device).contiguous(memory_format=layout)
    labels = (torch.arange(BATCH) % 10).to(device)
    forward = torch.compile(net, mode="reduce-overhead") if gpu else net

    def call() -> None:
        sgd.zero_grad()
        functional.cross_entropy(forward(images), labels).backward()
        sgd.step()
        if gpu:
            torch.cuda.synchronize()

    return call


def main(rounds: int = 25) -> None:
    """Time all variants in turn.

    Args:
        rounds: How often each is timed; the medians are printed.
    """
    gpu = jax.default_backend() == "gpu"
    precision = "tensorfloat32" if gpu else "float32"
    architecture = Architecture(depth=20, norm_group=BATCH, precision=precision)
    step, compile_seconds = ours(architecture, 1)
    calls = {"resjax": step, "resjax_loop_over_blocks": ours(replace(architecture, unroll=0), 1)[0],
             "resjax_loop_over_steps": ours(architecture, LOOP)[0],
             "torch_channels_last": theirs(True, gpu), "torch_channels_first": theirs(False, gpu)}
    steps = {name: LOOP if name.endswith("steps") else 1 for name in calls}
    times: dict[str, list[float]] = {name: [] for name in calls}
    shuffle = random.Random(0).shuffle
    for number in range(rounds + 3):
        names = list(calls)
        shuffle(names)  # who comes right after PyTorch waits for its threads to fall asleep
        for name in names:
            start = time.perf_counter()
            calls[name]()
            if number >= 3:  # the first are warm-up
                times[name].append(1000 * (time.perf_counter() - start) / steps[name])
    milliseconds = {name: round(statistics.median(values), 1) for name, values in times.items()}
    torch_best = min(value for name, value in milliseconds.items() if name.startswith("torch"))
    print(json.dumps({
        "device": jax.devices()[0].device_kind, "batch": BATCH, "milliseconds": milliseconds,
        "ratio": round(milliseconds["resjax"] / torch_best, 3),
        "ratio_loop_over_steps": round(milliseconds["resjax_loop_over_steps"] / torch_best, 3),
        "compile_seconds": round(compile_seconds, 1),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }))


if __name__ == "__main__":
    tyro.cli(main)
