"""Packs the training state on accelerators, so that fewer kernels update the same numbers.

Small arrays, such as batch norm's, are joined into a few long ones, so that one kernel updates many of them. The
weights of unrolled blocks are separate arrays. XLA can then compute the gradient of a convolution's weights and update
them while the convolution's inputs are still on the chip. If the blocks were one stack, XLA would compute the gradients
of all weights at the end, and would have to read the activations and their gradients again. A CPU gains nothing from
this layout and would round sums differently, so the state stays unchanged on CPU.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from resjax.models import ResNet
from resjax.models.stacking import stack, unstack
from resjax.training.step import MakeBatch, Metrics, TrainState, loss_of, repeated, train_step, train_steps

PARTS, MOST = ("params", "batch_stats", "opt_state"), 2**16


class Packed(struct.PyTreeNode):
    """A tree of arrays: small arrays as one vector, the others as a list, and the structure to rebuild the tree."""

    small: jax.Array
    large: list[jax.Array]
    structure: Any = struct.field(pytree_node=False)
    shapes: tuple[tuple[int, ...] | None, ...] = struct.field(pytree_node=False)
    """The shape of every small leaf, and None for each of the others."""


class StateLayout(NamedTuple):
    """A layout of the state, with functions to `pack` a state for a model, to make `steps`, and to `unpack` it."""

    pack: Callable[[TrainState, int], TrainState]
    steps: Any
    unpack: Callable[[TrainState], TrainState]


def layout_for(platform: str) -> StateLayout:
    """Choose the layout for a platform."""
    return PLAIN if platform == "cpu" else PACKED


def most_unstacked(model: nn.Module) -> int:
    """Return the largest number of blocks, after the first, for which a stage is unrolled; 0 without stages."""
    return model.unroll if isinstance(model, ResNet) else 0


@partial(jax.jit, static_argnums=1)
def pack(state: TrainState, most: int) -> TrainState:
    """Separate the blocks of stages with at most this many blocks after the first, and pack small arrays.

    Blocks may be separated only for an optimizer that treats every number independently, as the paper's does. Custom
    optimizers separate all blocks themselves; see `own_optimizer.adapted`.
    """
    return packed(as_parameters(state, partial(unstack, most=most)) if most else state)


@jax.jit
def unpack(state: TrainState) -> TrainState:
    """Undo `pack`. The result may share memory with the packed state, so use or copy it before the next steps."""
    return as_parameters(unpacked(state), stack)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def packed_train_steps(model: nn.Module, optimizer: optax.GradientTransformationExtraArgs, make_batch: MakeBatch,
                       count: int, state: TrainState, inputs: Any) -> tuple[TrainState, Metrics]:
    """Make `count` steps in one call, from packed state to packed state."""

    def step(carry: TrainState, _: None) -> tuple[TrainState, Metrics]:
        here = unpacked(carry)
        after, metrics = train_step(model, optimizer, here, make_batch(here, inputs), loss_of(make_batch))
        return packed(after), metrics

    return repeated(step, state, count)


def as_parameters(state: TrainState, change: Callable[[Any], Any]) -> TrainState:
    """Change the layout of the parameters and of all parts of the optimizer state with the same layout."""
    structure: Any = jax.tree.structure(state.params)

    def alike(tree: Any) -> bool:
        return bool(jax.tree.structure(tree) == structure)

    changed: TrainState = state.replace(
        params=change(state.params),
        opt_state=jax.tree.map(lambda tree: change(tree) if alike(tree) else tree, state.opt_state, is_leaf=alike))
    return changed


def packed(state: TrainState) -> TrainState:
    """Put the small leaves of parameters, batch statistics and optimizer state into one vector each."""

    def one(tree: Any) -> Packed:
        leaves, structure = jax.tree.flatten(tree)
        small = [leaf.ravel() for leaf in leaves if is_small_leaf(leaf)]
        return Packed(jnp.concatenate([jnp.zeros(0), *small]), [leaf for leaf in leaves if not is_small_leaf(leaf)],
                      structure, tuple(leaf.shape if is_small_leaf(leaf) else None for leaf in leaves))

    changed: TrainState = state.replace(**{part: one(getattr(state, part)) for part in PARTS})
    return changed


def unpacked(state: TrainState) -> TrainState:
    """Undo `packed`."""

    def one(tree: Packed) -> Any:
        leaves, large, place = [], iter(tree.large), 0
        for shape in tree.shapes:
            size = 0 if shape is None else math.prod(shape)
            leaves.append(next(large) if shape is None else tree.small[place:place + size].reshape(shape))
            place += size
        return jax.tree.unflatten(tree.structure, leaves)

    changed: TrainState = state.replace(**{part: one(getattr(state, part)) for part in PARTS})
    return changed


def is_small_leaf(leaf: jax.Array) -> bool:
    """Return whether a leaf is packed, that is, a small vector or a small stack of vectors, such as batch norm's."""
    return leaf.ndim in (1, 2) and leaf.size <= MOST and leaf.dtype == jnp.float32


PLAIN = StateLayout(lambda state, _: state, train_steps, lambda state: state)
PACKED = StateLayout(pack, packed_train_steps, unpack)
