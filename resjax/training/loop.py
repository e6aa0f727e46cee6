"""A whole run, from top to bottom: images, state, steps, errors, checkpoints, result."""

from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from orbax.checkpoint import CheckpointManager

from resjax.data import of_run
from resjax.distributed import batch_sharding, broadcast_from_first, is_first, largest, replicated, wait_for_all
from resjax.errors import Diverged, Interrupted, check
from resjax.evaluation import ErrorRates
from resjax.experiment import Experiment
from resjax.files import write_json
from resjax.interrupt import requested, requests, stop_requests
from resjax.network import Classifier, Network
from resjax.platform import keep_compiled_programs
from resjax.progress import advance
from resjax.training.checkpoint import checkpoints, restore_latest, save
from resjax.training.images import TrainingImages, open_images
from resjax.training.log import Log, RunningMetrics, Stopwatch, read_metrics, rewind_metrics
from resjax.training.optimizer import sgd
from resjax.training.restore import initialize_from, load_weights_for, needs_weights
from resjax.training.run_directory import check_images, claimed, environment, read_result, unfinished, write_experiment
from resjax.training.step import Metrics, TrainState, add_batch_statistics, draw, state_digest, train_steps


class Run(NamedTuple):
    """What does not change while a run trains."""

    experiment: Experiment
    images: TrainingImages
    model: nn.Module
    optimizer: optax.GradientTransformationExtraArgs
    manager: CheckpointManager
    log: Log


def train(experiment: Experiment, run_directory: str | Path,
          devices: Sequence[jax.Device] | None = None) -> dict[str, Any]:
    """Train, or go on where the last process stopped; return what `result.json` holds.

    Raises BadInput for wrong data or a run directory that is not this experiment's, Diverged where the loss is no
    longer finite, Interrupted after Ctrl-C, SIGTERM or SIGHUP with the state saved, OSError where the disk is full.
    """
    devices, folder = devices or jax.devices(), Path(run_directory)
    check(experiment.batch_size % len(devices) == 0,
          f"batch-size {experiment.batch_size} does not divide over {len(devices)} devices")
    keep_compiled_programs()
    log = Log(folder, f"{experiment.name} seed {experiment.seed}", experiment.steps, experiment.batch_size)
    with log.doing("loading"), stop_requests(), claimed(folder, experiment):
        if not broadcast_from_first([unfinished(folder, experiment)])[0]:
            return read_result(folder) or {}
        weights = load_weights_for(experiment) if needs_weights(experiment, folder) else None
        images = open_images(experiment, devices, log)
        check_images(folder, images.identity())
        model, optimizer = experiment.architecture.model(len(images.classes)), sgd(experiment.optimizer)
        with checkpoints(folder, clear=True) as manager:
            run = Run(experiment, images, model, optimizer, manager, log)
            with log.doing("initializing"):
                state, metrics, averaged = restore_or_initialize(run, devices, weights)
            if not averaged:
                with requests(held=True):
                    state, metrics = make_steps(run, state, metrics)
                    state = precise_batch_norm(run, state, metrics)
                    keep(run, state, metrics, averaged=True)
            with log.doing("saving"):
                manager.wait_until_finished()
            result = finish(run, state, metrics) | environment(devices)
            if is_first():
                write_json(folder / "result.json", result)
            wait_for_all("result")
            return result


def restore_or_initialize(run: Run, devices: Sequence[jax.Device],
                          weights: Network | None) -> tuple[TrainState, RunningMetrics, bool]:
    """Restore a run's newest state, or draw its first, with the weights it starts from; say whether it is the last."""
    experiment, images, log = run.experiment, run.images, run.log
    first = draw(replicated(batch_sharding(devices)), run.model, run.optimizer, images.mean, experiment.seed)
    state, meta = restore_latest(run.manager, first) or (None, {"window": {}})
    if state is None and experiment.initialize_from:  # also where the checkpoints that there were are all damaged
        state = initialize_from(weights or load_weights_for(experiment), first, images.classes, log)
    state = first if state is None else state
    step = int(state.step)
    write_experiment(log.run_directory, experiment, images.mean.shape, images.identity(), devices)
    rewind_metrics(log, step)
    if step:
        log.tell(f"goes on from step {step}")
    return state, RunningMetrics(**meta["window"]), step == experiment.steps and meta.get("averaged", True)


def make_steps(run: Run, state: TrainState, metrics: RunningMetrics) -> tuple[TrainState, RunningMetrics]:
    """Make the steps that are left; log, evaluate, save and stop on the way.

    The metrics of a call are fetched when the next one is under way, so that the devices never wait for the host.
    """
    experiment, begun = run.experiment, int(state.step)
    step, pending, compiled, watch = begun, None, {}, Stopwatch()
    if begun == experiment.steps:
        return state, metrics
    if begun and begun % experiment.evaluate_steps == 0 and not evaluated(run, begun):
        with requests(held=False):
            measure(run, state, measured_on_the_way(experiment))
    with run.images.inputs(data_key(state), range(begun, experiment.steps)) as calls, run.log.training():
        for count, inputs in watch.waits(calls):
            if count not in compiled:
                with watch.stopped(), requests(held=step > begun):
                    compiled[count] = compile_steps(run, count, state, inputs)
            state, found = compiled[count](state, inputs)
            if pending is not None:
                metrics = add_metrics(run, step, metrics, pending, watch)
            step, pending = step + count, found
            stop = stop_request(step % experiment.log_steps == 0)
            if stop or any(step % steps == 0 for steps in (experiment.evaluate_steps, experiment.checkpoint_steps)):
                metrics, pending = add_metrics(run, step, metrics, pending, watch), None
                if step < experiment.steps:
                    with watch.stopped():
                        pause(run, state, metrics, stop)
    return state, metrics if pending is None else add_metrics(run, step, metrics, pending, watch)


