"""The train state, arrays only; one update of the parameters, pure; many in one call; and precise batch norm.

With the experiment the state decides every later bit, so it is the checkpoint.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax import lax

from resjax.data import Batch
from resjax.models.batch_norm import BatchNorm
from resjax.models.stacking import stack
from resjax.training.learning_rate import learning_rate


class TrainState(struct.PyTreeNode):
    """What changes from step to step, and the two arrays that stay: the data's key and mean image."""

    step: jax.Array
    key: jax.Array
    mean: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any

    def __repr__(self) -> str:
        parameters = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return f"TrainState(step {self.step}, {parameters:,} parameters)"

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


MakeBatch = Callable[[TrainState, Any], Batch]  # pure: it lies inside the compiled step
Loss = Callable[[jax.Array, jax.Array], jax.Array]  # of logits [batch, classes] and labels: [batch]
Augment = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]  # key, images, labels


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the losses `[batch]`; `labels` are class indices `[batch]` or probabilities `[batch, classes]`."""
    losses: jax.Array = (optax.softmax_cross_entropy if labels.ndim == 2 else
                         optax.softmax_cross_entropy_with_integer_labels)(logits, labels)
    return losses


@dataclass(frozen=True)
class OwnBatch:
    """Makes batches as `make` does, changed by an augmentation of one's own, for a loss of one's own."""

    make: MakeBatch
    augment: Augment | None
    loss: Loss | None

    def __call__(self, state: TrainState, inputs: Any) -> Batch:
        batch = self.make(state, inputs)
        if self.augment is None:
            return batch
        key = jax.random.fold_in(jax.random.fold_in(state.key, 3), state.step)
        return Batch(*self.augment(key, batch.images, batch.labels))


def loss_of(make_batch: MakeBatch) -> Loss:
    """Return the loss that goes with the batches: the cross-entropy, unless there is one's own."""
    return (make_batch.loss if isinstance(make_batch, OwnBatch) else None) or cross_entropy


def initial_state(model: nn.Module, optimizer: optax.GradientTransformation, mean: Any,
                  seed: int | jax.Array) -> TrainState:
    """Draw the parameters; `mean` is the mean image `[height, width, channels]` of the training data."""
    model_key, data_key = jax.random.split(jax.random.key(seed))
    variables: Any = model.init(model_key, jnp.zeros((1, *np.shape(mean))))
    return state_of(variables, optimizer, mean, data_key)


def state_of(variables: Any, optimizer: optax.GradientTransformation, mean: Any, key: jax.Array) -> TrainState:
    """Make the state before the first step with these parameters and batch statistics; `key` is the data's."""
    params = variables["params"]
    return TrainState(jnp.int32(0), key, jnp.asarray(mean), params, variables.get("batch_stats", {}),
                      optimizer.init(params))


def draw_state(sharding: jax.sharding.Sharding, model: nn.Module, optimizer: optax.GradientTransformation, mean: Any,
               seed: int | jax.Array) -> TrainState:
    """Draw the first state onto devices, also those of other processes."""
    device: Any = next(iter(sharding.device_set))
    state: TrainState = state_drawer(device.platform)(sharding, model, optimizer, mean, seed)
    return state


@cache
def state_drawer(platform: str) -> Any:
    """Return the program that draws a state.

    It runs once. On CPU LLVM would optimise it for longer than a training step: 8.2 s for 26 layers, and 3.4 s by its
    first level, with the same bits.
    """

    def drawn(sharding: jax.sharding.Sharding, model: nn.Module, optimizer: optax.GradientTransformation, mean: Any,
              seed: int | jax.Array) -> Any:
        return lax.with_sharding_constraint(initial_state(model, optimizer, mean, seed), sharding)

    return jax.jit(drawn, static_argnums=(0, 1, 2),
                   compiler_options={"xla_backend_optimization_level": 1} if platform == "cpu" else None)


class Metrics(NamedTuple):
    """Sums over a batch: of the losses, of the wrong predictions, of the images; and the rate of the update."""

    loss: jax.Array
    wrong: jax.Array
    images: jax.Array
    learning_rate: jax.Array


