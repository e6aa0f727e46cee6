"""A whole run: data, state, steps, evaluations, checkpoints, result."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from signal import Signals
from typing import Any

import jax

from resjax.data import Order, epochs_spanned
from resjax.errors import BadInput, Interrupted
from resjax.evaluation import Errors, evaluate
from resjax.experiment import Experiment
from resjax.platform import keep_compiled_programs
from resjax.training.batch_statistics import average_statistics
from resjax.training.interrupt import stop_requests
from resjax.training.log import Log
from resjax.training.replica import Replica, Setting, advance, begin, prepare, save, step_of
from resjax.training.state import TrainState, state_digest
from resjax.training.step import Metrics, shuffle, train_steps
from resjax.training.workdir import claimed, environment, read_result, write_json


def train(experiment: Experiment, workdir: str | Path, devices: Sequence[jax.Device] | None = None, *,
          followed_by: float = 0.0) -> dict[str, Any]:
    """Train, or go on where the last process stopped; return what `result.json` holds.

    `followed_by` is the work of the runs that come after, in units of this one: progress then tells the time for all.
    Raises BadInput for wrong data or a workdir that is not this experiment's, Diverged where the loss is no
    longer finite, Interrupted after Ctrl-C or SIGTERM with the state saved, OSError where the disk is full.
    """
    return train_together([experiment], [workdir], devices, followed_by=followed_by)[0]


def train_together(experiments: Sequence[Experiment], workdirs: Sequence[str | Path],
                   devices: Sequence[jax.Device] | None = None, *, followed_by: float = 0.0) -> list[dict[str, Any]]:
    """Train experiments that differ in their seed only, in one program; each is kept as if it trained alone.

    Those that stand at different steps take turns. Returns and raises as `train` does; BadInput also where the
    experiments differ in more than the seed.
    """
    devices, folders = devices or jax.devices(), [Path(workdir) for workdir in workdirs]
    common = replace(experiments[0], seed=0)
    for other in experiments:
        if differences := common.differences(replace(other, seed=0)):
            raise BadInput(f"only the seeds may differ where runs train together: {'; '.join(differences)}")
    if common.batch_size % len(devices):
        raise BadInput(f"batch-size {common.batch_size} does not divide over {len(devices)} devices")
    keep_compiled_programs()
    with ExitStack() as stack:
        for experiment, folder in zip(experiments, folders, strict=True):
            stack.enter_context(claimed(folder, experiment))
        stop_request = stack.enter_context(stop_requests())
        missing = [index for index, folder in enumerate(folders) if read_result(folder) is None]
        if missing:
            setting = prepare(common, devices)
            replicas = [begin(setting, experiments[index], folders[index], devices, stack, followed_by)
                        for index in missing]
            for _, group in groupby(sorted(replicas, key=step_of), key=step_of):
                complete(setting, list(group), devices, stop_request)
        return [read_result(folder) or {} for folder in folders]


def complete(setting: Setting, replicas: Sequence[Replica], devices: Sequence[jax.Device],
             stop_request: Callable[[], int | None]) -> None:
    """Make the steps that are left to runs that stand at the same one, and write their results."""
    if step_of(replicas[0]) < setting.experiment.steps:
        replicas = [replica._replace(state=replica.state.replace(batch_stats=true_average(setting, replica.state)))
                    for replica in descend(setting, replicas, stop_request)]
        for replica in replicas:
            save(replica)
    for replica in replicas:
        replica.manager.wait_until_finished()
        result = conclude(setting, replica) | environment(devices)
        write_json(replica.log.workdir / "result.json", result)


def descend(setting: Setting, replicas: Sequence[Replica], stop_request: Callable[[], int | None]) -> list[Replica]:
    """Make the steps that are left; log, evaluate and save on the way."""
    experiment, replicas = setting.experiment, list(replicas)
    for states, metrics, seconds in steps(setting, [replica.state for replica in replicas], replicas[0].log):
        replicas = [advance(replica, state, sums, seconds)
                    for replica, state, sums in zip(replicas, states, metrics, strict=True)]
        step = step_of(replicas[0])
        if step == experiment.steps:
            break
        if step % experiment.evaluate_steps == 0:
            for replica in replicas:
                errors(setting, replica, ("validation", "test") if experiment.evaluate_test else ("validation",))
        number = stop_request()
        if number or step % experiment.checkpoint_steps == 0:
            for replica in replicas:
                save(replica)
        if number:
            for replica in replicas:
                replica.manager.wait_until_finished()
            raise Interrupted(f"{Signals(number).name}: saved step {step} of {experiment.steps} in "
                              f"{', '.join(str(replica.log.workdir) for replica in replicas)}; "
                              "the same command goes on from there", number)
    return replicas


def steps(setting: Setting, states: Sequence[TrainState],
          log: Log) -> Iterator[tuple[Sequence[TrainState], Sequence[Metrics], float]]:
    """Yield states, their metrics `[count]` and the seconds of each call; compiling is timed apart.

    The states that were yielded are gone after the next call: their memory is used again.
    """
    experiment, data = setting.experiment, setting.data.train
    stride, images, size = steps_per_call(experiment), len(data.labels), experiment.batch_size
    epochs = epochs_spanned(stride, size, images)
    compiled: dict[int, Any] = {}
    orders: tuple[Order, ...] = ()
    states = tuple(states)
    step, epoch = int(states[0].step), -1
    while step < experiment.steps:
        count = min(stride - step % stride, experiment.steps - step)
        if step * size // images != epoch:
            epoch = step * size // images
            orders = tuple(shuffle(state.key, epoch, epochs, images) for state in states)
        if count not in compiled:
            start = time.perf_counter()
            static = experiment, setting.model, setting.optimizer, setting.sharding, count
            compiled[count] = train_steps.lower(*static, states, data, orders).compile()
            log.record({"step": step, "kind": "compile", "seconds": time.perf_counter() - start})
        start = time.perf_counter()
        states, metrics = compiled[count](states, data, orders)
        metrics = jax.device_get(metrics)
        step += count
        yield states, metrics, time.perf_counter() - start


def steps_per_call(experiment: Experiment) -> int:
    """Count the steps to make in one call, so that calls end where something is logged, measured or saved.

    On an accelerator a launch costs as much as a small step; on CPU a call pays for fresh memory, and a few
    steps are enough.
    """
    most = 5 if jax.default_backend() == "cpu" else 100
    common = math.gcd(experiment.log_steps, experiment.evaluate_steps, experiment.checkpoint_steps)
    return max(count for count in range(1, most + 1) if common % count == 0)


def true_average(setting: Setting, state: TrainState) -> Any:
    """Return the batch statistics to evaluate with (section 3.4)."""
    experiment, data = setting.experiment, setting.data.train
    if not experiment.statistics_steps:
        return state.batch_stats
    size, images = experiment.batch_size, len(data.labels)
    order = shuffle(state.key, experiment.steps * size // images,
                    epochs_spanned(experiment.statistics_steps, size, images), images)
    return average_statistics(experiment, setting.model, setting.sharding, state, data, order)


def errors(setting: Setting, replica: Replica, splits: Sequence[str]) -> dict[str, Errors]:
    """Measure, record and return the errors on the splits that hold images."""
    state, found = replica.state, {}
    for split in splits:
        images = getattr(setting.data, split)
        if len(images.labels):
            found[split] = evaluate(setting.model, state.variables, state.mean, images,
                                    setting.experiment.batch_size, setting.sharding)
            replica.log.record({"step": int(state.step), "kind": split, **found[split]._asdict()})
    return found


def conclude(setting: Setting, replica: Replica) -> dict[str, Any]:
    """Evaluate the last state and gather what the run came to."""
    experiment, state, window = replica.experiment, replica.state, replica.window
    found = errors(setting, replica, ("validation", "test"))
    return {
        "name": experiment.name, "seed": experiment.seed, "steps": experiment.steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        **{f"{split}_{key}": getattr(value, key) for split, value in found.items()
           for key in ("top1_error", "top5_error")},
        "train_seconds": window.total_seconds,
        "images_per_second": experiment.steps * experiment.batch_size / window.total_seconds,
        "state_digest": state_digest(state),
    }
