"""Trains a classifier, by connecting the training loop to the network, the images and the evaluation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import NamedSharding

from resjax.data import Dataset, of_run
from resjax.experiment import Experiment
from resjax.network import Classifier, Network
from resjax.system.distributed import batch_sharding, replicated
from resjax.system.files import expanded
from resjax.system.progress import advance
from resjax.training import loop
from resjax.training.images import TrainingImages, open_images
from resjax.training.log import Line, Log, RunningMetrics
from resjax.training.optimizer import averages_of, exchange_average
from resjax.training.own import (
    Callback,
    batch_for,
    callback_numbers,
    check_parts,
    model_for,
    most_blocks_apart,
    optimizer_for,
)
from resjax.training.packing import StateLayout, layout_for
from resjax.training.python_objects import changed_objects, network_of, provenance_of, with_objects
from resjax.training.restoration import initialize_from, load_weights_for
from resjax.training.run_directory import check_images, has_checkpoint, write_run
from resjax.training.step import (
    Augment,
    Loss,
    MakeBatch,
    TrainState,
    add_batch_statistics,
    draw_state,
    named_leaves,
)


class Result(dict[str, Any]):
    """The contents of `result.json`, as a dictionary."""

    def __repr__(self) -> str:
        error = f"test error {self['test_top1_error']:.2f} %, " if "test_top1_error" in self else ""
        return (f"Result({self['name']!r}, seed {self['seed']}: {error}{self['steps']:,} steps, "
                f"{self['parameters']:,} parameters, {self['train_seconds']:.0f} s)")


def train(experiment: Experiment, run_directory: str | Path, devices: Sequence[jax.Device] | None = None, *,
          model: nn.Module | None = None, data: Dataset | None = None,
          optimizer: optax.GradientTransformation | None = None, loss: Loss | None = None,
          augment: Augment | None = None, callback: Callback | None = None,
          tensorboard: str | Path | None = None) -> Result:
    """Train an experiment, or resume it; return the contents of `result.json`.

    `model` (a Flax module that takes images and `train`), `data` (from `resjax.dataset`) and `optimizer` (from Optax)
    replace those of the experiment. To resume the run, pass the same objects again, or define them in an experiment
    file (see `Own`). `loss(logits, labels)`, which returns the losses `[batch]`, replaces the cross-entropy.
    `augment(key, images, labels)` changes each training batch after crops and flips. The loss can be `LabelSmoothing`,
    and the augmentation can be `Mixup`, `CutMix` or `Cutout`. The loss and augmentation must be pure, because they are
    compiled. `callback(line, network)` is called with each training line of the log and the current network. It returns
    a dict of names and numbers to log, or None. `tensorboard` is a folder for TensorBoard event files. Raises BadInput
    for wrong data or another experiment's run directory, Diverged if the loss is no longer finite, and OSError if the
    disk is full. After Ctrl-C, SIGTERM or SIGHUP, the state is saved and Interrupted is raised.
    """
    parts = {"model": model, "optimizer": optimizer, "loss": loss, "augment": augment, "callback": callback}
    passed = {part: value for part, value in parts.items() if value is not None}
    experiment, data = with_objects(experiment, folder := expanded(run_directory), data, passed)
    return Result(loop.train(experiment, folder, partial(open_classification, experiment, data=data),
                             devices or jax.devices(), None if tensorboard is None else expanded(tensorboard)))


@dataclass(frozen=True)
class RunningErrors(RunningMetrics):
    """Sums of losses and wrong predictions since the last line of the log."""

    loss: float = 0.0
    wrong: int = 0

    def means(self) -> Line:
        """Divide by the number of images, giving the mean cross-entropy and the error in percent."""
        return {"loss": self.loss / self.images, "error": 100 * self.wrong / self.images}


@dataclass(frozen=True)
class Classification:
    """A classification task, with an experiment's images, and the pretrained `weights` to start from, if any."""

    experiment: Experiment
    images: TrainingImages
    identity: dict[str, Any]
    model: nn.Module
    optimizer: optax.GradientTransformationExtraArgs
    weights: Network | None
    sharding: NamedSharding
    log: Log

    metrics = RunningErrors

    def first(self) -> TrainState:
        """Initialise the state on the devices."""
        return draw_state(replicated(self.sharding), self.model, self.optimizer, self.images.mean, self.experiment.seed)

    def start(self, first: TrainState) -> TrainState:
        """Put the pretrained weights, if any, into the initial state, and let the optimizer start from them."""
        if not self.experiment.initialize_from:
            return first
        weights, own = self.weights or load_weights_for(self.experiment), self.experiment.own.optimizer
        return initialize_from(weights, first, self.images.classes, self.log, None if own is None else self.optimizer)

    def describe(self) -> None:
        """Write `experiment.json`."""
        about = {"classes": self.identity["classes"], "image": self.images.mean.shape, "images": self.identity}
        objects = provenance_of(self.experiment, self.images.mean.shape, len(self.images.classes))
        if objects:
            self.log.tell(", ".join(f"{part}: {text}" for part, text in objects["given"].items()
                                    if part in ("loss", "augment")))
            self.log.tell(changed_objects(self.log.run_directory, objects))
        write_run(self.log.run_directory, self.experiment, about | objects, list(self.sharding.mesh.devices.flat))

    def inputs(self, state: TrainState, steps: range) -> AbstractContextManager[Iterator[tuple[int, Any]]]:
        """Open the batches of `steps`. The data key is copied, because the state that contains it is donated."""
        return self.images.inputs(jax.random.wrap_key_data(jnp.copy(jax.random.key_data(state.key))), steps)

    @property
    def batch(self) -> MakeBatch:
        """Return the function that makes batches, including a custom augmentation."""
        return batch_for(self.experiment, self.images.batch)

    @property
    def form(self) -> StateLayout:
        """Return the layout of the steps that suits the devices."""
        return layout_for(self.sharding.mesh.devices.flat[0].platform)

    def pack(self, state: TrainState) -> TrainState:
        """Pack a state for the steps. For a custom optimizer, blocks stay stacked."""
        return self.form.pack(state, most_blocks_apart(self.experiment, self.model))

    def unpack(self, packed: TrainState) -> TrainState:
        """Undo `pack`."""
        return self.form.unpack(packed)

    def lower(self, count: int, packed: TrainState, inputs: Any) -> Any:
        """Lower the program that makes `count` steps."""
        return self.form.steps.lower(self.model, self.optimizer, self.batch, count, packed, inputs)

    def average(self, state: TrainState, heed: Callable[[], None]) -> TrainState:
        """Replace moving averages by averages over the next `precise_batch_norm_steps` batches (section 3.4).

        If the optimizer averages the parameters, the averages replace the current parameters, and the statistics are
        computed with the averages.
        """
        experiment, state = self.experiment, self.prolong(state)
        count = 0 if experiment.architecture.frozen_batch_norm else experiment.precise_batch_norm_steps
        if not count or not state.batch_stats:
            return state
        begun = step = int(state.step)
        sums = jax.tree.map(jnp.zeros_like, state.batch_stats)
        reached = jax.tree.map(lambda _: True, sums)
        with self.inputs(state, range(step, step + count)) as calls, self.log.doing("averaging", count):
            for several, inputs in calls:
                here, first = state.replace(step=jnp.int32(step)), step == begun
                if first and experiment.own.model is not None:
                    reached = self.own_statistics(several, here, inputs)
                sums = add_batch_statistics(self.model, self.batch, several, here, sums, inputs)
                step += several
                advance(step - begun)
                heed()
        averaged: TrainState = state.replace(batch_stats=jax.tree.map(
            lambda own, total, moving: total / count if own else moving, reached, sums, state.batch_stats))
        return averaged

    def prolong(self, state: TrainState) -> TrainState:
        """Swap the parameters and the optimizer's averaged parameters, if there are any."""
        params, opt_state = exchange_average(state.params, state.opt_state)
        exchanged: TrainState = state.replace(params=params, opt_state=opt_state)
        return exchanged

    def own_statistics(self, count: int, state: TrainState, inputs: Any) -> Any:
        """Mark the batch statistics that depend only on the batches. The log mentions all others as moving averages.

        The statistics of a batch norm that is neither Flax's nor ours may depend on their previous values.
        """
        moved = state.replace(batch_stats=jax.tree.map(lambda x: x + 1, state.batch_stats))
        one, other = (named_leaves(add_batch_statistics(  # the function reuses the memory of the zeros
            self.model, self.batch, count, each, jax.tree.map(jnp.zeros_like, state.batch_stats), inputs))
            for each in (state, moved))
        same = [np.array_equal(mine, theirs) for (_, mine), (_, theirs) in zip(one, other, strict=True)]
        left = [name for (name, _), own in zip(one, same, strict=True) if not own]
        self.log.tell(f"{len(left)} of {len(one)} batch statistics, such as {left[0]}, stay moving averages; precise "
                      "batch norm supports only Flax's BatchNorm and resjax's" if left else "")
        return jax.tree.unflatten(jax.tree.structure(state.batch_stats), same)

    def measure(self, state: TrainState, last: bool) -> list[Line]:
        """Measure the errors on all non-empty splits, but on test images between steps only with `evaluate_test`."""
        run, lines = self.experiment, []
        splits = [split for split in self.images.splits if split == "validation" or last or run.evaluate_test]
        if splits and not last and averages_of(state.opt_state):
            state = self.average(state, lambda: None)
        classifier = Classifier(self.model, state.variables, of_run(run.data, state.mean))
        for split in splits:
            with self.log.doing(f"evaluating the {split} split"):
                lines.append({"kind": split, **self.images.errors(classifier, split)._asdict()})
        return lines

    @property
    def watch(self) -> Callable[[Line, TrainState], Line | None] | None:
        """Return a function that calls the callback with a line of the log and a copy of the current network."""
        if (callback := self.experiment.own.callback) is None:
            return None

        def called(line: Line, state: TrainState) -> Line | None:
            network = network_of(self.experiment, self.images.classes, self.model, jax.tree.map(jnp.copy, state))
            return callback_numbers(callback(line, network)) or None

        return called

    def result(self, lines: list[Line]) -> Line:
        """Return the errors of every split."""
        return {f"{line['kind']}_{key}": line[key] for line in lines for key in ("top1_error", "top5_error")}


def open_classification(experiment: Experiment, devices: Sequence[jax.Device], log: Log,
                        data: Dataset | None = None) -> Classification:
    """Open an experiment's images and pretrained weights. Raises BadInput for invalid images or weights."""
    needed = experiment.initialize_from and not has_checkpoint(log.run_directory)
    weights = load_weights_for(experiment) if needed else None
    images = open_images(experiment, devices, log, data)
    classes = len(images.classes)
    check_parts(experiment, images.mean.shape, classes)
    identity = images.identity()  # called once, because it reads the size of every file
    check_images(log.run_directory, identity)
    return Classification(experiment, images, identity, model_for(experiment, classes), optimizer_for(experiment),
                          weights, batch_sharding(devices), log)
