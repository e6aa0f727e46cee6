"""Defines the training state (arrays only), pure functions for one or many updates, and precise batch norm.

Together with the experiment, the state determines all later results bit for bit. A checkpoint of the state is therefore
enough to resume a run exactly.
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
from resjax.models import ResNet
from resjax.models.batch_norm import BatchNorm
from resjax.models.stacking import stack
from resjax.training.learning_rate import learning_rate


class TrainState(struct.PyTreeNode):
    """The state that changes from step to step, and two constant arrays, the data key and the mean image."""

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
        """The variables for `model.apply`."""
        return {"params": self.params, "batch_stats": self.batch_stats}


MakeBatch = Callable[[TrainState, Any], Batch]  # pure, since it is part of the compiled step
Loss = Callable[[jax.Array, jax.Array], jax.Array]  # of logits [batch, classes] and labels: [batch]
Augment = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]  # key, images, labels


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the losses `[batch]`; `labels` are class indices `[batch]` or probabilities `[batch, classes]`."""
    losses: jax.Array = (optax.softmax_cross_entropy if labels.ndim == 2 else
                         optax.softmax_cross_entropy_with_integer_labels)(logits, labels)
    return losses


@dataclass(frozen=True)
class OwnBatch:
    """Makes batches with `make` and then applies a custom augmentation. It also carries a custom loss."""

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
    """Return the loss function, which is the cross-entropy unless the batches carry a custom loss."""
    return (make_batch.loss if isinstance(make_batch, OwnBatch) else None) or cross_entropy


def initial_state(model: nn.Module, optimizer: optax.GradientTransformation, mean: Any,
                  seed: int | jax.Array) -> TrainState:
    """Initialise the parameters; `mean` is the mean image `[height, width, channels]` of the training data."""
    model_key, data_key = jax.random.split(jax.random.key(seed))
    variables: Any = model.init(model_key, jnp.zeros((1, *np.shape(mean))))
    return state_of(variables, optimizer, mean, data_key)


def state_of(variables: Any, optimizer: optax.GradientTransformation, mean: Any, key: jax.Array) -> TrainState:
    """Create the state before the first step from parameters and batch statistics; `key` is the data key."""
    params = variables["params"]
    return TrainState(jnp.int32(0), key, jnp.asarray(mean), params, variables.get("batch_stats", {}),
                      optimizer.init(params))


def draw_state(sharding: jax.sharding.Sharding, model: nn.Module, optimizer: optax.GradientTransformation, mean: Any,
               seed: int) -> TrainState:
    """Initialise a state on devices, including those of other processes."""
    device: Any = next(iter(sharding.device_set))
    state: TrainState = state_drawer(device.platform)(sharding, model, optimizer, mean, np.uint32(seed))
    return state


@cache
def state_drawer(platform: str) -> Any:
    """Return the program that initialises a state.

    The program runs only once, so its compile time matters. On CPU, LLVM's default optimisation level takes 8.2 s for
    26 layers, which is longer than for the program of a training step. Level 1 takes 3.4 s and gives the same bits.
    """

    def drawn(sharding: jax.sharding.Sharding, model: nn.Module, optimizer: optax.GradientTransformation, mean: Any,
              seed: jax.Array) -> Any:
        return lax.with_sharding_constraint(initial_state(with_loops(model), optimizer, mean, seed), sharding)

    return jax.jit(drawn, static_argnums=(0, 1, 2),
                   compiler_options={"xla_backend_optimization_level": 1} if platform == "cpu" else None)


class Metrics(NamedTuple):
    """The losses, wrong predictions and images, summed over a batch, and the learning rate of the update."""

    loss: jax.Array
    wrong: jax.Array
    images: jax.Array
    learning_rate: jax.Array


