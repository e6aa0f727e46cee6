"""The optimizers against their recurrences written out in float64."""

import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import same_trees

import resjax
from resjax import BadInput, Experiment, Interrupted, Optimizer, read_metrics, train
from resjax.detection import Detection
from resjax.training import restoration
from resjax.training.classification import Classification
from resjax.training.learning_rate import learning_rate
from resjax.training.optimizer import build_optimizer, exchange_average

ONE = jax.devices()[:1]


def rates(settings, errors, steps=1000):
    """The rate of every step, given the batches' training errors in percent."""
    optimizer, params = build_optimizer(settings, steps), {"kernel": jnp.zeros(1)}
    update = jax.jit(lambda state, error: optimizer.update(params, state, params, error=error)[1])
    state, found = optimizer.init(params), []
    for error in errors:
        state = update(state, jnp.float32(error))
        found.append(learning_rate(optimizer, state))
    return np.array(found)


def test_the_papers_recurrence():
    settings = Optimizer(learning_rate=0.2, momentum=0.9, weight_decay=0.03, decay_steps=(3, 5))
    optimizer, params = build_optimizer(settings, 100), {"kernel": jnp.array([1.0, -2.0])}
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
    optimizer = build_optimizer(Optimizer(weight_decay=0.1, weight_decay_scope=scope), 1)
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


def descended(settings, gradients, weights, steps=100):
    """Return the weights after each update, and the last state."""
    optimizer, params = build_optimizer(settings, steps), {"kernel": jnp.array(weights, jnp.float32)}
    state, found = optimizer.init(params), []
    for g in gradients:
        updates, state = optimizer.update({"kernel": jnp.array(g, jnp.float32)}, state, params, error=jnp.float32(0))
        params = optax.apply_updates(params, updates)
        found.append(params["kernel"])
    return np.array(found), state


GRADIENTS = np.random.default_rng(0).normal(size=(8, 3))
WEIGHTS = np.array([1.0, -2.0, 0.5])


def test_nesterov_steps_from_where_the_velocity_leads():
    found, _ = descended(Optimizer(method="nesterov", learning_rate=0.2, weight_decay=0.03), GRADIENTS, WEIGHTS)
    w, v = WEIGHTS, np.zeros(3)
    for g, after in zip(GRADIENTS, found, strict=True):
        step = 0.2 * (g + 0.03 * w)
        v = 0.9 * v + step
        w = w - (0.9 * v + step)
        np.testing.assert_allclose(after, w, rtol=1e-5)


def test_adamw_is_algorithm_2_of_its_authors():
    settings = Optimizer(method="adamw", learning_rate=0.01, weight_decay=0.1, decay_steps=(4,))
    found, _ = descended(settings, GRADIENTS, WEIGHTS)
    w, m, v = WEIGHTS, np.zeros(3), np.zeros(3)
    for t, (g, after) in enumerate(zip(GRADIENTS, found, strict=True), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = 0.01 if t <= 4 else 0.001
        w = w - rate * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.1 * w)
        np.testing.assert_allclose(after, w, rtol=1e-5)


def test_gradients_are_clipped_by_their_norm_over_all_parameters():
    settings = Optimizer(learning_rate=1.0, momentum=0.0, weight_decay=0.0, clip_norm=1.0)
    found, _ = descended(settings, [[3.0, 0.0, 4.0], [0.3, 0.0, 0.4]], np.zeros(3))
    np.testing.assert_allclose(found, -np.array([[0.6, 0, 0.8], [0.9, 0, 1.2]]), rtol=1e-6)


def test_the_average_weighs_each_step_as_its_formula_says():
    after, state = descended(Optimizer(learning_rate=0.2, ema_decay=0.7), GRADIENTS, WEIGHTS)
    weights = 0.3 * 0.7 ** np.arange(8)[::-1] / (1 - 0.7**8)
    assert weights.sum() == pytest.approx(1)
    params = {"kernel": jnp.asarray(after[-1])}
    average, exchanged = exchange_average(params, state)
    np.testing.assert_allclose(average["kernel"], weights @ after, rtol=1e-5)
    again, restored = exchange_average(average, exchanged)
    assert again is params
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), restored, state))


def test_a_cosine_rises_to_the_rate_and_ends_at_zero():
    settings = Optimizer(schedule="cosine", learning_rate=0.5, warmup_rate=0.1, warmup_steps=4)
    rising, falling = 0.1 + 0.4 * np.arange(4) / 4, 0.25 * (1 + np.cos(np.pi * np.arange(17) / 16))
    np.testing.assert_allclose(rates(settings, [50] * 21, steps=20), [*rising, *falling], rtol=1e-5, atol=1e-8)


RISING = optax.linear_schedule(0.1, 0.5, 4)


@pytest.mark.parametrize(("optimizer", "wanted"), [
    (optax.adamw(RISING), [0.1, 0.2, 0.3]), (optax.sgd(0.3, momentum=0.9, nesterov=True), [0.3] * 3),
    (optax.chain(optax.clip(1.0), optax.lion(RISING)), [0.1, 0.2, 0.3]), (optax.rmsprop(0.01), [0.01] * 3),
    (optax.chain(optax.sgd(RISING), optax.scale(0.5)), [0.05, 0.1, 0.15]), (optax.lamb(RISING), [0.1, 0.2, 0.3]),
    (optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(RISING), optax.scale(-1.0)), [0.1, 0.2, 0.3]),
    (optax.inject_hyperparams(optax.adam)(RISING), [0.1, 0.2, 0.3]), (optax.adagrad(0.2), [0.2] * 3),
    (optax.multi_transform({"a": optax.sgd(0.1)}, {"kernel": "a"}), [np.nan] * 3), (optax.scale(0.1), [np.nan] * 3)])
