"""Compares our training step with one in stock Flax. XLA compiles both steps for an H100 and a TPU v5e, neither of
which is needed.

    pip install -e '.[cuda12,tpu]' && python experiments/benchmarks/accelerators.py [--only h100]

The script compiles the training step of ResNet-50 (v1.5, bfloat16) in resjax and in stock Flax, at batch 256 for the
H100 and at batch 128 for the TPU. For the H100, the script also compiles the training steps of ResNet-20, 110 and 1202
(TensorFloat-32, batch 128), and ten-crop evaluation with ResNet-50. After each compilation, it writes the program's
numbers of kernels, bytes and multiply-adds, its memory, its collectives and its minimum time to
experiments/results/accelerators.json. A second run compiles only what is missing there.
"""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from flax import linen as nn
from jax.sharding import NamedSharding

from resjax import Architecture, Optimizer
from resjax.data import Batch, Preprocessing
from resjax.evaluation.probabilities import average_views
from resjax.plan.compile import Program, compile_program, hide_devices, shaped, target_devices
from resjax.plan.devices import Machine, find_device
from resjax.plan.figures import figures
from resjax.plan.plan import installed
from resjax.system.distributed import batch_sharding, replicated
from resjax.system.files import write_json
from resjax.training import TrainState, build_optimizer, initial_state
from resjax.training.packing import PACKED, most_unstacked

RESULTS = Path(__file__).parents[1] / "results" / "accelerators.json"
LOOP = 100  # steps per call of the small networks, as in training


class StockBottleneck(nn.Module):
    """A bottleneck in stock Flax, with the stride in the 3x3 convolution and a projection where dimensions change."""

    filters: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(nn.Conv, use_bias=False, dtype=jnp.bfloat16)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=jnp.bfloat16)
        y = nn.relu(norm()(conv(self.filters, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.filters, (3, 3), self.stride, padding=1)(y)))
        y = norm()(conv(4 * self.filters, (1, 1))(y))
        if x.shape != y.shape:
            x = norm()(conv(4 * self.filters, (1, 1), self.stride)(x))
        return nn.relu(y + x)


class StockResNet50(nn.Module):
    """ResNet-50 v1.5 in stock Flax: `nn.Conv`, `nn.BatchNorm`, `nn.relu`, `nn.max_pool`, in bfloat16."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.Conv(64, (7, 7), 2, padding=3, use_bias=False, dtype=jnp.bfloat16)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=jnp.bfloat16)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                x = StockBottleneck(64 * 2**stage, 2 if stage and not block else 1)(x, train)
        return nn.Dense(1000)(x.mean((1, 2)).astype(jnp.float32))


class Task(NamedTuple):
    """A network, the batch and its image size, and the steps per call."""

    model: nn.Module
    precision: str
    batch: int
    size: int
    steps: int = 1


def tasks(batch: int) -> dict[str, Task]:
    """Return the programs to compile, by name; `batch` is the batch size of ResNet-50."""
    large = Architecture(family="imagenet", depth=50, shortcut="B", stride_in="3x3", ghost_batch_size=batch,
                         precision="bfloat16").model(1000)
    networks = {depth: Architecture(depth=depth, precision="tensorfloat32").model(10) for depth in (20, 110, 1202)}
    small = {f"resnet{depth}": Task(model, "tensorfloat32", 128, 32, LOOP) for depth, model in networks.items()}
    return {"resnet50": Task(large, "bfloat16", batch, 224),
            "stock_resnet50": Task(StockResNet50(), "bfloat16", batch, 224),
            **small, "resnet50_ten_crop": Task(large, "bfloat16", 25, 224)}


def lower(name: str, task: Task, spread: NamedSharding) -> Callable[[], Any]:
    """Return a function that lowers a task's program, for training steps or for the mean softmax of ten crops."""
    model, image = task.model, (task.size, task.size, 3)
    optimizer, whole = build_optimizer(Optimizer(), 1), replicated(spread)
    state = shaped(jax.eval_shape(lambda: initial_state(model, optimizer, jnp.zeros(image), 0)), whole)
    if name.endswith("ten_crop"):
        crops = jax.ShapeDtypeStruct((task.batch, 10, *image), jnp.uint8, sharding=spread)
        return lambda: average_views.lower(model, spread, state.variables, Preprocessing(state.mean), crops)
    batch = shaped(Batch(jax.ShapeDtypeStruct((task.batch, *image), jnp.float32),  # type: ignore[arg-type]
                         jax.ShapeDtypeStruct((task.batch,), jnp.int32)), spread)  # type: ignore[arg-type]

    packed = shaped(jax.eval_shape(lambda: PACKED.pack(state, most_unstacked(model))), whole)
    return lambda: PACKED.steps.lower(model, optimizer, given, task.steps, packed, batch)


def given(state: TrainState, batch: Batch) -> Batch:
    """Use the same batch in every step."""
    return batch


def main(only: Literal["h100", "v5e"] | None = None, task: str | None = None) -> None:
    """Compile and analyse all missing programs.

    Args:
        only: The device to compile for. By default, both devices.
        task: One of the programs. By default, all programs on an H100, and the two of ResNet-50 on a TPU.
    """
    hide_devices()
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    for name in (only,) if only else ("h100", "v5e"):
        machine = Machine(find_device(name))
        listed = tasks(256 if name == "h100" else 128)
        wanted = [task] if task else list(listed) if name == "h100" else ["resnet50", "stock_resnet50"]
        for key in wanted:
            if key in found.get(name, {}):
                continue
            work = listed[key]
            program = Program(lower(key, work, batch_sharding(target_devices(machine))), work.steps)
            compiled = compile_program(program)
            read = figures(program, compiled, machine, work.precision)
            found.setdefault(name, {})[key] = {
                "batch": work.batch, "precision": work.precision, "versions": installed(), "steps": work.steps,
                "compiler_bytes": compiled.compiler_bytes, **dataclasses.asdict(read)}
            write_json(RESULTS, found)
            said = f" (XLA says {compiled.compiler_bytes / 1e9:.2f})" if compiled.compiler_bytes else ""
            print(f"{name} {key}: {read.kernels:.0f} kernels, {read.bytes / 1e9:.2f} GB{said}, "
                  f"{1e3 * read.seconds:.3f} ms at best, compiled in {read.compile_seconds:.0f} s", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
