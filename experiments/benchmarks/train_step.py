"""Compares the speed of resjax's training steps or inference with PyTorch's, in processes that run in turn.

    pip install -e '.[peers]' && python experiments/benchmarks/train_step.py [--net resnet50] [--precision bfloat16]
                                                                             [--mode inference]

There are three networks. ResNet-20 runs on images of 32x32 pixels, as in CIFAR-10, at batch 128. ResNet-50 (stride in
the 3x3 convolution, as in torchvision) runs on images of 224x224 pixels, at batch 16 on CPU and at batch 256 on GPU.
Its default precision on GPU is bfloat16. ResNet-18 with shortcut option A runs on images of 64x64 pixels at batch 16,
so that its last maps are 2x2. PyTorch runs with both memory layouts, channels first and channels last. The benchmark
prints one JSON line. For each variant, it contains the median wall-clock time and processor time per step, the ratio of
the wall-clock time to that of PyTorch's faster layout, the images per second, and the peak memory. On GPU, the peak
memory counts only what JAX allocates, so it is meaningful only for resjax. For resjax, the line also contains the
compile time. On CPU, the line also contains the share of the machine's peak multiply-add rate that each variant
reaches. This peak rate is measured with PyTorch's matrix product in the same run. For ResNet-20, the benchmark also
times a program of resjax that makes several steps per call, as in training. On a GPU that `resjax plan` supports, the
line also contains the plan's lower bound on resjax's step time. In both libraries, batch norm uses the statistics of
the whole batch. On GPU, `--precision` decides whether resjax uses TF32, but has no influence on whether PyTorch does.
PyTorch uses autocast for bfloat16 and, on GPU, `torch.compile` with CUDA graphs.
"""

import json
import multiprocessing
import os
import random
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple

import tyro

from resjax import Architecture, Optimizer
from resjax.models.counts import count_macs
from resjax.system.platform import huge_pages, keep_freed_memory, return_freed_memory

KINDS = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200", "NVIDIA A100-SXM4-80GB": "a100"}
Net = Literal["resnet20", "resnet50", "resnet18"]
Precision = Literal["float32", "tensorfloat32", "bfloat16"]


class Task(NamedTuple):
    """The network, batch size, image size and number of classes, which are the same for both libraries."""

    architecture: Architecture
    batch: int
    size: int
    classes: int
    inference: bool


def describe(net: Net, precision: Precision | None, inference: bool, gpu: bool) -> Task:
    """Describe the step to time."""
    if net == "resnet20":
        architecture = Architecture(depth=20, ghost_batch_size=128,
                                    precision=precision or ("tensorfloat32" if gpu else "float32"))
        return Task(architecture, 128, 32, 10, inference)
    if net == "resnet18":
        architecture = Architecture(family="imagenet", depth=18, shortcut="A", ghost_batch_size=16,
                                    precision=precision or "float32")
        return Task(architecture, 16, 64, 1000, inference)
    batch = 256 if gpu else 16
    architecture = Architecture(family="imagenet", depth=50, shortcut="B", stride_in="3x3", ghost_batch_size=batch,
                                precision=precision or ("bfloat16" if gpu else "float32"))
    return Task(architecture, batch, 224, 1000, inference)


class Program(NamedTuple):
    """A function that makes several steps per call, its text, and its compile time in seconds."""

    call: Callable[[], Any]
    steps: int
    text: str = ""
    seconds: float = 0.0


def ours(task: Task, steps: int) -> Program:
    """Compile our steps as training runs them on this platform, or our inference."""
    import jax
    import jax.numpy as jnp
    from accelerators import given  # the benchmark in the same folder

    from resjax.data import Batch
    from resjax.training import build_optimizer
    from resjax.training.packing import layout_for, most_unstacked
    from resjax.training.step import draw_state

    keep_freed_memory()  # as resjax's command line does
    device = jax.devices()[0]
    model, optimizer = task.architecture.model(task.classes), build_optimizer(Optimizer(), 1)
    form = layout_for(device.platform)
    image = (task.size, task.size, 3)
    state = draw_state(jax.sharding.SingleDeviceSharding(device), model, optimizer, jnp.zeros(image), 0)
    images = jax.random.normal(jax.random.key(1), (task.batch, *image))
    if task.inference:
        start = time.perf_counter()
        compiled = jax.jit(model.apply).lower(state.variables, images).compile()
        return Program(lambda: jax.block_until_ready(compiled(state.variables, images)), 1, compiled.as_text(),
                       time.perf_counter() - start)
    batch = Batch(images, jnp.arange(task.batch) % task.classes)
    state = form.pack(state, most_unstacked(model))
    start = time.perf_counter()
    compiled = form.steps.lower(model, optimizer, given, steps, state, batch).compile()
    return_freed_memory()
    seconds = time.perf_counter() - start

    def call() -> None:
        nonlocal state
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))

    return Program(call, steps, compiled.as_text(), seconds)


def peak_multiply_adds(size: int = 3072) -> float:
    """Return the multiply-adds per second of PyTorch's matrix product in float32, the best of five measurements."""
    import torch

    matrix, seconds = torch.randn(size, size), []
    for _ in range(5):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return size**3 / min(seconds)