def test_the_rate_of_optaxs_optimizers_is_known(optimizer, wanted):
    optimizer, params, found = optax.with_extra_args_support(optimizer), {"kernel": jnp.ones(2)}, []
    state = optimizer.init(params)
    for _ in wanted:
        _, state = optimizer.update(params, state, params, error=jnp.float32(0))
        found.append(jax.jit(lambda state: learning_rate(optimizer, state))(state))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Optimizer(method="adam"), "optimizer.method is 'adam'; it must be one of 'sgd', 'nesterov', 'adamw'"),
    (lambda: Optimizer(schedule="cosine", warmup_error=80.0), "they do not work with the cosine schedule"),
    (lambda: Optimizer(schedule="cosine", learning_rate=1e-3, warmup_steps=5), "warmup-rate is 0.01; .* at most"),
    (lambda: Optimizer(ema_decay=1.0), r"optimizer.ema-decay is 1.0; it must be in \[0, 1\)"),
    (lambda: Experiment(name="a", steps=400, optimizer=Optimizer(schedule="cosine", warmup_steps=400)),
     "optimizer.warmup-steps is 400; it must be below steps, which is 400"),
    (lambda: Experiment(name="a", precise_batch_norm_steps=0, optimizer=Optimizer(ema_decay=0.9)), "be at least 1"),
    (lambda: Detection(name="a", optimizer=Optimizer(ema_decay=0.9)), "ema-decay only works with classifiers")])
def test_what_cannot_be_is_named(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_a_cosine_ends_with_its_run(small):
    run = small(optimizer=Optimizer(schedule="cosine"))
    assert run.differences(replace(run, steps=12)) == [
        "steps: 6 -> 12, but its cosine schedule depends on steps"]
    assert run.differences(replace(run, steps=4)) == ["steps: 6 -> 4"]
    assert small().differences(small(steps=12)) == []
    built = small(steps=12, own=resjax.Own(optimizer=lambda run: optax.sgd(1 / run.steps)))  # likewise
    assert small().differences(built) == [
        "steps: 6 -> 12, but its optimizer is a function of the run, which may use steps"]
    assert small().differences(replace(built, own=resjax.Own(optimizer=optax.sgd(0.1)))) == []


def test_the_average_is_measured_kept_and_resumed_to_the_same_bits(small, tmp_path, capsys, monkeypatch):
    """Against the average of the parameters after each step, which a callback sees; and a run that is made longer."""
    def seen(line, network):
        kept.append(jax.device_get(network.variables["params"]))
        if line["step"] == stop:
            raise Interrupted("enough", 2)

    recipe = {"optimizer": Optimizer(learning_rate=0.05, ema_decay=0.5), "log_steps": 1, "evaluate_steps": 2,
              "evaluate_test": True}
    kept, stop = [], None
    whole = train(small(**recipe, steps=4), tmp_path / "whole", ONE, callback=seen)
    weights = 0.5 * 0.5 ** np.arange(4)[::-1] / (1 - 0.5**4)
    wanted = jax.tree.map(lambda *each: sum(w * x for w, x in zip(weights, each, strict=True)), *kept)
    network = resjax.load(tmp_path / "whole")
    assert same_trees(network.variables["params"], wanted, 1e-5)
    measured = resjax.evaluate(network, resjax.load_data(resjax.Data()).test)
    assert measured.top1_error == whole["test_top1_error"]
    stop = 3
    with pytest.raises(Interrupted):
        train(small(**recipe, steps=4), tmp_path / "cut", ONE, callback=seen)
    resjax.load(tmp_path / "cut")
    assert "not finished, so these are its current weights, not their moving average" in capsys.readouterr().err
    shutil.copytree(tmp_path / "whole", tmp_path / "not measured")
    (tmp_path / "not measured" / "result.json").unlink()
    resjax.load(tmp_path / "not measured")
    assert capsys.readouterr().err == ""
    read = restoration.read_latest  # as if stopped during the averaging, after the last step
    monkeypatch.setattr(restoration, "read_latest", lambda *given: (read(*given)[0], {"averaged": False}))
    resjax.load(tmp_path / "not measured")
    assert "not finished, so these are its current weights, not their moving average" in capsys.readouterr().err
    monkeypatch.undo()
    assert train(small(**recipe, steps=4), tmp_path / "cut", ONE)["state_digest"] == whole["state_digest"]
    train(small(**recipe, steps=2), tmp_path / "longer", ONE)
    assert train(small(**recipe, steps=4), tmp_path / "longer", ONE)["state_digest"] == whole["state_digest"]
    lines = [[(line["step"], line["loss"]) for line in read_metrics(tmp_path / place, "test")]
             for place in ("whole", "cut", "longer")]
    assert lines[0] == lines[1] == lines[2]
    assert [step for step, _ in lines[0]] == [2, 4]


def test_nothing_is_averaged_where_nothing_is_measured(small, tmp_path, monkeypatch):
    averaged, average = [], Classification.average
    monkeypatch.setattr(Classification, "average", lambda *given: averaged.append(1) or average(*given))
    train(small(optimizer=Optimizer(ema_decay=0.5), evaluate_steps=2), tmp_path, ONE)
    assert len(averaged) == 1  # at the end
