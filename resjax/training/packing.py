"""The train state as an accelerator carries it from call to call: the same numbers, laid out for fewer kernels.

Many small arrays, batch norm's, go as one long one, which one kernel updates. And the blocks of a stage that are
compiled one by one lie apart: XLA then updates a kernel where it computes its gradient, while what that is made of is
on the chip. Gradients that end in one stack it writes late, all together, and reads images and their gradients again.
A CPU wins nothing by either, and would round sums differently: there the state stays as it is.
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
    """A tree of arrays: the small ones as one vector, the others in a list, and what puts each in its place."""

    small: jax.Array
    large: list[jax.Array]
    structure: Any = struct.field(pytree_node=False)
    shapes: tuple[tuple[int, ...] | None, ...] = struct.field(pytree_node=False)
    """Of every leaf that is small; None for the others."""


class StateLayout(NamedTuple):
    """A way to make steps: `pack` a state for a model, `steps` from what it gave to its like, and `unpack` that."""

    pack: Callable[[TrainState, int], TrainState]
    steps: Any
    unpack: Callable[[TrainState], TrainState]


def layout_for(platform: str) -> StateLayout:
    """Choose the form that suits a platform."""
    return PLAIN if platform == "cpu" else PACKED


def most_unstacked(model: nn.Module) -> int:
    """Say how many blocks after its first a stage may have for them to be compiled one by one; 0 without stages."""
    return model.unroll if isinstance(model, ResNet) else 0


@partial(jax.jit, static_argnums=1)
def pack(state: TrainState, most: int) -> TrainState:
    """Take stages of at most so many blocks after the first apart, and pack what is small.

    Blocks may only be taken apart for an optimizer that treats every number by itself, as the paper's does: to others a
    stack is one array.
    """
    return packed(as_parameters(state, partial(unstack, most=most)) if most else state)


@jax.jit
def unpack(state: TrainState) -> TrainState:
    """Undo `pack`. What it returns may lie where the packed state does: use it before the next steps, or copy it."""
    return as_parameters(unpacked(state), stack)


@partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def packed_train_steps(model: nn.Module, optimizer: optax.GradientTransformationExtraArgs, make_batch: MakeBatch,
                       count: int, state: TrainState, inputs: Any) -> tuple[TrainState, Metrics]:
    """Make `count` steps in one call, from a packed state to a packed state."""

    def step(carry: TrainState, _: None) -> tuple[TrainState, Metrics]:
        here = unpacked(carry)
        after, metrics = train_step(model, optimizer, here, make_batch(here, inputs), loss_of(make_batch))
        return packed(after), metrics

    return repeated(step, state, count)


def as_parameters(state: TrainState, change: Callable[[Any], Any]) -> TrainState:
    """Change the layout of the parameters, and of whatever in the optimizer's state is laid out like them."""
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
    """Say whether a leaf is batch norm's, or as small: a vector, or a stack of vectors."""
    return leaf.ndim in (1, 2) and leaf.size <= MOST and leaf.dtype == jnp.float32


PLAIN = StateLayout(lambda state, _: state, train_steps, lambda state: state)
PACKED = StateLayout(pack, packed_train_steps, unpack)
