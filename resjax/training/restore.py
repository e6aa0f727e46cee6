"""A trained network, read back from its workdir."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from resjax.errors import BadInput
from resjax.experiment import Experiment
from resjax.models import ResNet
from resjax.training.checkpoint import checkpoints, restore_latest
from resjax.training.optimizer import sgd
from resjax.training.state import TrainState, initial_state
from resjax.training.workdir import read_run


class Trained(NamedTuple):
    """A run's network and newest state: `model.apply(state.variables, images - state.mean)` are its logits."""

    experiment: Experiment
    classes: tuple[str, ...]
    model: ResNet
    state: TrainState


def restore(workdir: str | Path, device: jax.Device | None = None) -> Trained:
    """Restore the newest checkpoint of a run onto one device. Raises BadInput where there is none."""
    workdir = Path(workdir)
    experiment, classes, image = read_run(workdir)
    model, optimizer = experiment.architecture.model(len(classes)), sgd(experiment.optimizer)
    shapes = jax.eval_shape(lambda: initial_state(model, optimizer, jnp.zeros(image), experiment.seed))
    place = jax.sharding.SingleDeviceSharding(device or jax.local_devices()[0])
    restored = None
    if (workdir / "checkpoints").is_dir():
        with checkpoints(workdir, clear=False) as manager:
            restored = restore_latest(manager, jax.tree.map(lambda x: x.update(sharding=place), shapes))
    if restored is None:
        raise BadInput(f"{workdir}: no checkpoint yet; its first comes at step {experiment.checkpoint_steps}")
    return Trained(experiment, classes, model, restored[0])
