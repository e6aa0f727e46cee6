"""What of a run is one's own, given in Python instead of by its experiment: network, images, optimizer, a callback."""

import ast
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import optax
from flax import linen as nn

from resjax.data import Dataset, of_run, with_validation
from resjax.experiment import Experiment, Photographs
from resjax.models import VGG, ResidualMLP, ResNet
from resjax.network import Network
from resjax.system.errors import BadInput, check
from resjax.system.serialization import check_ghosts, check_value, shortly
from resjax.training.log import Line
from resjax.training.optimizer import sgd
from resjax.training.run_directory import check_images, read_given
from resjax.training.step import TrainState

Callback = Callable[[Line, Network], Mapping[str, float] | None]
REBUILT = {kind.__name__: kind for kind in (ResNet, ResidualMLP, VGG)}  # their fields are all that there is to know


@dataclass(frozen=True)
class Own:
    """What is given in Python; None: as the experiment says. See `resjax.train`."""

    model: nn.Module | None = None
    data: Dataset | None = None
    optimizer: optax.GradientTransformation | None = None
    callback: Callback | None = None

    def model_for(self, experiment: Experiment, classes: int) -> nn.Module:
        """Return the network to train. Raises BadInput where its groups for batch norm do not divide the batch."""
        if self.model is None:
            return experiment.architecture.model(classes)
        if group := getattr(self.model, "ghost_batch_size", None):
            check_ghosts(experiment.batch_size, group, "ghost-batch-size")
        return self.model

    def optimizer_for(self, experiment: Experiment) -> optax.GradientTransformationExtraArgs:
        """Return the optimizer."""
        return sgd(experiment.optimizer) if self.optimizer is None else optax.with_extra_args_support(self.optimizer)

    def told(self, state: TrainState | None = None) -> dict[str, str]:
        """Say for `experiment.json` what was given: the network by its fields, of an optimizer what it keeps."""
        told = {} if self.model is None else {"model": shortly(self.model)}
        if self.optimizer is not None:
            parts = re.findall(r"namedtuple\[(\w+?)(?:State)?\]", str(jax.tree.structure(state and state.opt_state)))
            names = ", ".join(dict.fromkeys(part for part in parts if part != "Empty")) or "an optimizer"
            told["optimizer"] = f"{names}: given in Python, its values are not kept here"
        return told


NOTHING = Own()


def prepared(experiment: Experiment, run_directory: Path, own: Own) -> tuple[Experiment, Own]:
    """Say in a run's values that its images are given, and hold some of them out for validation if it is to.

    Raises BadInput where the folder holds the run of another network, of other images or of an optimizer, and names
    what is to be given again.
    """
    if (data := own.data) is not None:
        if isinstance(experiment.data, Photographs):
            raise BadInput("data is given in Python: write its values as data=resjax.Data(...), not Photographs")
        values = replace(experiment.data, source="arrays")
        experiment, data = replace(experiment, data=values), with_validation(values, data)
        check_images(run_directory, experiment, data.identity())
        own = replace(own, data=data)
    check(own.model is None or not experiment.initialize_from, "initialize-from starts the networks of the paper; "
                                                               "model= is one's own")
    if (before := read_given(run_directory)) is not None:
        now = own.told()
        for part, same in (("model", before.get("model") == now.get("model")),
                           ("optimizer", ("optimizer" in before) == ("optimizer" in now))):
            there, here = (given.get(part, "the one of its experiment") for given in (before, now))
            check(same, f"{run_directory}: its {part} is {there}, and here {here}: give {part}= as it was, or choose "
                        "another folder")
    return experiment, own


def model_of(run_directory: Path, experiment: Experiment, classes: int, given: nn.Module | None) -> Any:
    """Return the network of a run. Raises BadInput where it was one's own, and has to be given again."""
    told = (read_given(run_directory) or {}).get("model")
    if given is None:
        return experiment.architecture.model(classes) if told is None else rebuilt(run_directory, told)
    check(shortly(given) == told, f"{run_directory}: its network is {told or 'the one of its experiment'}, here "
                                  f"{shortly(given)}")
    return given


def rebuilt(run_directory: Path, told: str) -> Any:
    """Build one of our networks from what is told of it. Raises BadInput for any other."""
    try:
        call = ast.parse(told, mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        kind: Any = REBUILT[call.func.id]
        fields = {word.arg or "": ast.literal_eval(word.value) for word in call.keywords}
        hints = typing.get_type_hints(kind)
        for name, value in fields.items():
            check_value(f"model.{name}", value, hints[name])
        return kind(**fields)
    except (AssertionError, KeyError, TypeError, ValueError, SyntaxError, RecursionError, MemoryError):
        raise BadInput(f"{run_directory}: its network was given in Python, {told}: give it again, "
                       f"resjax.restore({str(run_directory)!r}, model=...)") from None


def network_of(experiment: Experiment, classes: tuple[str, ...], model: Any, state: TrainState) -> Network:
    """Return a run's network as a value; it is one's own where its architecture makes another."""
    paper = experiment.architecture if experiment.architecture.model(len(classes)) == model else None
    return Network(f"{experiment.name}, step {state.step}", paper, experiment.data, classes, model, state.variables,
                   of_run(experiment.data, state.mean))
