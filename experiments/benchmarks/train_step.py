"""One training step, ours beside PyTorch's, alternating in one run.

    pip install -e '.[peers]' && python experiments/benchmarks/train_step.py [--net resnet50]

ResNet-20 on CIFAR-10's 32x32 at batch 128; ResNet-50 (stride in the 3x3, as torchvision's) on 224x224, at batch 16 on
CPU, at batch 256 in bfloat16 on an accelerator; or ResNet-18 A on 64x64, whose last maps are of 2x2, at batch 16.
Prints one JSON line: milliseconds a step (medians), ratios, images a second, compile seconds, memory; on a GPU that
`resjax plan` knows also what it says of each of our programs at best. For ResNet-20 the same with the blocks in a loop,
and with many steps in a loop, as training runs, stand beside it. Both nets have batch norm over the whole batch;
PyTorch's is timed in its better layout, on GPU under `torch.compile` with CUDA graphs (and autocast to bfloat16 for
ResNet-50), TF32 as both have it by default.
"""

import json
import random
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from accelerators import given  # the benchmark beside this one

from resjax import Architecture, Optimizer
from resjax.data import Batch
from resjax.models.counts import count_macs
from resjax.plan.compile import Compiled
from resjax.plan.devices import Device, find_device
from resjax.plan.plan import figures
from resjax.training import initial_state, sgd
from resjax.training.packing import form_for, one_by_one

KINDS = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200", "NVIDIA A100-SXM4-80GB": "a100"}


class Task(NamedTuple):
    """What both compute: a network on so many images of so many pixels a side, for so many classes."""

    architecture: Architecture
    batch: int
    size: int
    classes: int


def task(net: str, gpu: bool) -> Task:
    """Describe the step to time."""
    if net == "resnet20":
        precision = "tensorfloat32" if gpu else "float32"
        return Task(Architecture(depth=20, ghost_batch_size=128, precision=precision), 128, 32, 10)
    if net == "resnet18":
        return Task(Architecture(family="imagenet", depth=18, shortcut="A", ghost_batch_size=16), 16, 64, 1000)
    batch = 256 if gpu else 16
    return Task(Architecture(family="imagenet", depth=50, shortcut="B", stride_in="3x3", ghost_batch_size=batch,
                             precision="bfloat16" if gpu else "float32"), batch, 224, 1000)


class Step(NamedTuple):
    """A compiled program: what runs it once, its text, and the seconds that it took to compile."""

    call: Callable[[], Any]
    text: str
    seconds: float


def ours(task: Task, steps: int) -> Step:
    """Compile so many of our steps, as training runs them on this platform."""
    model, optimizer, form = task.architecture.model(task.classes), sgd(Optimizer()), form_for(jax.default_backend())
    image = (task.size, task.size, 3)
    state = form.pack(initial_state(model, optimizer, jnp.zeros(image), seed=0), one_by_one(model))
    batch = Batch(jax.random.normal(jax.random.key(1), (task.batch, *image)), jnp.arange(task.batch) % task.classes)

    start = time.perf_counter()
    compiled = form.steps.lower(model, optimizer, given, steps, state, batch).compile()
    seconds = time.perf_counter() - start

    def call() -> None:
        nonlocal state
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))

    return Step(call, compiled.as_text(), seconds)


