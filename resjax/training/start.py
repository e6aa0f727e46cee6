"""The weights that fine-tuning starts from."""

from pathlib import Path

import jax
import numpy as np

from resjax.errors import BadInput
from resjax.experiment import Experiment
from resjax.network import Network
from resjax.training.log import Log
from resjax.training.restore import load
from resjax.training.state import TrainState
from resjax.weights import Bare


def needs_start(experiment: Experiment, workdir: Path) -> bool:
    """Say whether a run begins with other weights: it names some, and has no checkpoint to go on from."""
    return bool(experiment.start) and not any((workdir / "checkpoints").glob("[0-9]*"))


def load_start(experiment: Experiment) -> Network:
    """Load what `experiment.start` names. Raises BadInput where it cannot be, or is another network."""
    wanted = experiment.architecture
    shortcut: Bare = "plain" if wanted.shortcut == "plain" else "A"
    network = load(experiment.start, stride_in=wanted.stride_in, shortcut=shortcut)
    found = network.architecture
    if found.title() != wanted.title() or len(found.std) != len(wanted.std) or not np.allclose(found.std, wanted.std):
        raise BadInput(f"start: {experiment.start} holds {found.title()} with std {found.std}, and the architecture of "
                       f"{experiment.name} is {wanted.title()} with std {wanted.std}")
    return network


def start_from(network: Network, first: TrainState, classes: tuple[str, ...], log: Log) -> TrainState:
    """Put a network's weights and mean image into a first state, on its devices.

    The last layer is drawn anew where the network was trained on other classes. Raises BadInput for other colours.
    """
    if network.mean.shape[-1] != first.mean.shape[-1]:
        raise BadInput(f"start: {network.name} is for images of {network.mean.shape[-1]} channels, and these have "
                       f"{first.mean.shape[-1]}")
    same = network.classes == classes or (not network.classes and network.model.classes == len(classes))
    params = dict(network.variables["params"]) | ({} if same else {"fc": first.params["fc"]})
    mean = np.asarray(jax.image.resize(network.mean, first.mean.shape, "linear"))
    log.tell(f"starts from {network.name}{'' if same else '; the last layer is drawn anew'}")

    def place(new: object, old: jax.Array) -> jax.Array:
        return jax.device_put(np.array(jax.device_get(new)), old.sharding)

    return first.replace(params=jax.tree.map(place, params, first.params), mean=place(mean, first.mean),
                         batch_stats=jax.tree.map(place, network.variables["batch_stats"], first.batch_stats))