def serve(name: str, task: Task, gpu: bool, many: int, parent: Connection) -> None:
    """Build one of the variants in this process, and time a call whenever the parent requests it."""
    if name.startswith("torch"):
        from torch_step import torch_step  # the file in the same folder

        program = Program(torch_step(task, name.endswith("last"), gpu), 1)
        parent.send({"peak_multiply_adds": None if gpu else peak_multiply_adds()})
    else:
        program = ours(task, many if name.endswith("steps") else 1)
        parent.send({"compile_seconds": program.seconds, "at_least": at_least(program, task)})
    while parent.recv():
        program.call()  # as in training, where each step follows one of the same kind
        start, processor = time.perf_counter(), time.process_time()
        program.call()
        parent.send((1000 * (time.perf_counter() - start) / program.steps,
                     1000 * (time.process_time() - processor) / program.steps, peak_megabytes(gpu)))


def at_least(program: Program, task: Task) -> float | None:
    """Return the plan's lower bound on the milliseconds per step of a compiled program; None if there is no plan."""
    import jax

    kind = KINDS.get(jax.devices()[0].device_kind)
    if kind is None or task.inference:
        return None
    from resjax.plan import compile as planned
    from resjax.plan.devices import Machine, find_device
    from resjax.plan.figures import figures

    read = figures(planned.Program(program.call, program.steps), planned.Compiled(program.text, 0, 0, 0, 0.0),
                   Machine(find_device(kind)), task.architecture.precision)
    return round(1000 * read.seconds, 3)


def start(name: str, target: Callable[..., object], *arguments: Any) -> Connection:
    """Start a process that gets the arguments and one end of a pipe; return the other end.

    This process closes the child's end, so that reading from the pipe of a dead child fails instead of waiting forever.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    spawn.Process(target=target, args=(*arguments, there), name=name, daemon=True).start()
    there.close()
    return here


def ask(name: str, pipe: Connection, *request: bool) -> Any:
    """Send a request, if any, and wait for the answer. Ends the program if the process died."""
    try:
        for each in request:
            pipe.send(each)
        return pipe.recv()
    except (EOFError, OSError):
        raise SystemExit(f"{name}: the process ended without an answer; if it printed no error above, it may have run "
                         "out of memory") from None


def peak_megabytes(gpu: bool) -> int:
    """Return the peak memory of this process in megabytes or, on GPU, the peak memory that JAX used on the device."""
    if gpu:
        import jax

        return round(jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main(net: Net = "resnet20", precision: Precision | None = None, mode: Literal["train", "inference"] = "train",
         rounds: int = 15, gpu: bool = False) -> None:
    """Time all variants, which take turns.

    Args:
        net: The network.
        precision: Precision of the convolutions. The default is float32 on CPU and the usual precision on GPU.
        mode: Whether to time training steps or inference.
        rounds: Number of timings of each variant. The medians are printed.
        gpu: Compute on the GPU, which only the child processes use.
    """
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several processes share the GPU
    work, many = describe(net, precision, mode == "inference", gpu), 100 if gpu else 4
    names = ["resjax", "torch_channels_last", "torch_channels_first"]
    names[1:1] = ["resjax_loop_over_steps"] * (net == "resnet20" and mode == "train")
    processes, told = {}, {}
    for name in names:
        wish = {} if name.startswith("torch") else huge_pages()  # as resjax's command line does
        os.environ |= wish
        processes[name] = start(name, serve, name, work, gpu, many)
        for variable in wish:
            del os.environ[variable]
        told[name] = ask(name, processes[name])
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in names}
    for number in range(rounds + 2):
        for name in random.Random(number).sample(names, len(names)):
            answer = ask(name, processes[name], True)
            if number >= 2:  # the first rounds are warm-up
                found[name].append(answer)
    for name in names:
        processes[name].send(False)
    milliseconds, processor = ({name: round(statistics.median(answer[column] for answer in answers), 1)
                                for name, answers in found.items()} for column in (0, 1))
    best = min(value for name, value in milliseconds.items() if name.startswith("torch"))
    macs = count_macs(work.architecture.model(work.classes), (work.size, work.size, 3)) * work.batch
    peak = max(answer["peak_multiply_adds"] or 0 for answer in told.values() if "peak_multiply_adds" in answer)
    print(json.dumps({
        "net": net, "mode": mode, "batch": work.batch, "precision": work.architecture.precision,
        "cores": len(os.sched_getaffinity(0)), "milliseconds": milliseconds, "processor_milliseconds": processor,
        "ratios_to_torch": {name: round(value / best, 3) for name, value in milliseconds.items()},
        "images_per_second": {name: round(1000 * work.batch / value) for name, value in milliseconds.items()},
        "peak_megabytes": {name: answers[-1][2] for name, answers in found.items()},
        "share_of_peak_multiply_adds": peak and {
            name: round((1 if work.inference else 3) * macs / (value / 1000) / peak, 3)
            for name, value in milliseconds.items()},
        "compile_seconds": {name: round(answer["compile_seconds"], 1) for name, answer in told.items()
                            if "compile_seconds" in answer},
        "at_least_milliseconds": {name: answer["at_least"] for name, answer in told.items() if answer.get("at_least")},
    }))


if __name__ == "__main__":
    tyro.cli(main)
