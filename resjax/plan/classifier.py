"""Describes, for a plan, the compiled functions ("programs") of a run that trains a classifier."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from resjax.data import Batch, Batching, Images, Permutation, epochs_spanned, of_run
from resjax.evaluation.probabilities import at_places, average_views
from resjax.experiment import Data, Experiment, image_shape
from resjax.plan.compile import Program, Programs, Workload, array, shaped
from resjax.system.distributed import batch_sharding, replicated
from resjax.training.in_memory import InMemoryBatch, InMemoryInputs, steps_per_call
from resjax.training.optimizer import averages_of
from resjax.training.own import batch_for, first_state, model_for, most_blocks_apart, optimizer_for
from resjax.training.packing import layout_for
from resjax.training.python_objects import provenance_of
from resjax.training.step import TrainState, add_batch_statistics
from resjax.training.streaming import StreamedBatch, StreamedInputs

SETS = {"digits": (1_437, 360, 10), "tfds:cifar10": (50_000, 10_000, 10),
        "tfds:imagenet2012": (1_281_167, 50_000, 1000)}


def image_counts(data: Any) -> tuple[int, int, int]:
    """Return the numbers of training images, test images and classes, or those of CIFAR-10 or ImageNet if unknown."""
    return SETS.get(data.source, SETS["tfds:cifar10" if isinstance(data, Data) else "tfds:imagenet2012"])


def workload_of(run: Experiment) -> Workload:
    """Describe a classifier's run for a plan: its steps, its precise batch norm, and all evaluations, on test
    and validation images.
    """
    (train, test, classes), source, architecture = image_counts(run.data), run.data.source, run.architecture
    assumed = f"Assumption: {source} contains {train:,} training and {test:,} test images of {classes} classes."
    early, validation = (run.steps - 1) // run.evaluate_steps, getattr(run.data, "validation_images", 0)
    stored = None if run.own.optimizer is None else first_state(run, image_shape(run.data), classes).opt_state
    averages = run.optimizer.ema_decay if stored is None else averages_of(stored)
    averaged = averages and (run.evaluate_test or validation)
    batches = {"train": run.steps, "statistics": (1 + early if averaged else 1) * run.precise_batch_norm_steps,
               "evaluate": (1 + early if run.evaluate_test else 1) * -(-test // run.batch_size)
               + (1 + early) * -(-validation // run.batch_size)}
    objects = partial(provenance_of, run, image_shape(run.data), classes)
    return Workload(architecture.precision, ("architecture.ghost-batch-size", architecture.ghost_batch_size),
                    partial(programs_of_classifier, run), batches, () if source in SETS else (assumed,), objects)


def programs_of_classifier(run: Experiment, devices: Sequence[jax.Device]) -> Programs:
    """Return the programs of a run: "train", "statistics" (if batch statistics are averaged), and "evaluate"."""
    spread, (train, test, classes), shape = batch_sharding(devices), image_counts(run.data), image_shape(run.data)
    whole = replicated(spread)
    model, optimizer = model_for(run, classes), optimizer_for(run)
    state: TrainState = shaped(first_state(run, shape, classes), whole)
    make_batch, inputs, steps = training_inputs(run, spread, train)
    make_batch = batch_for(run, make_batch)
    form = layout_for(devices[0].platform)
    packed = shaped(jax.eval_shape(lambda: form.pack(state, most_blocks_apart(run, model))), whole)
    yield "train", Program(lambda: form.steps.lower(model, optimizer, make_batch, steps, packed, inputs), steps)
    if run.precise_batch_norm_steps and state.batch_stats and not run.architecture.frozen_batch_norm:
        yield "statistics", Program(
            lambda: add_batch_statistics.lower(model, make_batch, steps, state, state.batch_stats, inputs), steps)
    if isinstance(run.data, Data):
        lower, rest = at_places.lower, [array(whole, jnp.uint8, test, *shape), array(whole, jnp.int32, run.batch_size)]
    else:
        lower, rest = average_views.lower, [array(spread, jnp.uint8, run.batch_size, 1, *shape)]
    yield "evaluate", Program(partial(lower, model, spread, state.variables, of_run(run.data, state.mean), *rest))


def training_inputs(run: Experiment, spread: NamedSharding, images: int) -> tuple[Any, Any, int]:
    """Return the function that makes batches inside the step, its inputs, and the steps per call."""
    data, size, shape, whole = run.data, run.batch_size, image_shape(run.data), replicated(spread)
    if isinstance(data, Data):
        steps = steps_per_call(run, spread.mesh.devices.flat[0].platform)
        train = images - data.validation_images
        order = array(whole, jnp.int32, epochs_spanned(steps, size, train) * train)
        inputs = InMemoryInputs(Images(array(whole, jnp.uint8, train, *shape), array(whole, jnp.int32, train)),
                                Permutation(array(whole, jnp.int32), order))
        return InMemoryBatch(Batching(size, data.pad, data.flip), data.std, spread), inputs, steps
    batch = Batch(array(spread, jnp.uint8, size, *shape), array(spread, jnp.int32, size))
    return StreamedBatch(data.colour_noise, data.std), StreamedInputs(batch, array(whole, jnp.float32, 3, 3)), 1
