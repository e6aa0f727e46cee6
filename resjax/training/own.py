"""Builds custom networks and optimizers, and checks all custom parts of a run before anything is compiled."""

import inspect
import typing
from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.errors import FlaxError
from jax.tree_util import keystr, tree_flatten_with_path

from resjax.experiment import Experiment, Own
from resjax.models import VGG, ResidualMLP, ResNet
from resjax.models.families import Block
from resjax.models.resnet import PARTS
from resjax.network import Network
from resjax.system.errors import BadInput, check
from resjax.system.serialization import brief, check_ghosts, check_value
from resjax.training.log import Line
from resjax.training.optimizer import build_optimizer
from resjax.training.own_optimizer import adapted, check_state
from resjax.training.packing import most_unstacked
from resjax.training.step import MakeBatch, OwnBatch, TrainState, initial_state
from resjax.training.user_code import asked, traced

Callback = Callable[[Line, Network], Mapping[str, float] | None]
REBUILT = {kind.__name__: kind for kind in (ResNet, ResidualMLP, VGG)}  # networks that their fields describe fully


def model_for(experiment: Experiment, classes: int) -> nn.Module:
    """Return the network to train. Raises BadInput if its batch-norm groups do not divide the batch."""
    model: Any = made(experiment, experiment.own.model, classes)
    if model is None:
        return experiment.architecture.model(classes)
    if group := getattr(model, "ghost_batch_size", None):
        check_ghosts(experiment.batch_size, group, "ghost-batch-size")
    network: nn.Module = model
    return network


def made(experiment: Experiment, model: Any, classes: int) -> Any:
    """Return a network that is given directly or that a function builds. Raises BadInput for anything else."""
    if model is None or isinstance(model, nn.Module):
        return model
    model = asked("model", model, experiment, classes)
    check_model(model)
    return model


def optimizer_for(experiment: Experiment) -> optax.GradientTransformationExtraArgs:
    """Return the optimizer. Raises BadInput if a function that should build it returns something else."""
    optimizer = experiment.own.optimizer
    if optimizer is None:
        return build_optimizer(experiment.optimizer, experiment.steps)
    if not is_optimizer(optimizer):
        optimizer = asked("optimizer", optimizer, experiment)
        check(is_optimizer(optimizer), f"the function optimizer returned {brief(optimizer)}; it must return an optax "
                                       "optimizer")
    return adapted(optimizer)


def is_optimizer(value: Any) -> bool:
    """Return whether a value is an Optax optimizer, rather than a function that builds one."""
    return all(callable(getattr(value, part, None)) for part in ("init", "update"))


def first_state(experiment: Experiment, image: tuple[int, ...], classes: int) -> TrainState:
    """Return the shapes of a run's state before the first step."""
    first = partial(initial_state, model_for(experiment, classes), optimizer_for(experiment))
    shapes: TrainState = jax.eval_shape(first, jax.ShapeDtypeStruct(image, jnp.float32), 0)
    return shapes


def batch_for(experiment: Experiment, batch: MakeBatch) -> MakeBatch:
    """Return the function that makes batches, including a custom augmentation, and that carries a custom loss."""
    own = experiment.own
    changed: MakeBatch = OwnBatch(batch, own.augment, own.loss) if own.augment or own.loss else batch
    return changed


def most_blocks_apart(experiment: Experiment, model: nn.Module) -> int:
    """Return the largest number of blocks per stage that `packing.pack` may separate: 0 for a custom optimizer."""
    return 0 if experiment.own.optimizer is not None else most_unstacked(model)


def check_parts(experiment: Experiment, image: tuple[int, ...], classes: int) -> None:
    """Raise BadInput if a custom network, function or optimizer does not work for images of shape `image`."""
    check_outputs(experiment, image, classes)
    check_functions(experiment, image, classes)
    check_optimizer(experiment, image, classes)


