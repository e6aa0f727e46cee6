"""The paper's optimiser: v := momentum v + rate (g + decay w), w := w - v, with its steps and its warm-up."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from resjax.experiment import Optimizer

SMOOTHING = 0.99  # the training error is averaged over about a hundred batches


class RateState(NamedTuple):
    """Scalars: updates so far, the smoothed training error in percent, whether warm-up is over, the last rate.

    And the state of the rule that looks for a plateau, or None without it.
    """

    count: jax.Array  # type: ignore[assignment]  # a tuple has a method of that name
    error: jax.Array
    warm: jax.Array
    rate: jax.Array
    plateau: Any


@cache
def sgd(settings: Optimizer) -> optax.GradientTransformationExtraArgs:
    """Build the optimiser; its `update` takes `error`, the batch's training error in percent.

    The rate stands inside the velocity, as in Caffe; `optax.sgd` keeps it outside, and the two differ after
    every drop of the rate.
    """
    scope = None if settings.weight_decay_scope == "all" else kernels
    slowed = [] if settings.backbone_rate == 1 else [optax.masked(optax.scale(settings.backbone_rate), body)]
    return optax.with_extra_args_support(optax.chain(
        optax.add_decayed_weights(settings.weight_decay, scope),
        scale_by_rate(settings),
        *slowed,
        optax.trace(settings.momentum),
    ))


def kernels(params: Any) -> Any:
    """Mark the kernels of convolutions and of the last layer, against batch norm's parameters and the bias."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def body(params: Any) -> Any:
    """Mark all but the last layer."""
    return {module: jax.tree.map(lambda _, module=module: module != "fc", leaves) for module, leaves in params.items()}


def scale_by_rate(settings: Optimizer) -> optax.GradientTransformationExtraArgs:
    """Multiply by minus the learning rate: `warmup_rate` at first, then `learning_rate`, a tenth after each decay or
    plateau.

    Warm-up is over once `warmup_steps` updates were made and the smoothed training error has been below
    `warmup_error`; section 4.2 waits for 80 % with 110 layers ("about 400 iterations").
    """
    plateau = plateau_rule(settings)

    def init(_: Any) -> RateState:
        found = plateau.init({}) if settings.plateau_steps else None
        return RateState(jnp.int32(0), jnp.float32(100), jnp.bool(False), jnp.float32(0), found)

    def update(updates: Any, state: RateState, params: Any = None, *, error: jax.Array) -> tuple[Any, RateState]:
        decays = range(len(settings.decay_steps) + 1)
        rates = jnp.array([settings.learning_rate / 10**decay for decay in decays], jnp.float32)
        decay_steps = jnp.array(settings.decay_steps, jnp.int32)
        smoothed = SMOOTHING * state.error + (1 - SMOOTHING) * error
        low = jnp.bool(settings.warmup_error == 100) | (smoothed < settings.warmup_error)
        warm = state.warm | (low & (state.count >= settings.warmup_steps))
        rate = jnp.where(warm, rates[jnp.sum(state.count >= decay_steps)], settings.warmup_rate)
        found = state.plateau
        if found is not None:
            _, found = plateau.update({}, found, value=error)
            rate = rate * found.scale
        return jax.tree.map(lambda g: -rate * g, updates), RateState(state.count + 1, smoothed, warm, rate, found)

    return optax.GradientTransformationExtraArgs(init, update)  


def plateau_rule(settings: Optimizer) -> optax.GradientTransformationExtraArgs:
    """Build the rule that divides by 10, at most three times, when the error has not fallen for two spans in a row."""
    return optax.contrib.reduce_on_plateau(factor=0.1, patience=2, min_scale=1e-3,
                                           accumulation_size=max(1, settings.plateau_steps))


def learning_rate(opt_state: Any) -> jax.Array:
    """Read the rate of the last update; NaN where an optimizer of one's own keeps none.

    Those that `optax.inject_hyperparams` makes keep theirs.
    """
    found = [value for key in ("rate", "learning_rate")
             for _, value in optax.tree_utils.tree_get_all_with_path(opt_state, key)
             if isinstance(value, jax.Array) and value.ndim == 0]
    rate: jax.Array = jnp.float32(found[0] if found else jnp.nan)
    return rate
