"""A trained network, read back from its workdir; or any network, wherever its weights are."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resjax.errors import BadInput
from resjax.experiment import Experiment
from resjax.models import ResNet
from resjax.network import Network
from resjax.training.checkpoint import checkpoints, restore_latest
from resjax.training.optimizer import sgd
from resjax.training.state import TrainState, initial_state
from resjax.training.workdir import read_run
from resjax.weights import Bare, StrideIn, load_weights


class Trained(NamedTuple):
    """A run's network and newest state: `model.apply(state.variables, images - state.mean)` are its logits."""

    experiment: Experiment
    classes: tuple[str, ...]
    model: ResNet
    state: TrainState

    @property
    def network(self) -> Network:
        """Return the network as a value."""
        run = self.experiment
        return Network(f"{run.name}, step {self.state.step}", run.architecture, run.data, self.classes, self.model,
                       self.state.variables, np.asarray(self.state.mean))


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


def load(target: str | Path, *, stride_in: StrideIn | None = None, shortcut: Bare | None = None,
         key: str | None = None) -> Network:
    """Load a network from a run's workdir, a file of weights, a folder with one, or OWNER/NAME on the Hugging Face Hub.

    `stride_in` ("1x1": v1, "3x3": v1.5) and `shortcut` ("plain", "A") say what tensors cannot tell; the error says
    when one is needed. `key` chooses one of several sets of weights in a file, such as an average beside the raw ones.
    A network without its last layer has 0 classes: for features and fine-tuning. Raises BadInput for what is missing,
    damaged, or no network of the paper.
    """
    if (workdir := Path(target).expanduser()).joinpath("experiment.json").is_file():
        if key is not None:
            raise BadInput(f"{workdir}: a run has one set of weights, so --key chooses none; leave it out")
        return restore(workdir).network
    return load_weights(target, stride_in=stride_in, shortcut=shortcut, key=key)