def check_outputs(experiment: Experiment, image: tuple[int, ...], classes: int) -> None:
    """Raise BadInput if a custom network does not have one output per class, or if it cannot be saved."""
    if experiment.own.model is None:
        return
    model, images = model_for(experiment, classes), jax.ShapeDtypeStruct((experiment.batch_size, *image), jnp.float32)
    first = partial(initial_state, model, optax.identity())
    state = asked("model", jax.eval_shape, first, jax.ShapeDtypeStruct(image, jnp.float32), 0)
    train = partial(model.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
    try:
        logits, _ = asked("model", jax.eval_shape, train, state.variables, images)
        tested = asked("model", jax.eval_shape, model.apply, state.variables, images)
    except BadInput as error:
        if not isinstance(error.__cause__, FlaxError):
            raise
        raise BadInput(f"{error}; a network can use the random stream 'dropout', in training only, and the collections "
                       "'params' and 'batch_stats'") from error
    for outputs in (logits, tested):
        shape = getattr(outputs, "shape", type(outputs).__name__)
        check(shape == (images.shape[0], classes),
              f"model returned {shape} for images {images.shape}; it must return logits ["
              f"{images.shape[0]}, {classes}], because there are {classes} classes")
    paths = [keystr(path, simple=True, separator=".") for path, _ in tree_flatten_with_path(state.variables)[0]]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    check(twice is None, f"model: two of its arrays would be saved as {twice!r}; give them names without dots")


def check_functions(experiment: Experiment, image: tuple[int, ...], classes: int) -> None:
    """Raise BadInput if the user's loss or augmentation returns arrays of the wrong shape or type."""
    size, own = experiment.batch_size, experiment.own
    images = jax.ShapeDtypeStruct((size, *image), jnp.float32)
    labels: Any = jax.ShapeDtypeStruct((size,), jnp.int32)
    if own.augment is not None:
        results = traced("augment", own.augment, jax.random.key(0), images, labels)
        shapes = [getattr(part, "shape", None) for part in results] if isinstance(results, tuple) else brief(results)
        check(shapes in ([images.shape, (size,)], [images.shape, (size, classes)]),
              f"augment returned {shapes}; it must return images {images.shape} and labels ({size},) or ({size}, "
              f"{classes})")
        labels = results[1]
        check(jnp.issubdtype(results[0].dtype, jnp.floating),
              f"augment returned images of {results[0].dtype}; they must be floating-point numbers")
        check(jnp.issubdtype(labels.dtype, jnp.integer if labels.ndim == 1 else jnp.number),
              f"augment returned labels {labels.shape} of {labels.dtype}; they must be integers ({size},) or "
              f"probabilities ({size}, {classes})")
    if own.loss is not None:
        losses = traced("loss", own.loss, jax.ShapeDtypeStruct((size, classes), jnp.float32), labels)
        check(getattr(losses, "shape", None) == (size,), f"loss returned {brief(losses)}; it must return one loss "
                                                         f"per image, ({size},), not their mean")
        check(jnp.issubdtype(losses.dtype, jnp.floating),
              f"loss returned {losses.dtype}, which has no gradient; it must return floating-point numbers")


def check_optimizer(experiment: Experiment, image: tuple[int, ...], classes: int) -> None:
    """Raise BadInput if a custom optimizer fails with the arguments that resjax gives, or is of a kind that it cannot
    evaluate.
    """
    if experiment.own.optimizer is None:
        return
    update, number = optimizer_for(experiment).update, jnp.float32(0)
    try:
        state = asked("optimizer", first_state, experiment, image, classes)
        asked("optimizer", jax.eval_shape, partial(update, value=number, error=number), state.params, state.opt_state,
              state.params)
    except BadInput as error:
        raise BadInput(f"{error}. resjax calls init(params) and update(gradients, state, params, value=loss), so optax."
                       "lbfgs and optax.lookahead do not work; masks must be functions of the parameters") from error
    moving = state.batch_stats and not experiment.architecture.frozen_batch_norm
    check_state(state.opt_state, bool(moving), experiment.precise_batch_norm_steps)


def check_kinds(own: Own) -> None:
    """Raise BadInput if an object is not a network, an optimizer or a function where one is expected."""
    if own.model is not None and not isinstance(own.model, FunctionType | partial):
        check_model(own.model)
    for part in ("optimizer", "loss", "augment"):
        check_hashable(part, getattr(own, part))
    optimizer = own.optimizer
    makes = callable(optimizer) and not str(getattr(optimizer, "__module__", "")).startswith("optax")
    check(optimizer is None or is_optimizer(optimizer) or makes,
          f"optimizer is {brief(optimizer)}; it must be an optax optimizer, such as optax.sgd(0.1), or a function of "
          "the run that returns one")
    for part, wanted in (("callback", "a function of a line of the log and a network"),
                         ("loss", "a function of logits and labels"),
                         ("augment", "a function of a key, images and labels")):
        function = getattr(own, part)
        check(function is None or callable(function), f"{part} is {brief(function)}; it must be {wanted}")
    if inspect.isfunction(own.callback):
        asked("callback", inspect.signature(own.callback).bind, {}, None)


def check_hashable(part: str, value: Any) -> None:
    """Raise BadInput if Python cannot hash an object, because JAX then cannot keep the programs compiled with it."""
    try:
        hash(value)
    except TypeError:
        raise BadInput(f"{part} is a {type(value).__name__} that cannot be hashed; a dataclass needs frozen=True, and "
                       "its fields must be numbers, strings, tuples or functions") from None


def check_model(model: Any) -> None:
    """Raise BadInput if a value is not a network, cannot be called like one, or has fields of wrong types."""
    check(isinstance(model, nn.Module),
          f"model is {brief(model)}; it must be a Flax Linen module (flax.linen.Module), such as "
          "resjax.cifar_resnet(20), or a function of a run and its classes that returns one"
          + "; pass an instance, not the class" * isinstance(model, type))
    check_hashable("model", model)
    arguments = inspect.signature(type(model).__call__).parameters.values()
    check(any(a.name == "train" or a.kind is a.VAR_KEYWORD for a in arguments),
          f"model: {type(model).__name__}.__call__ must accept train; training calls model(images, train=True), and "
          "evaluation model(images)")
    hints = hints_of(type(model)) if type(model) in REBUILT.values() else {}
    for name in hints.keys() & type(model).__annotations__.keys() - {"parent", "name"}:
        if name == "block" and callable(model.block):
            check_block_type(model.block)
        else:
            check_value(f"model.{name}", getattr(model, name), hints[name])


def hints_of(kind: type) -> dict[str, Any]:
    """Return the types of the fields of one of our networks that JSON can store; custom blocks are stored by name."""
    return typing.get_type_hints(kind) | {"block": Block}


def check_block_type(block: Any) -> None:
    """Raise BadInput if a custom block is not a module with the fields that stage and network set."""
    kind = block
    while isinstance(kind, partial):
        kind = kind.func
    module = isinstance(kind, type) and issubclass(kind, nn.Module)
    missing = [part for part in PARTS if not module or part not in kind.__dataclass_fields__]
    check(not missing, f"model.block is {brief(block)}; it must be 'basic', 'bottleneck', or a Flax Linen module with "
                       f"the fields {', '.join(PARTS)} ({', '.join(missing)} missing)")
    check("train" in inspect.signature(kind.__call__).parameters,
          f"model.block: {kind.__name__}.__call__ must accept train; a stage calls block(x, train=train)")


def callback_numbers(returned: Any) -> dict[str, float]:
    """Return the numbers that a callback returns. Raises BadInput if it returns anything other than numbers or None."""
    try:
        numbers = {str(key): float(value) for key, value in (returned or {}).items()}
    except (AttributeError, TypeError, ValueError):
        raise BadInput(f"callback returned {brief(returned)}; it must return a dict of names and numbers, or "
                       "None") from None
    check(not numbers.keys() & {"step", "kind"},
          f"callback returned {brief(returned)}; step and kind are reserved names, so choose others")
    return numbers