def train_step(model: nn.Module, optimizer: optax.GradientTransformationExtraArgs, state: TrainState,
               batch: Batch, loss_function: Loss = cross_entropy) -> tuple[TrainState, Metrics]:
    """Descend once along the gradient of the mean loss. `state.params` may hold its stages as lists of blocks.

    An image with probabilities for its label is wrong where the likeliest classes differ.
    """

    def mean_loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Any]]:
        logits, updated = model.apply({"params": stack(params), "batch_stats": state.batch_stats}, batch.images,
                                      train=True, mutable=["batch_stats"], rngs=dropout(state))
        losses = loss_function(logits, batch.labels)
        wrong = logits.argmax(-1) != (batch.labels.argmax(-1) if batch.labels.ndim == 2 else batch.labels)
        return losses.mean(), (losses.sum(), wrong.sum(), updated.get("batch_stats", {}))

    gradients, (loss, wrong, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
    images = len(batch.labels)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, error=100 * wrong / images)
    state = state.replace(step=state.step + 1, params=optax.apply_updates(state.params, updates),
                          batch_stats=batch_stats, opt_state=opt_state)
    return state, Metrics(loss, wrong, jnp.int32(images), learning_rate(optimizer, opt_state))


def dropout(state: TrainState) -> dict[str, jax.Array]:
    """Give the key by which a network of one's own may drop units out in the state's step."""
    return {"dropout": jax.random.fold_in(jax.random.fold_in(state.key, 2), state.step)}


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def train_steps(model: nn.Module, optimizer: optax.GradientTransformationExtraArgs, make_batch: MakeBatch, count: int,
                state: TrainState, inputs: Any) -> tuple[TrainState, Metrics]:
    """Make `count` steps in one call; the metrics come with a leading axis `[count]`."""

    def step(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return train_step(model, optimizer, state, make_batch(state, inputs), loss_of(make_batch))

    return repeated(step, state, count)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def add_batch_statistics(model: nn.Module, make_batch: MakeBatch, count: int, state: TrainState, sums: Any,
                         inputs: Any) -> Any:
    """Add to `sums` the own statistics of the `count` batches from the state's step on, of every known batch norm."""

    def add(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], None]:
        step, sums = carry
        here = state.replace(step=step)
        with nn.intercept_methods(without_memory):
            _, updated = model.apply(state.variables, make_batch(here, inputs).images, train=True,
                                     mutable=["batch_stats"], rngs=dropout(here))
        return (step + 1, jax.tree.map(jnp.add, sums, updated["batch_stats"])), None

    (_, sums), _ = repeated(add, (state.step, sums), count)
    return sums


def without_memory(method: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    """Call a module's method; a batch norm, Flax's or ours, then keeps the statistics of this batch alone."""
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, BatchNorm | nn.BatchNorm):
        return method(*args, **kwargs)
    momentum = module.momentum
    object.__setattr__(module, "momentum", 0.0)  # around Flax, which lets nobody change the field of a module
    try:
        return method(*args, **kwargs)
    finally:
        object.__setattr__(module, "momentum", momentum)


def repeated(step: Callable[[Any, None], tuple[Any, Any]], carry: Any, count: int) -> tuple[Any, Any]:
    """Scan over `count` steps; one alone is no loop, as XLA compiles the body of one less freely."""
    if count > 1:
        return lax.scan(step, carry, length=count)
    carry, found = step(carry, None)
    return carry, jax.tree.map(lambda x: x[None], found)


def named_leaves(tree: Any) -> list[tuple[str, np.ndarray]]:
    """List the arrays of a tree, on the host, by path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]


def state_digest(state: TrainState) -> str:
    """Hash parameters, batch statistics and optimiser state: SHA-256 over names, types, shapes and bytes."""
    sha = hashlib.sha256()
    leaves = named_leaves((state.params, state.batch_stats, state.opt_state))
    for name, leaf in sorted(leaves, key=lambda pair: pair[0]):
        sha.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()