def train_step(model: nn.Module, optimizer: optax.GradientTransformationExtraArgs, state: TrainState,
               batch: Batch, loss_function: Loss = cross_entropy) -> tuple[TrainState, Metrics]:
    """Make one gradient step on the mean loss. `state.params` may hold stages as lists of blocks.

    For labels given as probabilities, a prediction is wrong if its most likely class differs from that of the label.
    """

    def mean_loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array, Any]]:
        logits, updated = model.apply({"params": stack(params), "batch_stats": state.batch_stats}, batch.images,
                                      train=True, mutable=["batch_stats"], rngs=dropout(state))
        logits = logits.astype(jnp.float32)  # custom networks may return bfloat16
        losses = loss_function(logits, batch.labels)
        wrong = logits.argmax(-1) != (batch.labels.argmax(-1) if batch.labels.ndim == 2 else batch.labels)
        return losses.mean(), (losses.sum(), wrong.sum(), updated.get("batch_stats", {}))

    (mean, (loss, wrong, batch_stats)), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
    images = len(batch.labels)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, value=mean,
                                          error=100 * wrong / images)
    state = state.replace(step=state.step + 1, params=optax.apply_updates(state.params, updates),
                          batch_stats=batch_stats, opt_state=opt_state)
    return state, Metrics(loss, wrong, jnp.int32(images), learning_rate(optimizer, opt_state))


def dropout(state: TrainState) -> dict[str, jax.Array]:
    """Return the random key for dropout in custom networks at the state's step."""
    return {"dropout": jax.random.fold_in(jax.random.fold_in(state.key, 2), state.step)}


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def train_steps(model: nn.Module, optimizer: optax.GradientTransformationExtraArgs, make_batch: MakeBatch, count: int,
                state: TrainState, inputs: Any) -> tuple[TrainState, Metrics]:
    """Make `count` steps in one call. The metrics have a leading axis `[count]`."""

    def step(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return train_step(model, optimizer, state, make_batch(state, inputs), loss_of(make_batch))

    return repeated(step, state, count)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def add_batch_statistics(model: nn.Module, make_batch: MakeBatch, count: int, state: TrainState, sums: Any,
                         inputs: Any) -> Any:
    """Add the batch statistics of the next `count` batches to `sums`, for every supported batch norm."""

    def add(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], None]:
        step, sums = carry
        here = state.replace(step=step)
        with nn.intercept_methods(without_memory):
            _, updated = with_loops(model).apply(state.variables, make_batch(here, inputs).images, train=True,
                                     mutable=["batch_stats"], rngs=dropout(here))
        return (step + 1, jax.tree.map(jnp.add, sums, updated["batch_stats"])), None

    (_, sums), _ = repeated(add, (state.step, sums), count)
    return sums


def with_loops(model: nn.Module) -> nn.Module:
    """Return a network whose stages are loops, which compile sooner but run a little slower. This suits programs that
    run once.

    Random numbers do not change.
    """
    return model.clone(unroll=0) if isinstance(model, ResNet) else model


def without_memory(method: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    """Call a module's method so that batch norm (Flax's or ours) stores only the statistics of this batch."""
    module = context.module
    if context.method_name != "__call__" or not isinstance(module, BatchNorm | nn.BatchNorm):
        return method(*args, **kwargs)
    momentum = module.momentum
    object.__setattr__(module, "momentum", 0.0)  # bypasses Flax, whose modules are immutable
    try:
        return method(*args, **kwargs)
    finally:
        object.__setattr__(module, "momentum", momentum)


def repeated(step: Callable[[Any, None], tuple[Any, Any]], carry: Any, count: int) -> tuple[Any, Any]:
    """Scan over `count` steps. A single step does not run as a loop, because XLA optimises loop bodies less freely."""
    if count > 1:
        return lax.scan(step, carry, length=count)
    carry, outputs = step(carry, None)
    return carry, jax.tree.map(lambda x: x[None], outputs)


def with_key_data(tree: Any) -> Any:
    """Convert the random keys of a tree of arrays or shapes to integers."""
    def converted(leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return leaf
        shape = isinstance(leaf, jax.ShapeDtypeStruct)
        return jax.eval_shape(jax.random.key_data, leaf) if shape else jax.random.key_data(leaf)

    return jax.tree.map(converted, tree)


def named_leaves(tree: Any) -> list[tuple[str, np.ndarray]]:
    """List the arrays of a tree by path, on the host. Random keys become integers."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(jax.device_get(with_key_data(tree)))
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]


def state_digest(state: TrainState) -> str:
    """Compute the SHA-256 of parameters, batch statistics and optimizer state, by names, types, shapes and bytes."""
    sha = hashlib.sha256()
    leaves = named_leaves((state.params, state.batch_stats, state.opt_state))
    for name, leaf in sorted(leaves, key=lambda pair: pair[0]):
        sha.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()