def theirs(task: Task, channels_last: bool, gpu: bool) -> Callable[[], Any]:
    """Build the same net and step in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional

    def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs))

    class Block(nn.Module):
        """Two 3x3 with option A, or a bottleneck with option B."""

        def __init__(self, inputs: int, filters: int, stride: int, wide: bool) -> None:
            super().__init__()
            outputs = 4 * filters if wide else filters
            sizes = [(inputs, filters, 1, 1), (filters, filters, 3, stride), (filters, outputs, 1, 1)] if wide else [
                (inputs, filters, 3, stride), (filters, filters, 3, 1)]
            self.layers = nn.ModuleList([conv(*values) for values in sizes])
            self.projection = conv(inputs, outputs, 1, stride) if wide and inputs != outputs else None
            self.stride, self.more = stride, outputs - inputs

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x
            for layer in self.layers[:-1]:
                y = functional.relu(layer(y))
            y = self.layers[-1](y)
            if self.projection is not None:
                x = self.projection(x)
            elif self.more:
                x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
            return functional.relu(y + x)

    large, wide = task.architecture.family == "imagenet", task.architecture.depth == 50
    inputs = width = 64 if large else 16
    blocks = []
    for stage, count in enumerate({18: (2, 2, 2, 2), 20: (3, 3, 3), 50: (3, 4, 6, 3)}[task.architecture.depth]):
        for number in range(count):
            filters = width * 2**stage
            blocks.append(Block(inputs, filters, 2 if stage and not number else 1, wide))
            inputs = 4 * filters if wide else filters
    stem = [conv(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)] if large else [conv(3, width, 3), nn.ReLU()]
    device = torch.device("cuda" if gpu else "cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, task.classes))
    net = net.to(device, memory_format=layout)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(task.batch, 3, task.size, task.size, device=device).contiguous(memory_format=layout)
    labels = (torch.arange(task.batch) % task.classes).to(device)
    forward = torch.compile(net, mode="reduce-overhead") if gpu else net

    def call() -> None:
        sgd.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=task.architecture.precision == "bfloat16"):
            loss = functional.cross_entropy(forward(images), labels)
        loss.backward()
        sgd.step()
        if gpu:
            torch.cuda.synchronize()

    return call


def main(net: Literal["resnet20", "resnet50", "resnet18"] = "resnet20", rounds: int = 25) -> None:
    """Time all variants in turn.

    Args:
        net: The network.
        rounds: How often each is timed; the medians are printed.
    """
    gpu = jax.default_backend() == "gpu"
    work, many = task(net, gpu), 100 if gpu else 4
    programs = {"resjax": ours(work, 1)}
    if net == "resnet20":
        looped = work._replace(architecture=replace(work.architecture, unroll=0))
        programs |= {"resjax_loop_over_blocks": ours(looped, 1), "resjax_loop_over_steps": ours(work, many)}
    calls = {name: program.call for name, program in programs.items()} | {
        "torch_channels_last": theirs(work, True, gpu), "torch_channels_first": theirs(work, False, gpu)}
    steps = {name: many if name.endswith("steps") else 1 for name in calls}
    times: dict[str, list[float]] = {name: [] for name in calls}
    shuffle = random.Random(0).shuffle
    for number in range(rounds + 3):
        names = list(calls)
        shuffle(names)  # who comes right after PyTorch waits for its threads to fall asleep
        for name in names:
            calls[name]()  # as in training, where each step follows its like: the first pays for the other's memory
            start = time.perf_counter()
            calls[name]()
            if number >= 3:  # the first are warm-up
                times[name].append(1000 * (time.perf_counter() - start) / steps[name])
    milliseconds = {name: round(statistics.median(values), 1) for name, values in times.items()}
    torch_best = min(value for name, value in milliseconds.items() if name.startswith("torch"))
    ratios = {name: round(value / torch_best, 3) for name, value in milliseconds.items() if name.startswith("resjax")}
    rate = 1000 * work.batch / milliseconds["resjax"]
    device = jax.devices()[0]
    known = find_device(KINDS[device.device_kind]) if device.device_kind in KINDS else None
    print(json.dumps({
        "net": net, "device": device.device_kind, "batch": work.batch, "precision": work.architecture.precision,
        "milliseconds": milliseconds, "ratios_to_torch": ratios, "images_per_second": round(rate),
        "at_least_milliseconds": known and {name: at_least(program.text, steps[name], known, work)
                                            for name, program in programs.items()},
        "share_of_peak": known and share_of_peak(work, rate, known),
        "compile_seconds": round(programs["resjax"].seconds, 1), "peak_megabytes": round(peak_bytes(device) / 2**20),
    }))


def at_least(text: str, steps: int, device: Device, work: Task) -> float:
    """Compute what a plan says of a program that has been compiled here: the least milliseconds of a step."""
    read = figures(Compiled(text, steps, 0, 0, 0, 0.0), device, work.architecture.precision, 1, 1)
    return round(1000 * read.seconds, 3)


def share_of_peak(work: Task, rate: float, device: Device) -> float:
    """Compute the share of the chip's peak in bfloat16: three times the forward multiply-adds."""
    macs = count_macs(work.architecture.model(work.classes), (work.size, work.size, 3))
    return round(3 * macs * rate / device.peak["bfloat16"], 3)


def peak_bytes(device: jax.Device) -> int:
    """Read the most memory that was in use: of the device, or of this process where that is the CPU."""
    stats = device.memory_stats()
    return stats["peak_bytes_in_use"] if stats else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    tyro.cli(main)
