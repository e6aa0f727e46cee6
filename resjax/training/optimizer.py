"""Builds a run's optimizer from Optax transformations.

As in Caffe, the paper's SGD has the learning rate inside the velocity: v := momentum * v + rate * (g + decay * w), and
then w := w - v. In `optax.sgd`, the rate multiplies the velocity instead. The two rules differ after every
learning-rate drop.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from resjax.experiment import Optimizer

SMOOTHING = 0.99  # averages the training error over about a hundred batches


class RateState(NamedTuple):
    """Number of updates, smoothed training error in percent, whether the warm-up is over, and last learning rate.

    All four are scalars. The last field is the state of the plateau rule, or None without this rule.
    """

    count: jax.Array  # type: ignore[assignment]  # a tuple has a method of that name
    error: jax.Array
    warm: jax.Array
    rate: jax.Array
    plateau: Any


class AverageState(NamedTuple):
    """The number of updates, and the moving average of the parameters over all updates."""

    count: jax.Array  # type: ignore[assignment]
    average: Any


@cache
def build_optimizer(settings: Optimizer, steps: int) -> optax.GradientTransformationExtraArgs:
    """Build the optimizer of a run of `steps`. Its `update` takes `error`, the batch's training error in percent."""
    settings.check_length(steps)
    decay = optax.add_decayed_weights(settings.weight_decay,
                                      None if settings.weight_decay_scope == "all" else kernels)
    slowed = [] if settings.backbone_rate == 1 else [optax.masked(optax.scale(settings.backbone_rate), body)]
    rate = [scale_by_rate(settings, steps), *slowed]
    if settings.method == "adamw":
        descent = [optax.scale_by_adam(settings.momentum), decay, *rate]
    else:
        descent = [decay, *rate, optax.trace(settings.momentum, nesterov=settings.method == "nesterov")]
    clip = [optax.clip_by_global_norm(settings.clip_norm)] * (settings.clip_norm > 0)
    average = [keep_average(settings.ema_decay)] * (settings.ema_decay > 0)
    return optax.with_extra_args_support(optax.chain(*clip, *descent, *average))


def kernels(params: Any) -> Any:
    """Mark the kernels of convolutions and of the last layer, as opposed to batch norm's parameters and the bias."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def body(params: Any) -> Any:
    """Mark all layers except the last."""
    return {module: jax.tree.map(lambda _, module=module: module != "fc", leaves) for module, leaves in params.items()}


def scale_by_rate(settings: Optimizer, steps: int) -> optax.GradientTransformationExtraArgs:
    """Multiply by minus the learning rate of the current step.

    The rate is `warmup_rate` during the warm-up and then `learning_rate`, divided by 10 at each decay or plateau. With
    a cosine schedule, a linear warm-up is followed by a cosine over `steps`. The warm-up ends once `warmup_steps`
    updates have been made and the smoothed training error is below `warmup_error`. With 110 layers, section 4.2 waits
    until the error is below 80 % ("about 400 iterations").
    """
    # Divides the rate by 10, at most three times, when the error has not fallen for two periods in a row.
    plateau = optax.contrib.reduce_on_plateau(factor=0.1, patience=2, min_scale=1e-3,
                                              accumulation_size=max(1, settings.plateau_steps))
    cosine = optax.warmup_cosine_decay_schedule(settings.warmup_rate, settings.learning_rate, settings.warmup_steps,
                                                steps) if settings.schedule == "cosine" else None

    def init(_: Any) -> RateState:
        reduction = plateau.init({}) if settings.plateau_steps else None
        return RateState(jnp.int32(0), jnp.float32(100), jnp.bool(False), jnp.float32(0), reduction)

    def update(updates: Any, state: RateState, params: Any = None, *, error: jax.Array,
               **_: Any) -> tuple[Any, RateState]:
        decays = range(len(settings.decay_steps) + 1)
        rates = jnp.array([settings.learning_rate / 10**decay for decay in decays], jnp.float32)
        decay_steps = jnp.array(settings.decay_steps, jnp.int32)
        smoothed = SMOOTHING * state.error + (1 - SMOOTHING) * error
        low = jnp.bool(settings.warmup_error == 100) | (smoothed < settings.warmup_error)
        warm = state.warm | (low & (state.count >= settings.warmup_steps))
        if cosine is None:
            rate = jnp.where(warm, rates[jnp.sum(state.count >= decay_steps)], settings.warmup_rate)
        else:
            rate = jnp.asarray(cosine(state.count), jnp.float32)
        reduction = state.plateau
        if reduction is not None:
            _, reduction = plateau.update({}, reduction, value=error)
            rate = rate * reduction.scale
        return jax.tree.map(lambda g: -rate * g, updates), RateState(state.count + 1, smoothed, warm, rate, reduction)

    return optax.GradientTransformationExtraArgs(init, update)


def keep_average(decay: float) -> optax.GradientTransformation:
    """Keep an exponential moving average of the parameters, with bias correction as in Adam.

    After t updates, the parameters after the i-th update have the weight (1 - decay) decay^(t - i) / (1 - decay^t).
    """
    def init(params: Any) -> AverageState:
        return AverageState(jnp.int32(0), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: AverageState, params: Any = None) -> tuple[Any, AverageState]:
        count = state.count + 1
        share = (1 - decay) / -jnp.expm1(count * math.log(decay))
        average = optax.incremental_update(optax.apply_updates(params, updates), state.average, share)
        return updates, AverageState(count, average)

    return optax.GradientTransformation(init, update)


def exchange_average(params: Any, opt_state: Any) -> tuple[Any, Any]:
    """Swap the parameters and their average. A second call undoes the swap."""
    states = averages_of(opt_state)
    exchanged = jax.tree.map(lambda part: part._replace(average=params) if is_average(part) else part, opt_state,
                             is_leaf=is_average)
    return (states[0].average, exchanged) if states else (params, opt_state)


def averages_of(opt_state: Any) -> list[AverageState]:
    """List the averages of the parameters in an optimizer's state: none, or one."""
    return [part for part in jax.tree.leaves(opt_state, is_leaf=is_average) if is_average(part)]


def is_average(part: Any) -> bool:
    """Return whether a part of an optimizer's state belongs to `keep_average`."""
    return isinstance(part, AverageState)
