"""What of a run is one's own, given in Python instead of by its experiment: network, images, optimizer, a callback."""

import ast
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.tree_util import keystr, tree_flatten_with_path

from resjax.data import Dataset, of_run, with_validation
from resjax.experiment import Data, Experiment, Photographs
from resjax.models import VGG, ResidualMLP, ResNet
from resjax.models.resnet import PARTS
from resjax.models.variants import Block
from resjax.network import Network
from resjax.system.errors import BadInput, check
from resjax.system.serialization import brief, check_ghosts, check_value, shortly
from resjax.training.log import Line
from resjax.training.optimizer import build_optimizer
from resjax.training.run_directory import check_images, read_given
from resjax.training.step import Augment, Loss, TrainState, initial_state

Callback = Callable[[Line, Network], Mapping[str, float] | None]
REBUILT = {kind.__name__: kind for kind in (ResNet, ResidualMLP, VGG)}  # their fields are all that there is to know


@dataclass(frozen=True)
class Own:
    """What is given in Python; None: as the experiment says. See `resjax.train`."""

    model: nn.Module | None = None
    data: Dataset | None = None
    optimizer: optax.GradientTransformation | None = None
    callback: Callback | None = None
    loss: Loss | None = None
    augment: Augment | None = None

    def model_for(self, experiment: Experiment, classes: int) -> nn.Module:
        """Return the network to train. Raises BadInput where its groups for batch norm do not divide the batch."""
        if self.model is None:
            return experiment.architecture.model(classes)
        if group := getattr(self.model, "ghost_batch_size", None):
            check_ghosts(experiment.batch_size, group, "ghost-batch-size")
        return self.model

    def check_outputs(self, experiment: Experiment, image: tuple[int, ...], classes: int) -> None:
        """Raise BadInput where a network of one's own has fewer outputs than there are classes, or cannot be saved."""
        if self.model is None:
            return
        model, images = self.model, jax.ShapeDtypeStruct((experiment.batch_size, *image), jnp.float32)
        state = jax.eval_shape(partial(initial_state, model, self.optimizer_for(experiment)), jnp.zeros(image), 0)
        logits, _ = jax.eval_shape(partial(model.apply, train=True, mutable=["batch_stats"]), state.variables, images,
                                   rngs={"dropout": jax.random.key(0)})
        shape = getattr(logits, "shape", type(logits).__name__)
        check(isinstance(shape, tuple) and len(shape) == 2 and shape[0] == images.shape[0] and shape[1] >= classes,
              f"model gives {shape} of images {images.shape}; it gives logits [{images.shape[0]}, {classes}], as there "
              f"are {classes} classes")
        paths = [keystr(path, simple=True, separator=".") for path, _ in tree_flatten_with_path(state.variables)[0]]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        check(twice is None, f"model: two of its arrays would be saved as {twice!r}: call one by a name without dots")

    def check_functions(self, experiment: Experiment, image: tuple[int, ...], classes: int) -> None:
        """Raise BadInput where a loss or an augmentation of one's own returns arrays of another form."""
        size = experiment.batch_size
        images = jax.ShapeDtypeStruct((size, *image), jnp.float32)
        labels: Any = jax.ShapeDtypeStruct((size,), jnp.int32)
        outputs = getattr(self.model, "classes", classes)
        if self.augment is not None:
            told = jax.eval_shape(self.augment, jax.random.key(0), images, labels)
            shapes = [getattr(part, "shape", None) for part in told] if isinstance(told, tuple) else brief(told)
            check(shapes in ([images.shape, (size,)], [images.shape, (size, outputs)]),
                  f"augment gives {shapes}; it gives images {images.shape} and labels ({size},) or ({size}, {outputs})")
            labels = told[1]
        if self.loss is not None:
            losses = jax.eval_shape(self.loss, jax.ShapeDtypeStruct((size, outputs), jnp.float32), labels)
            check(getattr(losses, "shape", None) == (size,), f"loss gives {brief(losses)}; it gives one loss for each "
                                                             f"image, ({size},), and not their mean")

    def optimizer_for(self, experiment: Experiment) -> optax.GradientTransformationExtraArgs:
        """Return the optimizer."""
        if self.optimizer is None:
            return build_optimizer(experiment.optimizer, experiment.steps)
        return optax.with_extra_args_support(self.optimizer)

    def told(self, state: TrainState | None = None) -> dict[str, str]:
        """Say for `experiment.json` what was given: the network by its fields, of an optimizer what it keeps."""
        told = {} if self.model is None else {"model": shortly(self.model)}
        if self.optimizer is not None:
            parts = re.findall(r"namedtuple\[(\w+?)(?:State)?\]", str(jax.tree.structure(state and state.opt_state)))
            names = ", ".join(dict.fromkeys(part for part in parts if part != "Empty")) or "an optimizer"
            told["optimizer"] = f"{names}: given in Python, its values are not kept here"
        return told | {part: called(function) for part, function in (("loss", self.loss), ("augment", self.augment))
                       if function is not None}


