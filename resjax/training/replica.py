"""Runs that train together: what they share, where each stands, and what each keeps."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from resjax.data import Dataset, load, mean_image
from resjax.errors import Diverged
from resjax.experiment import Experiment, Photographs
from resjax.network import Network
from resjax.photographs import PhotoSet, Statistics, find_photographs, measure_statistics
from resjax.processes import batch_sharding, everywhere, is_first, told_by_first
from resjax.training import checkpoint
from resjax.training.log import Log, Window, rewind_metrics
from resjax.training.optimizer import learning_rate, sgd
from resjax.training.resident import Resident
from resjax.training.setting import Call, Feed, Setting
from resjax.training.start import load_start, start_from
from resjax.training.state import TrainState, draw_onto
from resjax.training.step import Metrics
from resjax.training.streamed import Streamed
from resjax.training.workdir import write_experiment


class Replica(NamedTuple):
    """One run of those that train together: where it is kept, and where it stands."""

    experiment: Experiment
    log: Log
    manager: Any
    state: TrainState
    window: Window


def open_feed(experiment: Experiment, devices: Sequence[jax.Device]) -> Feed:
    """Find the data and build the network for their classes."""
    split, optimizer = batch_sharding(devices), sgd(experiment.optimizer)
    if isinstance(experiment.data, Photographs):
        photos = find_photographs(experiment.data)
        setting = Setting(experiment, experiment.architecture.model(len(photos.classes)), optimizer, split)
        return Streamed(setting, experiment.data, photos, statistics(photos, experiment.data))
    data = load(experiment.data)
    setting = Setting(experiment, experiment.architecture.model(len(data.classes)), optimizer, split)
    resident = Dataset(data.classes, *jax.device_put((data.train, data.validation, data.test), everywhere(split)))
    return Resident(setting, resident, mean_image(data.train))


def statistics(photos: PhotoSet, data: Photographs) -> Statistics:
    """Let the first process measure the statistics of the training images, and the others hear of them."""
    measured = (measure_statistics(photos, data) if is_first() else
                Statistics(np.zeros((data.size, data.size, 3), np.float32), np.zeros((3, 3), np.float32)))
    return Statistics(*map(told_by_first, measured))


def begin(feed: Feed, experiment: Experiment, workdir: Path, start: Network | None, devices: Sequence[jax.Device],
          stack: ExitStack, followed_by: float) -> Replica:
    """Draw a run's first state, take it from `start`, or restore its last; its checkpoints stay open in `stack`."""
    setting = feed.setting
    first = draw_onto(everywhere(setting.sharding), setting.model, setting.optimizer, feed.mean, experiment.seed)
    manager = stack.enter_context(checkpoint.checkpoints(workdir, clear=True))
    name = f"{experiment.name} seed {experiment.seed}"
    log = Log(workdir, name, experiment.steps, experiment.batch_size, followed_by)
    state, meta = checkpoint.restore_latest(manager, first) or (None, {"window": {}})
    if state is None and experiment.start:  # also where the checkpoints that there were are all damaged
        state = start_from(start or load_start(experiment), first, feed.classes, log)
    state = first if state is None else state
    write_experiment(workdir, experiment, feed.classes, feed.mean.shape, devices)
    rewind_metrics(workdir, int(state.step), experiment.steps)
    if state.step:
        log.tell(f"goes on from step {state.step}")
    return Replica(experiment, log, manager, state, Window(**meta["window"]))


def step_of(replica: Replica) -> int:
    """Tell how many steps a run has made."""
    return int(replica.state.step)


def advance(replica: Replica, state: TrainState, metrics: Metrics, call: Call) -> Replica:
    """Take over what a call has brought, and tell it. Raises Diverged."""
    step, log, experiment = int(state.step), replica.log, replica.experiment
    check_finite(metrics.loss, step, log.workdir)
    loss, wrong, images = (sums.sum().item() for sums in metrics)
    window = replica.window.plus(loss, wrong, images, call.seconds, call.waited)
    line = window.line(step, learning_rate(state.opt_state))
    if step % experiment.log_steps == 0 or step == experiment.steps:
        log.record(line)
        window = window.emptied()
    else:
        log.glance(line)
    return replica._replace(state=state, window=window)


def save(replica: Replica) -> None:
    """Begin to save a run."""
    checkpoint.save(replica.manager, replica.state, {"window": vars(replica.window)})


def check_finite(losses: np.ndarray, step: int, workdir: Path) -> None:
    """Raise Diverged for the first loss `[count]` of the call ending at `step` that is not finite."""
    wrong = np.flatnonzero(~np.isfinite(losses))
    if wrong.size:
        raise Diverged(f"the loss is {losses[wrong[0]]} at step {step - len(losses) + 1 + wrong[0]}; "
                       f"the checkpoints before it are kept in {workdir}")
