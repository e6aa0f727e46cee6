"""Adapts custom Optax optimizers to stacked blocks, to the arguments of `update`, and to schedule-free averaging."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from resjax.models.stacking import join_blocks, separate_blocks
from resjax.system.errors import check
from resjax.training.optimizer import AverageState


def adapted(optimizer: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Let a custom optimizer see every block's parameters as separate arrays, as `separate_blocks` returns them.

    Rules that depend on an array's dimensions or norm, such as the masks of weight decay, LAMB and Muon, then treat a
    stage's blocks like all other layers. `update` takes further arguments by name, such as `value`, and passes on those
    that the optimizer accepts. If the optimizer is schedule-free, its state also contains the weights to evaluate.
    """
    tx = optax.with_extra_args_support(optimizer)  # `learning_rate` looks for this name
    parameters = inspect.signature(tx.update).parameters.values()
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters)
    names = {each.name for each in parameters}

    def init(params: Any) -> tuple[Any, Any]:
        state = tx.init(separate_blocks(params))
        return state, average_of(state, params, jnp.int32(0))

    def update(gradients: Any, states: tuple[Any, Any], params: Any, **values: Any) -> tuple[Any, tuple[Any, Any]]:
        accepted = {name: value for name, value in values.items() if takes_all or name in names}
        updates, state = tx.update(separate_blocks(gradients), states[0], separate_blocks(params), **accepted)
        updates = join_blocks(updates, params)
        if isinstance(average := states[1], AverageState):
            average = average_of(state, optax.apply_updates(params, updates), average.count + 1)
        return updates, (state, average)

    return optax.GradientTransformationExtraArgs(init, update)


def average_of(state: Any, params: Any, count: jax.Array) -> AverageState | None:
    """Return the weights that a schedule-free optimizer evaluates instead of `params`; None for other optimizers."""
    parts = parts_of(state, optax.contrib.ScheduleFreeState)
    if not parts:
        return None
    weights = optax.contrib.schedule_free_eval_params(parts[0], separate_blocks(params))
    return AverageState(count, join_blocks(weights, params))


def parts_of(state: Any, kind: type) -> list[Any]:
    """List the parts of an optimizer's state that belong to one kind of transformation."""
    return [part for part in jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, kind))
            if isinstance(part, kind)]


def check_state(state: Any, batch_norm: bool, precise_batch_norm_steps: int) -> None:
    """Raise BadInput if the state belongs to an optimizer whose weights would be evaluated wrongly."""
    check(not parts_of(state, optax.contrib.SAMState),
          "optimizer contains optax.contrib.sam, which resjax does not support, because it needs the gradients of each "
          "batch at two places; without them, every second step would only perturb the weights")
    check(not parts_of(state, AverageState) or not batch_norm or precise_batch_norm_steps > 0,
          "a schedule-free optimizer needs batch statistics of the averaged parameters, so precise-batch-norm-steps "
          "must be at least 1")
