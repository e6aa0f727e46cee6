"""Trains a run from start to end, with evaluations and checkpoints, and writes its result."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from signal import Signals
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import CheckpointManager

from resjax.data import leave_import
from resjax.system.distributed import broadcast_from_first, is_first, largest, wait_for_all
from resjax.system.errors import BadInput, Diverged, Interrupted, check
from resjax.system.files import read_json, write_json
from resjax.system.interrupt import requested, requests, stop_requests
from resjax.system.platform import keep_compiled_programs, return_freed_memory
from resjax.training.checkpoint import checkpoints, finish_saves, restore_latest, save_checkpoint
from resjax.training.kinds import Run
from resjax.training.log import MEASURED, Line, Log, RunningMetrics, Stopwatch, export_csv, read_metrics, rewind_metrics
from resjax.training.run_directory import (
    claimed,
    computing,
    earlier_environments,
    environment,
    read_result,
    unfinished,
)
from resjax.training.step import TrainState, state_digest
from resjax.training.task import Task
from resjax.training.tensorboard import Events


class Training(NamedTuple):
    """The constants of a training run in progress."""

    experiment: Run
    task: Task
    manager: CheckpointManager
    log: Log


def train(experiment: Run, run_directory: Path, open_task: Callable[[Sequence[jax.Device], Log], Task],
          devices: Sequence[jax.Device], tensorboard: Path | None = None) -> dict[str, Any]:
    """Train, or resume where the last process stopped; return the contents of `result.json`.

    Raises BadInput for wrong data, or if the run directory belongs to another experiment. Raises Diverged if the loss
    is no longer finite, and OSError if the disk is full. After Ctrl-C, SIGTERM or SIGHUP, the state is saved and
    Interrupted is raised.
    """
    leave_import()
    check(experiment.batch_size % len(devices) == 0,
          f"batch-size {experiment.batch_size} is not divisible by the number of devices, {len(devices)}")
    keep_compiled_programs()
    events = Events(tensorboard, run_directory) if tensorboard and is_first() else None
    name = f"{experiment.name} seed {experiment.seed}"
    log = Log(run_directory, name, experiment.steps, experiment.batch_size, events)
    with stop_requests(), claimed(run_directory, experiment), events or nullcontext():
        with log.doing("loading"):
            if not broadcast_from_first([unfinished(run_directory, experiment)])[0]:
                log.tell("already finished, so no TensorBoard logs were written; use resjax report --tensorboard"
                         if events and not events.used() else "")
                return read_result(run_directory) or {}
            task = open_task(devices, log)
        with checkpoints(run_directory, clear=True) as manager:
            run = Training(experiment, task, manager, log)
            with log.doing("initializing"):
                state, metrics, averaged = restore_or_start(run)
            if not averaged:
                with requests(held=True):
                    state = task.pack(state)
                    state, metrics = make_steps(run, state, metrics)
                    state = task.average(state, lambda: heed_stop(run, state, metrics))
                    save_state(run, state, metrics, averaged=True)
            with log.doing("saving"):
                finish_saves(manager)
            try:
                now = environment(devices)
                result = finish(run, state, metrics) | now | {"earlier": earlier_environments(run_directory, now)}
            except BadInput as error:
                raise BadInput(f"{error}. All {experiment.steps} steps are done and saved in {run_directory}. Fix "
                               "this and run the same command to evaluate again, or use `resjax evaluate`") from None
            if is_first():
                export_csv(run_directory)
                write_json(run_directory / "result.json", result)
            wait_for_all("result")
            return result


def restore_or_start(run: Training) -> tuple[TrainState, RunningMetrics, bool]:
    """Restore a run's newest state, or initialise a state. Also return whether it is the run's last state."""
    first = run.task.first()
    state, meta = restore_latest(run.manager, first) or (None, {})
    state = run.task.start(first) if state is None else state  # there may be none because all checkpoints are damaged
    step = int(state.step)
    if is_first():  # a shorter run's result is kept until all values of this run are checked
        (run.log.run_directory / "result.json").unlink(missing_ok=True)
    file = run.log.run_directory / "experiment.json"
    before = computing(read_json(file)) if file.exists() else ""
    run.task.describe()
    rewind_metrics(run.log, step)
    if step:
        now = computing(read_json(file))
        changed = f"; previously trained with {before}, now with {now}" if before not in ("", now) else ""
        run.log.tell(f"resumes at step {step}{changed}")
    averaged = step == run.experiment.steps and meta.get("averaged", True)
    if meta.get("averaged") and not averaged:
        state = run.task.prolong(state)
    return state, run.task.metrics(**meta.get("window", {})), averaged


def make_steps(run: Training, packed: TrainState, metrics: RunningMetrics) -> tuple[TrainState, RunningMetrics]:
    """Make the remaining steps from a packed state, with logging, evaluations, checkpoints and stop requests.

    The metrics of a call are fetched after the next call is launched, so that the devices never wait for the host.
    """
    experiment, begun = run.experiment, int(packed.step)
    step, pending, compiled, watch = begun, None, {}, Stopwatch()
    pauses = [experiment.evaluate_steps, experiment.checkpoint_steps]
    if run.task.watch:
        pauses.append(experiment.log_steps)
    if begun == experiment.steps:
        return run.task.unpack(packed), metrics
    if begun and begun % experiment.evaluate_steps == 0 and not any(
            line["step"] == begun and line["kind"] in MEASURED for line in read_metrics(run.log.run_directory)):
        with requests(held=False):
            measure_and_log(run, run.task.unpack(packed))
    with run.task.inputs(packed, range(begun, experiment.steps)) as calls, run.log.training():
        for count, inputs in watch.waits(calls):
            program = (count, jax.tree.structure(inputs), *(leaf.shape for leaf in jax.tree.leaves(inputs)))
            if program not in compiled:
                with watch.stopped(), requests(held=step > begun):
                    compiled[program] = compile_steps(run, step, count, packed, inputs)
            packed, call_metrics = compiled[program](packed, inputs)
            if pending is not None:
                metrics = add_metrics(run, step, metrics, pending, watch, None)
            step, pending = step + count, call_metrics
            stop = stop_request(step % experiment.log_steps == 0)
            if stop or any(step % steps == 0 for steps in pauses):
                metrics, pending = add_metrics(run, step, metrics, pending, watch, packed), None
                if step < experiment.steps:
                    stop = stop or stop_request(step % experiment.log_steps == 0)  # a callback may ask for it
                    with watch.stopped():
                        pause(run, run.task.unpack(packed), metrics, stop)
        if pending is not None:  # logged while the training's progress is still shown
            metrics = add_metrics(run, step, metrics, pending, watch, packed)
    return run.task.unpack(packed), metrics


def compile_steps(run: Training, step: int, count: int, packed: TrainState, inputs: Any) -> Any:
    """Compile the program of `count` steps, and log the compile time."""
    watch = Stopwatch()
    with run.log.doing("compiling"):
        compiled = run.task.lower(count, packed, inputs).compile()
        return_freed_memory()
    run.log.record({"step": step, "kind": "compile", "seconds": watch.lap()[0]})
    return compiled


def add_metrics(run: Training, step: int, metrics: RunningMetrics, call_metrics: Any, watch: Stopwatch,
                packed: TrainState | None) -> RunningMetrics:
    """Add and log the metrics of the call that ended at `step`. Raises Diverged if a loss is not finite.

    `packed` is the state at `step`, or None if the state was already donated to the next call.
    """
    call_metrics = jax.device_get(call_metrics)
    losses = np.atleast_1d(call_metrics.loss)
    wrong = np.flatnonzero(~np.isfinite(losses))
    if wrong.size:
        raise Diverged(f"the loss is {losses[wrong[0]]} at step {step - len(losses) + 1 + wrong[0]}; "
                       f"earlier checkpoints are in {run.log.run_directory}")
    metrics = metrics.plus(call_metrics, *watch.lap())
    line = metrics.line(step, float(np.ravel(call_metrics.learning_rate)[-1]))
    if step % run.experiment.log_steps == 0 or step == run.experiment.steps:
        run.log.record(line)
        if packed is not None and run.task.watch:
            with watch.stopped():
                if numbers := run.task.watch(line, run.task.unpack(packed)):
                    run.log.record({"step": step, "kind": "own", **numbers})
        return type(metrics)(total_seconds=metrics.total_seconds)
    run.log.glance(line)
    return metrics


def pause(run: Training, state: TrainState, metrics: RunningMetrics, stop: int) -> None:
    """Evaluate and save between two steps, if either is due. Raises Interrupted after a stop request."""
    experiment, step = run.experiment, int(state.step)
    if step % experiment.evaluate_steps == 0 and not stop:
        try:
            with requests(held=False):
                measure_and_log(run, state)
        except Interrupted as request:  # the resumed run evaluates again
            stop = request.signal
    if stop:
        save_and_stop(run, state, metrics, stop)
    if step % experiment.checkpoint_steps == 0:
        save_state(run, state, metrics)


def stop_request(now: bool) -> int:
    """Return the number of the received stop signal, or 0. With `now`, processes agree on it, to stop at the same
    step.
    """
    if jax.process_count() == 1:
        return requested()
    return largest(requested()) if now else 0


def heed_stop(run: Training, state: TrainState, metrics: RunningMetrics) -> None:
    """If there is a stop request, save the state and raise Interrupted."""
    if stop := stop_request(True):
        save_and_stop(run, state, metrics, stop)


def save_and_stop(run: Training, state: TrainState, metrics: RunningMetrics, stop: int) -> None:
    """Save the state, and raise Interrupted."""
    step = int(state.step)
    if run.manager.latest_step() != step:
        save_state(run, state, metrics)
        finish_saves(run.manager)
    raise Interrupted(f"{Signals(stop).name}: saved step {step} of {run.experiment.steps} in {run.log.run_directory}; "
                      "run the same command to resume", stop)


def save_state(run: Training, state: TrainState, metrics: RunningMetrics, averaged: bool = False) -> None:
    """Start a save of the state and its metadata."""
    with run.log.doing("saving"):
        save_checkpoint(run.manager, state, {"window": vars(metrics), "averaged": averaged})


def measure_and_log(run: Training, state: TrainState, last: bool = False) -> list[Line]:
    """Evaluate, and then log and return the results. The log gets either all of their lines or none."""
    lines = [{"step": int(state.step), **line} for line in run.task.measure(state, last)]
    with requests(held=True):
        for line in lines:
            run.log.record(line)
    return lines


def finish(run: Training, state: TrainState, metrics: RunningMetrics) -> dict[str, Any]:
    """Evaluate the last state and collect the result of the run."""
    experiment = run.experiment
    return {"name": experiment.name, "seed": experiment.seed, "steps": experiment.steps,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
            **run.task.result(measure_and_log(run, state, last=True)),
            "train_seconds": metrics.total_seconds,
            "images_per_second": experiment.steps * experiment.batch_size / max(metrics.total_seconds, 1e-9),
            "state_digest": state_digest(state)}
