"""The programs of a run, compiled for devices that are not here, on a machine that need not have any."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Sharding

from resjax.data import Batch, Batching, Images, Permutation, epochs_spanned, of_run
from resjax.evaluation.probabilities import at_places, look
from resjax.experiment import Data, Experiment, image_shape
from resjax.plan.devices import Device, target_config
from resjax.system.distributed import batch_sharding, replicated
from resjax.system.errors import BadInput, check
from resjax.training.in_memory import InMemoryBatch, InMemoryInputs, steps_per_call
from resjax.training.optimizer import sgd
from resjax.training.packing import form_for, one_by_one
from resjax.training.step import TrainState, add_batch_statistics, initial_state
from resjax.training.streaming import StreamedBatch, StreamedInputs

PLUGINS = {"cuda": (("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13"), "pip install 'jax[cuda12]'"),
           "tpu": (("libtpu",), "pip install 'jax[tpu]'")}
HERE = {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1", "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3",
        "TPU_MIN_LOG_LEVEL": "3"}


class ImageSet(NamedTuple):
    """How many images a source holds, and of how many classes."""

    train: int
    test: int
    classes: int


SETS = {"digits": ImageSet(1_437, 360, 10), "tfds:cifar10": ImageSet(50_000, 10_000, 10),
        "tfds:imagenet2012": ImageSet(1_281_167, 50_000, 1000)}


def image_set(data: Any) -> ImageSet:
    """Return the size of a source; of one whose images nobody has counted, CIFAR-10's or ImageNet's."""
    return SETS.get(data.source, SETS["tfds:cifar10" if isinstance(data, Data) else "tfds:imagenet2012"])


@dataclass(frozen=True)
class Compiled:
    """A program for one device of those that share the work: its text, and XLA's own count of its memory."""

    text: str
    steps: int
    """Steps, or batches, that a call makes."""
    argument_bytes: int
    temporary_bytes: int
    peak_bytes: int
    """Arguments, results that do not take the place of one, and what lies beside them at the worst moment."""
    seconds: float
    """Until it was compiled, or as much of it as was read."""
    compiler_bytes: float | None = None
    """What XLA itself counts that a call moves, memories on the chip included; it says so for TPUs only."""
    rounds: int | None = None
    """How often a loop is taken to run that runs as often as its data ask for."""


class Program(NamedTuple):
    """What lowers a program to be compiled; `steps` and `rounds` are those of `Compiled`."""

    lower: Callable[[], Any]
    steps: int
    rounds: int | None = None


Programs = Iterator[tuple[str, Program]]


class DoesNotFit(Exception):
    """The compiler found no way to keep a program within the device's memory; the message is its own."""


def prepare() -> None:
    """Let JAX start without devices, whatever the machine has; call it before anything computes."""
    for name, value in HERE.items():
        os.environ[name] = value


def target_devices(device: Device, count: int, hosts: int = 1) -> list[jax.Device]:
    """Describe `count` devices on `hosts` machines to compile for.

    Raises BadInput where the plugin is missing, with the command that installs it, or where no such machine is built.
    """
    modules, command = PLUGINS[device.platform]
    if not any(find_spec(module) for module in modules if find_spec(module.partition(".")[0])):
        raise BadInput(f"{device.title}: JAX's compiler for it is not installed here: {command} (it needs no device)")
    check(count % hosts == 0, f"{count} devices do not divide over {hosts} hosts")
    with quiet():
        return gpus(device, count, hosts) if device.platform == "cuda" else slice_of(device, count)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the plugins print, as they find no device, from standard error; their exceptions are raised."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def gpus(device: Device, count: int, hosts: int) -> list[jax.Device]:
    """Describe GPUs, as many on each host."""
    described = topologies.get_topology_desc(platform="cuda", target_config=target_config(device),
                                             topology=f"1x{hosts}x{count // hosts}")
    return list(described.devices)


def slice_of(device: Device, count: int) -> list[jax.Device]:
    """Describe a slice of TPUs; one chip is taken out of the smallest slice where that is larger."""
    sizes = sorted(device.slices)
    if count != 1 and count not in device.slices:
        raise BadInput(f"{device.title} comes in slices of {', '.join(map(str, sizes))} chips, not {count}")
    name = device.title.split()[-1]
    described = topologies.get_topology_desc(platform="tpu", topology_name=f"{name}:{device.slices[max(4, count)]}")
    return list(described.devices)[:count]


