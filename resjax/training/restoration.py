"""Loads trained networks from run directories or weights files of any source, and initialises new runs with them."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resjax.data.classes import composed
from resjax.experiment import Experiment
from resjax.models.families import StrideIn
from resjax.network import Network
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded
from resjax.system.terminal import tell
from resjax.training.checkpoint import read_latest
from resjax.training.kinds import Run
from resjax.training.log import Log
from resjax.training.optimizer import build_optimizer
from resjax.training.python_objects import model_of, network_of
from resjax.training.run_directory import read_descriptions, read_result, read_run
from resjax.training.step import TrainState, initial_state, state_digest
from resjax.weights import Bare, load_weights


class Trained(NamedTuple):
    """The model and the newest state of a run."""

    experiment: Experiment
    classes: tuple[str, ...]
    model: Any
    state: TrainState

    def __repr__(self) -> str:
        return f"Trained({self.experiment}, {self.state})"

    @property
    def network(self) -> Network:
        """Return the network as a `Network`."""
        return network_of(self.experiment, self.classes, self.model, self.state)


def restore(run_directory: str | Path, device: jax.Device | None = None, *, model: Any = None) -> Trained:
    """Restore a run's newest checkpoint, or the final checkpoint of a finished run, to one device.

    Pass a custom `model` again, unless it is a `ResNet`, `VGG` or `ResidualMLP` without custom blocks. If the run has a
    custom optimizer, its state is not restored, and `state.opt_state` is None. Raises BadInput if there is no intact
    checkpoint, or if a finished run's `result.json` belongs to another checkpoint. Nothing in the run directory
    changes.
    """
    run_directory = expanded(run_directory)
    experiment, classes, image = read_run(run_directory)
    model = model_of(run_directory, experiment, len(classes), model)
    optimizer = build_optimizer(experiment.optimizer, experiment.steps)
    shapes = jax.eval_shape(lambda: initial_state(model, optimizer, jnp.zeros(image), experiment.seed))
    custom = "optimizer" in (read_descriptions(run_directory) or {})
    place = jax.sharding.SingleDeviceSharding(device or jax.local_devices()[0])
    state = restore_state(run_directory, experiment, shapes.replace(opt_state=None) if custom else shapes, place)
    return Trained(experiment, classes, model, state)


def restore_state(run_directory: Path, experiment: Run, shapes: Any, place: jax.sharding.Sharding) -> TrainState:
    """Restore the newest state of a run or, if it is finished, the state of its result. See `restore`."""
    result, found = read_result(run_directory), None
    if (run_directory / "checkpoints").is_dir():
        template = jax.tree.map(lambda x: x.update(sharding=place), shapes)
        found = read_latest(run_directory, template, result["steps"] if result else None)
    if found is None:
        first = min(experiment.checkpoint_steps, experiment.steps)
        raise BadInput(f"{run_directory}: no checkpoint yet; the first is saved at step {first}")
    state, meta = found
    check(result is None or state.opt_state is None or state_digest(state) == result["state_digest"],
          f"{run_directory}: its result.json belongs to another checkpoint; delete result.json and run the same "
          "command to evaluate again")
    averaged = meta.get("averaged", int(state.step) == experiment.steps)
    if experiment.optimizer.ema_decay and state.opt_state is not None and not averaged:
        tell(f"{run_directory}: not finished, so these are its current weights, not their moving average")
    return state


def load(target: str | Path, *, stride_in: StrideIn | None = None, shortcut: Bare | None = None,
         key: str | None = None) -> Network:
    """Load a network from a run directory, a weights file or the Hugging Face Hub, or one of resjax's own networks.

    `target` is a run directory, a weights file or its folder, the name of an included network ("resnet20"), or
    OWNER/NAME on the Hub. `stride_in` ("1x1" for v1, "3x3" for v1.5) and `shortcut` ("plain" or "A") state facts that
    the tensors do not show. They are needed only if an error asks for them. `key` is the name of the set of weights to
    use, if a file contains several, such as raw and averaged weights. A network without its last layer has 0 classes,
    but computes features and can be fine-tuned. Raises BadInput if the weights are missing or damaged, or if they do
    not belong to a network of the paper.
    """
    if (run_directory := expanded(target)).joinpath("experiment.json").is_file():
        check(key is None, f"{run_directory}: a run has only one set of weights; omit --key")
        return restore(run_directory).network
    return load_weights(target, stride_in=stride_in, shortcut=shortcut, key=key)


def load_weights_for(experiment: Experiment) -> Network:
    """Load the weights that `experiment.initialize_from` names. Raises BadInput if they do not fit the experiment."""
    wanted, std = experiment.architecture, experiment.data.std
    shortcut: Bare = "plain" if wanted.shortcut == "plain" else "A"
    network = load(experiment.initialize_from, stride_in=wanted.stride_in, shortcut=shortcut)
    title, network_std = network.title, network.preprocessing.std
    check(title == wanted.title() and len(network_std) == len(std) and np.allclose(network_std, std),
          f"initialize-from: {experiment.initialize_from} contains {title} with std {network_std}, but "
          f"{experiment.name} needs {wanted.title()} with data.std {std}")
    return network


def initialize_from(network: Network, first: TrainState, classes: tuple[str, ...], log: Log,
                    optimizer: optax.GradientTransformation | None = None) -> TrainState:
    """Copy a network's weights and mean image to an initial state, on its devices.

    A custom `optimizer` starts from the weights, because its state may contain parameters. The last layer is
    initialised at random if the classes differ. Raises BadInput if the numbers of colour channels differ.
    """
    colours, wanted = network.preprocessing.image_shape[-1], first.mean.shape[-1]
    check(colours == wanted, f"initialize-from: {network.name} needs images with {colours} channels, but these have "
                             f"{wanted}")
    known, wanted_names = ([*map(composed, names)] for names in (network.classes, classes))
    same = known == wanted_names or (not known and network.outputs == len(classes))
    params = dict(network.variables["params"]) | ({} if same else {"fc": first.params["fc"]})
    mean = np.asarray(jax.image.resize(network.mean, first.mean.shape, "linear"))
    log.tell(f"starts from {network.name}{'' if same else '; the last layer is initialised at random'}")

    def place(new: object, old: jax.Array) -> jax.Array:
        placed: jax.Array = jax.device_put(np.array(jax.device_get(new)), old.sharding)
        return placed

    state = first.replace(params=jax.tree.map(place, params, first.params), mean=place(mean, first.mean),
                          batch_stats=jax.tree.map(place, network.variables["batch_stats"], first.batch_stats))
    if optimizer is None:
        return state
    return state.replace(opt_state=jax.jit(optimizer.init, out_shardings=first.step.sharding)(state.params))
