"""The learning rate of the last update, for the log, of any optimizer of optax that has one."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax


def learning_rate(optimizer: optax.GradientTransformation, opt_state: Any) -> jax.Array:
    """Read the rate of the last update from the state after it; NaN where an optimizer has none that is known.

    Those of a run's fields keep it, as does `optax.inject_hyperparams`. For a chain that multiplies by a number or a
    schedule, as optax's optimizers do, it is minus the product of these: optax keeps only the count of a schedule.
    """
    kept = [value for key in ("rate", "learning_rate")
            for _, value in optax.tree_utils.tree_get_all_with_path(opt_state, key)
            if isinstance(value, jax.Array) and value.ndim == 0]
    factors = list(factors_of(optimizer.update))
    counts = [part.count for part in jax.tree.leaves(opt_state, is_leaf=is_count) if is_count(part)]
    rate: jax.Array = jnp.float32(kept[0] if kept else jnp.nan)
    if not kept and factors and len(counts) == sum(map(callable, factors)):
        step = iter(counts)
        product = jnp.prod(jnp.array([factor(next(step) - 1) if callable(factor) else factor for factor in factors]))
        rate = jnp.where(product <= 0, -product, jnp.nan).astype(jnp.float32)
    return rate


def factors_of(update: Callable[..., Any]) -> Iterator[Any]:
    """List the numbers and the schedules that a chain of optax multiplies updates by, in its order.

    Optax has no other way to them than the variables of its functions.
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
    """Say whether a part of an optimizer's state counts the steps of a schedule."""
    return isinstance(part, optax.ScaleByScheduleState)