def data_key(state: TrainState) -> jax.Array:
    """Copy the key of the data, as the state's own is donated with it."""
    copied: jax.Array = jax.random.wrap_key_data(jnp.copy(jax.random.key_data(state.key)))
    return copied


def compile_steps(run: Run, count: int, state: TrainState, inputs: Any) -> Any:
    """Compile the program of `count` steps, and tell how long it took."""
    watch = Stopwatch()
    with run.log.doing("compiling"):
        compiled = train_steps.lower(run.model, run.optimizer, run.images.batch, count, state, inputs).compile()
    run.log.record({"step": int(state.step), "kind": "compile", "seconds": watch.lap()[0]})
    return compiled


def add_metrics(run: Run, step: int, metrics: RunningMetrics, found: Metrics, watch: Stopwatch) -> RunningMetrics:
    """Add what the call that ended at `step` has found, and tell it. Raises Diverged for a loss that is not finite."""
    found = jax.device_get(found)
    wrong = np.flatnonzero(~np.isfinite(found.loss))
    if wrong.size:
        raise Diverged(f"the loss is {found.loss[wrong[0]]} at step {step - len(found.loss) + 1 + wrong[0]}; "
                       f"the checkpoints before it are kept in {run.log.run_directory}")
    metrics = metrics.plus(found, *watch.lap())
    line = metrics.line(step, float(found.learning_rate[-1]))
    if step % run.experiment.log_steps == 0 or step == run.experiment.steps:
        run.log.record(line)
        return metrics.emptied()
    run.log.glance(line)
    return metrics


def pause(run: Run, state: TrainState, metrics: RunningMetrics, stop: int) -> None:
    """Evaluate and save between two steps where it is time to. Raises Interrupted where somebody asked to stop."""
    experiment, step = run.experiment, int(state.step)
    if step % experiment.evaluate_steps == 0 and not stop:
        try:
            with requests(held=False):
                measure(run, state, measured_on_the_way(experiment))
        except Interrupted as request:  # the run that goes on from here measures again
            stop = request.signal
    if stop:
        save_and_stop(run, state, metrics, stop)
    if step % experiment.checkpoint_steps == 0:
        keep(run, state, metrics)


def precise_batch_norm(run: Run, state: TrainState, metrics: RunningMetrics) -> TrainState:
    """Put the averages over the next `precise_batch_norm_steps` batches in place of the moving ones (section 3.4)."""
    experiment = run.experiment
    count = 0 if experiment.architecture.frozen_batch_norm else experiment.precise_batch_norm_steps
    if not count:
        return state
    sums, step = jax.tree.map(jnp.zeros_like, state.batch_stats), experiment.steps
    with run.images.inputs(data_key(state), range(step, step + count)) as calls, run.log.doing("averaging", count):
        for several, inputs in calls:
            here = state.replace(step=jnp.int32(step))
            sums = add_batch_statistics(run.model, run.images.batch, several, here, sums, inputs)
            step += several
            advance(step - experiment.steps)
            if stop := stop_request(True):
                save_and_stop(run, state, metrics, stop)
    return state.replace(batch_stats=jax.tree.map(lambda total: total / count, sums))


def stop_request(now: bool) -> int:
    """Return the signal that asked to stop, or 0. All processes stop at the same step, so they ask each other `now`."""
    if jax.process_count() == 1:
        return requested()
    return largest(requested()) if now else 0


def keep(run: Run, state: TrainState, metrics: RunningMetrics, averaged: bool = False) -> None:
    """Begin to save the state and what belongs to it."""
    save(run.manager, state, {"window": vars(metrics), "averaged": averaged})


def save_and_stop(run: Run, state: TrainState, metrics: RunningMetrics, stop: int) -> None:
    """Save the state, and raise Interrupted."""
    step = int(state.step)
    if run.manager.latest_step() != step:
        keep(run, state, metrics)
        run.manager.wait_until_finished()
    raise Interrupted(f"{Signals(stop).name}: saved step {step} of {run.experiment.steps} in {run.log.run_directory}; "
                      "the same command goes on from there", stop)


def measured_on_the_way(experiment: Experiment) -> tuple[str, ...]:
    """Name the splits to evaluate between steps."""
    return ("validation", "test") if experiment.evaluate_test else ("validation",)


def evaluated(run: Run, step: int) -> bool:
    """Say whether the log holds the errors of a step: a run that was stopped while it measured them does so now."""
    return any(line["step"] == step and "top1_error" in line for line in read_metrics(run.log.run_directory))


def measure(run: Run, state: TrainState, splits: Sequence[str]) -> dict[str, ErrorRates]:
    """Measure, then record and return the errors on the splits that hold images: the log gets all of them or none."""
    found = {}
    classifier = Classifier(run.model, state.variables, of_run(run.experiment.data, state.mean))
    for split in splits:
        with run.log.doing(f"evaluating, {split}"):
            errors = run.images.errors(classifier, split)
        if errors is not None:
            found[split] = errors
    for split, errors in found.items():
        run.log.record({"step": int(state.step), "kind": split, **errors._asdict()})
    return found


def finish(run: Run, state: TrainState, metrics: RunningMetrics) -> dict[str, Any]:
    """Evaluate the last state and gather what the run came to."""
    experiment, found = run.experiment, measure(run, state, ("validation", "test"))
    return {
        "name": experiment.name, "seed": experiment.seed, "steps": experiment.steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        **{f"{split}_{key}": getattr(value, key) for split, value in found.items()
           for key in ("top1_error", "top5_error")},
        "train_seconds": metrics.total_seconds,
        "images_per_second": experiment.steps * experiment.batch_size / metrics.total_seconds,
        "state_digest": state_digest(state),
    }