def compile_program(program: Program) -> Compiled:
    """Lower and compile a program. Raises DoesNotFit where the compiler refuses it for its memory."""
    start = time.perf_counter()
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise DoesNotFit(str(error)) from None
        raise
    memory = compiled.memory_analysis()
    beside = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    return Compiled(compiled.as_text(), program.steps, memory.argument_size_in_bytes, memory.temp_size_in_bytes,
                    memory.argument_size_in_bytes + beside + memory.generated_code_size_in_bytes,
                    time.perf_counter() - start, (compiled.cost_analysis() or {}).get("bytes accessed"),
                    program.rounds)


def shaped(tree: Any, sharding: Sharding) -> Any:
    """Give the arrays of a tree by their shapes, on the devices of a sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def programs_of_run(experiment: Experiment, devices: Sequence[jax.Device]) -> Programs:
    """Return the programs of a run: "train", "statistics" where it has that phase, and "evaluate"."""
    spread = batch_sharding(devices)
    whole = replicated(spread)
    counts = image_set(experiment.data)
    model, optimizer = experiment.architecture.model(counts.classes), sgd(experiment.optimizer)
    mean = np.zeros(image_shape(experiment.data), np.float32)
    state: TrainState = shaped(jax.eval_shape(lambda: initial_state(model, optimizer, mean, 0)), whole)
    preprocessing = of_run(experiment.data, state.mean)
    make_batch, inputs, steps = training_inputs(experiment, spread, counts)
    form = form_for(devices[0].platform)
    packed = shaped(jax.eval_shape(lambda: form.pack(state, one_by_one(model))), whole)
    yield "train", Program(lambda: form.steps.lower(model, optimizer, make_batch, steps, packed, inputs), steps)
    if experiment.precise_batch_norm_steps and not experiment.architecture.frozen_batch_norm:
        yield "statistics", Program(
            lambda: add_batch_statistics.lower(model, make_batch, steps, state, state.batch_stats, inputs), steps)
    images = jax.ShapeDtypeStruct((experiment.batch_size, 1, *mean.shape), jnp.uint8, sharding=spread)
    if isinstance(experiment.data, Data):
        test = shaped(images_of(counts.test, mean.shape), whole)
        places = jax.ShapeDtypeStruct((experiment.batch_size,), jnp.int32, sharding=whole)
        yield "evaluate", Program(
            lambda: at_places.lower(model, spread, state.variables, preprocessing, test.pixels, places), 1)
    else:
        yield "evaluate", Program(lambda: look.lower(model, spread, state.variables, preprocessing, images), 1)


def training_inputs(experiment: Experiment, spread: Any, counts: ImageSet) -> tuple[Any, Any, int]:
    """Return what makes a batch inside the step, what it is made of, and the steps of a call."""
    data, size, whole = experiment.data, experiment.batch_size, replicated(spread)
    if isinstance(data, Data):
        steps = steps_per_call(experiment, spread.mesh.devices.flat[0].platform)
        train = counts.train - data.validation_images
        order = Permutation(array((), jnp.int32), array((epochs_spanned(steps, size, train) * train,), jnp.int32))
        inputs = InMemoryInputs(images_of(train, image_shape(data)), order)
        return InMemoryBatch(Batching(size, data.pad, data.flip), data.std, spread), shaped(inputs, whole), steps
    pixels = shaped(Batch(array((size, *image_shape(data)), jnp.uint8), array((size,), jnp.int32)), spread)
    colours = shaped(array((3, 3), jnp.float32), whole)
    return StreamedBatch(data.colour_noise, data.std), StreamedInputs(pixels, colours), 1


def images_of(count: int, shape: tuple[int, ...]) -> Images:
    """Describe so many images and their labels."""
    return Images(array((count, *shape), jnp.uint8), array((count,), jnp.int32))


def array(shape: tuple[int, ...], dtype: Any) -> Any:
    """Describe an array."""
    return jax.ShapeDtypeStruct(shape, dtype)


def largest_batch(fits: Callable[[int], bool], unit: int, batch: int) -> int:
    """Return the largest multiple of `unit` below `batch` that fits, by bisection; 0 where none does."""
    low, high = 0, -(-batch // unit)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * unit) else (low, middle)
    return low * unit