def called(function: Any) -> str:
    """Name a function by its file, or a value such as `Mixup` by its fields; the same name for the same function."""
    if isinstance(function, partial):
        given = [*map(repr, function.args), *(f"{key}={value!r}" for key, value in function.keywords.items())]
        return f"partial({', '.join([called(function.func), *given])})"
    if is_dataclass(function) and not isinstance(function, type):
        return shortly(function)
    code = getattr(function, "__code__", None)
    return f"{Path(code.co_filename).name}:{function.__qualname__}" if code else type(function).__qualname__


NOTHING = Own()


def check_kinds(own: Own) -> None:
    """Raise BadInput, in a line, where something else is given than a network, an optimizer, images or a function."""
    model, optimizer, data, callback = own.model, own.optimizer, own.data, own.callback
    check(model is None or isinstance(model, nn.Module),
          f"model is {brief(model)}; it is a network of Flax Linen (flax.linen.Module), such as "
          "resjax.cifar_resnet(20)" + ", an instance and not its class" * isinstance(model, type))
    if model is not None:
        arguments = inspect.signature(type(model).__call__).parameters.values()
        check(any(a.name == "train" or a.kind is a.VAR_KEYWORD for a in arguments),
              f"model: {type(model).__name__}.__call__ takes no train; it is called as model(images, train=True) in "
              "training, and without in testing")
        if type(model) in REBUILT.values():
            hints = hints_of(type(model))
            for name in type(model).__annotations__.keys() - {"parent", "name"}:
                if name == "block" and callable(model.block):
                    check_block(model.block)
                else:
                    check_value(f"model.{name}", getattr(model, name), hints[name])
    check(optimizer is None or all(callable(getattr(optimizer, part, None)) for part in ("init", "update")),
          f"optimizer is {brief(optimizer)}; it is one of optax, such as optax.sgd(0.1)")
    check(data is None or isinstance(data, Dataset),
          f"data is {brief(type(data))}; it is resjax.dataset((pixels, labels), (test pixels, test labels))")
    check(callback is None or callable(callback),
          f"callback is {brief(callback)}; it is a function of a line of the log and a network")
    check(own.loss is None or callable(own.loss), f"loss is {brief(own.loss)}; it is a function of logits and labels")
    check(own.augment is None or callable(own.augment),
          f"augment is {brief(own.augment)}; it is a function of a key, images and labels")


def hints_of(kind: type) -> dict[str, Any]:
    """Return the types of the fields of one of our networks that can be written down: of a block, its name."""
    return typing.get_type_hints(kind) | {"block": Block}


def check_block(block: Any) -> None:
    """Raise BadInput where a block of one's own is no module with the fields that a stage and a network give it."""
    kind = block
    while isinstance(kind, partial):
        kind = kind.func
    module = isinstance(kind, type) and issubclass(kind, nn.Module)
    missing = [part for part in PARTS if not module or part not in kind.__dataclass_fields__]
    check(not missing, f"model.block is {brief(block)}; it is 'basic', 'bottleneck', or a module of Flax Linen with "
                       f"the fields {', '.join(PARTS)} ({', '.join(missing)} missing)")
    check("train" in inspect.signature(kind.__call__).parameters,
          f"model.block: {kind.__name__}.__call__ takes no train; a stage calls it as block(x, train=train)")


def numbers(told: Any) -> dict[str, float]:
    """Return the numbers that a callback tells. Raises BadInput where it returns anything else, but for nothing."""
    try:
        return {str(key): float(value) for key, value in (told or {}).items()}
    except (AttributeError, TypeError, ValueError):
        raise BadInput(f"callback returned {brief(told)}; it returns numbers by their names, or nothing") from None


def check_arrays(values: Data, data: Dataset) -> None:
    """Raise BadInput where arrays of one's own are of another size than the experiment says, or of other channels."""
    height, width, channels = data.train.pixels.shape[1:]
    check(values.size is None or (height, width) == (values.size, values.size),
          f"data.size is {values.size}, and the arrays that are given are {height}x{width}: they are not resized; "
          "leave it out, or resize them")
    check(len(values.std) in (0, channels), f"data.std has {len(values.std)} values, and the arrays that are given "
                                            f"have {channels} channels")


def prepared(experiment: Experiment, run_directory: Path, own: Own) -> tuple[Experiment, Own]:
    """Say in a run's values that its images are given, and hold some of them out for validation if it is to.

    Raises BadInput where the folder holds the run of another network, of other images or of an optimizer, and names
    what is to be given again.
    """
    check(isinstance(experiment, Experiment), f"experiment is {brief(experiment)}; it is a resjax.Experiment")
    check_kinds(own)
    if (data := own.data) is not None:
        if isinstance(experiment.data, Photographs):
            raise BadInput("data is given in Python: write its values as data=resjax.Data(...), not Photographs")
        check_arrays(experiment.data, data)
        values = replace(experiment.data, source="arrays")
        experiment, data = replace(experiment, data=values), with_validation(values, data)
        check_images(run_directory, data.identity())
        own = replace(own, data=data)
    check(own.model is None or not experiment.initialize_from, "initialize-from starts the networks of the paper; "
                                                               "model= is one's own")
    if (before := read_given(run_directory)) is not None:
        now = own.told()
        for part, same in (("model", before.get("model") == now.get("model")),
                           ("optimizer", ("optimizer" in before) == ("optimizer" in now)),
                           *((part, before.get(part) == now.get(part)) for part in ("loss", "augment"))):
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
        hints = hints_of(kind)
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
