"""The optimiser against the recurrence written out in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resjax import Optimizer
from resjax.training.optimizer import learning_rate, sgd


def rates(settings, errors):
    """The rate of every step, given the batches' training errors in percent."""
    optimizer, params = sgd(settings), {"kernel": jnp.zeros(1)}
    update = jax.jit(lambda state, error: optimizer.update(params, state, params, error=error)[1])
    state, found = optimizer.init(params), []
    for error in errors:
        state = update(state, jnp.float32(error))
        found.append(learning_rate(state))
    return np.array(found)


def test_the_papers_recurrence():
    settings = Optimizer(learning_rate=0.2, momentum=0.9, weight_decay=0.03, decay_steps=(3, 5))
    optimizer, params = sgd(settings), {"kernel": jnp.array([1.0, -2.0])}
    state, w, v = optimizer.init(params), np.array([1.0, -2.0]), np.zeros(2)
    for step in range(8):
        g = np.array([0.5 * step, 1.0])
        updates, state = optimizer.update({"kernel": jnp.array(g, jnp.float32)}, state, params, error=jnp.float32(0))
        params = optax.apply_updates(params, updates)
        v = 0.9 * v + 0.2 / 10 ** ((step >= 3) + (step >= 5)) * (g + 0.03 * w)
        w = w - v
        np.testing.assert_allclose(params["kernel"], w, rtol=1e-5)


def test_rate_drops_at_the_given_iterations():
    found = rates(Optimizer(learning_rate=0.1, decay_steps=(2, 4)), [50] * 6)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)


def test_warm_up_of_fixed_length():
    found = rates(Optimizer(warmup_rate=0.01, warmup_steps=3, decay_steps=(5,)), [100] * 7)
    np.testing.assert_allclose(found, [0.01] * 3 + [0.1] * 2 + [0.01] * 2, rtol=1e-6)


def test_warm_up_until_the_training_error_is_below_80_percent_and_never_again():
    errors = [90.0] * 60 + [60.0] * 100 + [90.0] * 300
    found = rates(Optimizer(warmup_rate=0.01, warmup_error=80.0, decay_steps=(450,)), errors)
    smoothed, first = 100.0, None
    for step, error in enumerate(errors):
        smoothed = 0.99 * smoothed + 0.01 * error
        if first is None and smoothed < 80:
            first = step
    assert 60 < first < 160
    np.testing.assert_allclose(found[:first], 0.01, rtol=1e-6)
    np.testing.assert_allclose(found[first:450], 0.1, rtol=1e-6)
    np.testing.assert_allclose(found[450:], 0.01, rtol=1e-6)


@pytest.mark.parametrize(("scope", "decays"), [("all", {"kernel", "bias", "scale"}), ("kernels", {"kernel"})])
def test_scope_of_weight_decay(scope, decays):
    optimizer = sgd(Optimizer(weight_decay=0.1, weight_decay_scope=scope))
    params = {"conv": {"kernel": jnp.ones(1)}, "bn": {"bias": jnp.ones(1), "scale": jnp.ones(1)}}
    zeros = {"conv": {"kernel": jnp.zeros(1)}, "bn": {"bias": jnp.zeros(1), "scale": jnp.zeros(1)}}
    updates, _ = optimizer.update(zeros, optimizer.init(params), params, error=jnp.float32(0))
    assert {key for part in updates.values() for key, value in part.items() if value[0] != 0} == decays


def test_the_rate_falls_when_the_training_error_does_not_and_three_times_at_most():
    settings = Optimizer(learning_rate=0.1, decay_steps=(), plateau_steps=5)
    falling = np.linspace(90, 10, 60)
    np.testing.assert_allclose(rates(settings, falling), 0.1, rtol=1e-6)
    found = rates(settings, [*falling, *[40.0] * 60])
    drops = np.flatnonzero(np.diff(found)) + 1  # two spans of 5 without a better one, from step 60 on
    assert drops.tolist() == [69, 79, 89]
    np.testing.assert_allclose(found[[68, 69, 79, 89, 119]], [0.1, 0.01, 0.001, 1e-4, 1e-4], rtol=1e-5)


def test_noise_is_averaged_before_the_error_counts_as_flat():
    noisy = np.linspace(90, 10, 400) + np.random.default_rng(0).normal(0, 5, 400)
    np.testing.assert_allclose(rates(Optimizer(decay_steps=(), plateau_steps=50), noisy), 0.1, rtol=1e-6)
