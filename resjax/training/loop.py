"""A whole run: data, state, steps, evaluations, checkpoints, result."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from signal import Signals
from typing import Any

import jax
import numpy as np

from resjax.errors import BadInput, Interrupted
from resjax.evaluation import Errors
from resjax.experiment import Experiment
from resjax.files import write_json
from resjax.platform import keep_compiled_programs
from resjax.processes import is_first, largest, told_by_first, wait_for_all
from resjax.training.interrupt import stop_requests
from resjax.training.replica import Replica, advance, begin, open_feed, save, step_of
from resjax.training.setting import Feed
from resjax.training.start import load_start, needs_start
from resjax.training.state import state_digest
from resjax.training.workdir import claimed, environment, read_result


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
        missing = np.flatnonzero(told_by_first([read_result(folder) is None for folder in folders]))
        if missing.size:
            start = load_start(common) if needs_start(common, [folders[index] for index in missing]) else None
            feed = open_feed(common, devices)
            replicas = [begin(feed, experiments[index], folders[index], start, devices, stack, followed_by)
                        for index in missing]
            for _, group in groupby(sorted(replicas, key=step_of), key=step_of):
                complete(feed, list(group), devices, stop_request)
        return [read_result(folder) or {} for folder in folders]


def complete(feed: Feed, replicas: Sequence[Replica], devices: Sequence[jax.Device],
             stop_request: Callable[[], int | None]) -> None:
    """Make the steps that are left to runs that stand at the same one, and write their results."""
    if step_of(replicas[0]) < feed.setting.experiment.steps:
        replicas = descend(feed, replicas, stop_request)
        experiment = feed.setting.experiment
        if experiment.statistics_steps and not experiment.architecture.fixed_norm:  # otherwise the moving averages stay
            replicas = [replica._replace(state=replica.state.replace(batch_stats=feed.true_average(replica.state)))
                        for replica in replicas]
        for replica in replicas:
            save(replica)
    for replica in replicas:
        replica.manager.wait_until_finished()
        result = conclude(feed, replica) | environment(devices)
        if is_first():
            write_json(replica.log.workdir / "result.json", result)
    wait_for_all("results")


def descend(feed: Feed, replicas: Sequence[Replica], stop_request: Callable[[], int | None]) -> list[Replica]:
    """Make the steps that are left; log, evaluate and save on the way."""
    experiment, replicas = feed.setting.experiment, list(replicas)
    with closing(feed.steps([replica.state for replica in replicas], replicas[0].log)) as calls:
        for call in calls:
            replicas = [advance(replica, state, metrics, call)
                        for replica, state, metrics in zip(replicas, call.states, call.metrics, strict=True)]
            step = step_of(replicas[0])
            if step == experiment.steps:
                break
            if step % experiment.evaluate_steps == 0:
                for replica in replicas:
                    errors(feed, replica, ("validation", "test") if experiment.evaluate_test else ("validation",))
            number = stop_request()
            if jax.process_count() > 1:  # all stop at the same step, so they ask each other, now and then
                number = largest(number or 0) if step % experiment.log_steps == 0 else None
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


def errors(feed: Feed, replica: Replica, splits: Sequence[str]) -> dict[str, Errors]:
    """Measure, record and return the errors on the splits that hold images."""
    found = {split: measured for split in splits if (measured := feed.errors(replica.state, split))}
    for split, measured in found.items():
        replica.log.record({"step": step_of(replica), "kind": split, **measured._asdict()})
    return found


def conclude(feed: Feed, replica: Replica) -> dict[str, Any]:
    """Evaluate the last state and gather what the run came to."""
    experiment, state, window = replica.experiment, replica.state, replica.window
    found = errors(feed, replica, ("validation", "test"))
    return {
        "name": experiment.name, "seed": experiment.seed, "steps": experiment.steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        **{f"{split}_{key}": getattr(value, key) for split, value in found.items()
           for key in ("top1_error", "top5_error")},
        "train_seconds": window.total_seconds,
        "images_per_second": experiment.steps * experiment.batch_size / window.total_seconds,
        "state_digest": state_digest(state),
    }
