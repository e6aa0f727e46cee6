"""Finds the learning rate of the last update in the state of an Optax optimizer, for the log."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax


def learning_rate(optimizer: optax.GradientTransformation, opt_state: Any) -> jax.Array:
    """Return the learning rate of the last update from the state after it; NaN if the rate cannot be determined.

    Optimizers that are built from a run's fields, and `optax.inject_hyperparams`, store the rate. Optax's own
    optimizers are chains that multiply updates by constants and schedules, so the rate is minus the product of these
    factors. Of a schedule, Optax stores only the count.
    """
    rates = [value for key in ("rate", "learning_rate")
             for _, value in optax.tree_utils.tree_get_all_with_path(opt_state, key)
             if isinstance(value, jax.Array) and value.ndim == 0]
    factors = list(factors_of(optimizer.update))
    counts = [part.count for part in jax.tree.leaves(opt_state, is_leaf=is_count) if is_count(part)]
    rate: jax.Array = jnp.float32(rates[0] if rates else jnp.nan)
    if not rates and factors and len(counts) == sum(map(callable, factors)):
        step = iter(counts)
        product = jnp.prod(jnp.array([factor(next(step) - 1) if callable(factor) else factor for factor in factors]))
        rate = jnp.where(product <= 0, -product, jnp.nan).astype(jnp.float32)
    return rate


def factors_of(update: Callable[..., Any]) -> Iterator[Any]:
    """List the constants and schedules by which a chain of Optax transformations multiplies updates, in order.

    The factors are accessible only as closure variables of Optax's functions.
    """
    held = inspect.getclosurevars(update).nonlocals if inspect.isfunction(update) else {}
    for name in ("step_size", "step_size_fn"):  # of optax.scale and optax.scale_by_schedule
        if name in held:
            yield held[name]
    for part in held.get("update_fns", ()):  # of optax.chain
        yield from factors_of(part)
    if "tx" in held:  # of optax.with_extra_args_support
        yield from factors_of(held["tx"].update)


def is_count(part: Any) -> bool:
    """Return whether a part of an optimizer's state is the step count of a schedule."""
    return isinstance(part, optax.ScaleByScheduleState)
