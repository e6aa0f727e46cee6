"""A run: it learns, its log and result tell the truth, and how it is cut into calls or devices does not matter."""

import errno
import json
import os
import signal
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import same_trees
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import resjax
from resjax import Architecture, BadInput, Diverged, Interrupted, Optimizer, read_metrics, train
from resjax.data import Batch, Batching, Images, load_data, mean_image, permute
from resjax.training import build_optimizer, initial_state, restore, state_digest, train_step
from resjax.training.in_memory import InMemoryBatch, InMemoryInputs
from resjax.training.log import Log
from resjax.training.packing import PLAIN
from resjax.training.step import add_batch_statistics, train_steps

ONE = jax.devices()[:1]


def begin(experiment, devices):
    """What a run begins with: model, optimiser, what makes its batches, state, inputs."""
    data = load_data(experiment.data).train
    mesh = jax.make_mesh((len(devices),), ("batch",), devices=devices, axis_types=(AxisType.Auto,))
    everywhere, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
    model, optimizer = experiment.architecture.model(10), build_optimizer(experiment.optimizer, experiment.steps)
    state = jax.jit(initial_state, static_argnums=(0, 1))(model, optimizer, mean_image(data), experiment.seed)
    inputs = InMemoryInputs(Images(*data), permute(state.key, 0, 3, len(data.labels)))
    make_batch = InMemoryBatch(Batching(experiment.batch_size, experiment.data.pad, experiment.data.flip), (), split)
    return model, optimizer, make_batch, *jax.device_put((state, inputs), everywhere)


def losses(experiment, devices, calls):
    model, optimizer, make_batch, state, inputs = begin(experiment, devices)
    found = []
    for count in calls:
        state, metrics = train_steps(model, optimizer, make_batch, count, state, inputs)
        found.extend(metrics.loss / metrics.images)
    return np.array(found), jax.device_get(state.params)


def test_a_run_learns_and_says_so(small, tmp_path):
    experiment = small(steps=60, log_steps=20, evaluate_test=True, evaluate_steps=30)
    result = train(experiment, tmp_path / "run", ONE)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert result["test_top1_error"] < 30
    assert result["parameters"] == 75_290 - 2 * 9 * 16  # depth 8, on one channel instead of three
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines if line["kind"] == "train"] == [20, 40, 60]
    assert [line["step"] for line in lines if line["kind"] == "test"] == [30, 60]
    assert lines[-1]["top1_error"] == result["test_top1_error"]
    trained = [line["loss"] for line in lines if line["kind"] == "train"]
    assert trained[-1] < 0.5 * trained[0]


def test_a_finished_run_is_not_trained_again(small, tmp_path, monkeypatch):
    result = train(small(), tmp_path, ONE)
    monkeypatch.setattr("resjax.training.images.load_data", None)
    assert train(small(), tmp_path, ONE) == result


def test_seed_decides_every_bit(small, tmp_path):
    digests = [train(small(seed=seed), tmp_path / name, ONE)["state_digest"]
               for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert digests[0] == digests[1] != digests[2]


def test_result_is_what_restore_and_evaluate_give(small, tmp_path):
    result = train(small(), tmp_path, ONE)
    trained = restore(tmp_path)
    test = load_data(trained.experiment.data).test
    errors = resjax.evaluate(trained.network, Images(*test), 77)
    assert (errors.top1_error, errors.images) == (result["test_top1_error"], 360)
    assert state_digest(trained.state) == result["state_digest"]


def test_train_step_descends_along_the_gradient_of_the_mean_loss(small):
    experiment = small(optimizer=Optimizer(learning_rate=0.5, momentum=0.9, weight_decay=0.01))
    model, optimizer, _, state, (data, _) = begin(experiment, ONE)
    batch = Batch(data.pixels[:32] - state.mean, data.labels[:32])

    def loss(params):
        logits, _ = model.apply({"params": params, "batch_stats": state.batch_stats}, batch.images, train=True,
                                mutable=["batch_stats"])
        return -jax.nn.log_softmax(logits)[jnp.arange(32), batch.labels].mean()

    gradient = jax.jit(jax.grad(loss))(state.params)
    expected = jax.tree.map(lambda w, g: w - 0.5 * (g + 0.01 * w), state.params, gradient)
    after, metrics = jax.jit(train_step, static_argnums=(0, 1))(model, optimizer, state, batch)
    assert same_trees(after.params, expected, 1e-5)
    assert float(metrics.loss) / 32 == pytest.approx(float(loss(state.params)), rel=1e-5)
    assert int(after.step) == 1


def test_one_device_and_eight_give_the_same_losses(small):
    experiment = small(batch_size=64, architecture=Architecture(depth=8, ghost_batch_size=32))
    one, _ = losses(experiment, jax.devices()[:1], [1] * 20)
    eight, _ = losses(experiment, jax.devices()[:8], [1] * 20)
    np.testing.assert_allclose(one, eight, atol=1e-5)
    assert one[-1] < one[0]


def test_many_steps_in_one_call_are_the_same_steps(small):
    (singly, a), (together, b) = (losses(small(), ONE, calls) for calls in ([1] * 6, [6]))
    np.testing.assert_allclose(singly, together, atol=1e-5)
    assert same_trees(a, b, 1e-4)


def test_scanned_and_unrolled_runs_have_the_same_losses(small):
    nets = (Architecture(depth=14, ghost_batch_size=16, unroll=unroll) for unroll in (0, 8))
    scanned, unrolled = (losses(small(architecture=net), ONE, [1] * 10)[0] for net in nets)
    np.testing.assert_allclose(scanned, unrolled, atol=1e-5)


def test_true_average_is_the_mean_over_batches(small):
    experiment = small(precise_batch_norm_steps=3)
    model, _, make_batch, state, inputs = begin(experiment, ONE)
    sums = jax.tree.map(jnp.zeros_like, state.batch_stats)
    found = add_batch_statistics(model, make_batch, 3, state, jax.tree.map(jnp.copy, sums), inputs)
    found = jax.tree.map(lambda total: total / 3, found)
    for step in range(3):
        batch = make_batch(state.replace(step=jnp.int32(step)), inputs)
        _, updated = model.clone(norm_momentum=0.0).apply(state.variables, batch.images, train=True,
                                                          mutable=["batch_stats"])
        sums = jax.tree.map(jnp.add, sums, updated["batch_stats"])
    assert same_trees(found, jax.tree.map(lambda total: total / 3, sums), 1e-4)
    assert not same_trees(found, state.batch_stats, 1e-2)


def test_no_statistics_steps_keep_the_moving_averages(small, tmp_path):
    moving, averaged = (train(small(precise_batch_norm_steps=count), tmp_path / str(count), ONE) for count in (0, 2))
    a, b = restore(tmp_path / "0").state, restore(tmp_path / "2").state
    assert same_trees(a.params, b.params, 0)
    assert not same_trees(a.batch_stats, b.batch_stats, 1e-3)
    assert moving["state_digest"] != averaged["state_digest"]


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(small, tmp_path):
    wild = small(optimizer=Optimizer(learning_rate=1e30), checkpoint_steps=1)
    with pytest.raises(Diverged, match=r"after step 1|at step [23]"):
        train(wild, tmp_path, ONE)
    assert not (tmp_path / "result.json").exists()


def test_last_good_checkpoint_is_named_and_kept(small, tmp_path, monkeypatch):
    real = train_steps.lower

    class Poisoned:
        """The steps, with a loss of NaN from step 4 on."""

        def lower(self, *arguments):
            compiled = real(*arguments).compile()

            def call(state, inputs):
                state, metrics = compiled(state, inputs)
                step = state.step - len(metrics.loss) + 1 + jnp.arange(len(metrics.loss))
                return state, metrics._replace(loss=jnp.where(step >= 4, jnp.nan, metrics.loss))

            return type("Lowered", (), {"compile": lambda _: call})()

    monkeypatch.setattr("resjax.training.classification.layout_for", lambda platform: PLAIN._replace(steps=Poisoned()))
    with pytest.raises(Diverged, match="the loss is nan at step 4"):
        train(small(), tmp_path, ONE)
    assert int(restore(tmp_path).state.step) == 2


def test_batch_must_divide_over_devices(small, tmp_path):
    with pytest.raises(BadInput, match="batch-size 32 is not divisible by the number of devices, 3"):
        train(small(), tmp_path, jax.devices()[:3])


def test_validation_images_are_measured_on_the_way(small, tmp_path):
    data = replace(small().data, validation_images=100)
    result = train(small(data=data, evaluate_steps=2), tmp_path, ONE)
    validation = read_metrics(tmp_path, "validation")
    assert [(line["step"], line["images"]) for line in validation] == [(2, 100), (4, 100), (6, 100)]
    assert [line["step"] for line in read_metrics(tmp_path, "test")] == [6]
    assert result["validation_top1_error"] == validation[-1]["top1_error"]


def test_full_disk_ends_the_run_with_an_error(small, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("resjax.training.log.os.fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        train(small(), tmp_path, ONE)


def test_bfloat16_runs_learn(small, tmp_path):
    experiment = small(steps=40, architecture=Architecture(depth=8, ghost_batch_size=16, precision="bfloat16"))
    assert train(experiment, tmp_path, ONE)["test_top1_error"] < 50


def test_optax_sgd_would_be_another_optimizer():
    """The rate stands inside the velocity: after a drop, the old velocity is not scaled down with it."""
    settings = Optimizer(learning_rate=0.1, decay_steps=(1,), weight_decay=0.0)
    ours = build_optimizer(settings, 1)
    other = optax.sgd(optax.piecewise_constant_schedule(0.1, {1: 0.1}), momentum=0.9)
    params = {"w": jnp.ones(1)}
    states, values = [ours.init(params), other.init(params)], [params, params]
    for _ in range(2):
        for i, (optimizer, extra) in enumerate(((ours, {"error": jnp.float32(0)}), (other, {}))):
            updates, states[i] = optimizer.update({"w": jnp.ones(1)}, states[i], values[i], **extra)
            values[i] = optax.apply_updates(values[i], updates)
    assert float(values[0]["w"][0]) == pytest.approx(1 - 0.1 - (0.9 * 0.1 + 0.01))
    assert float(values[1]["w"][0]) == pytest.approx(1 - 0.1 - 0.01 * (0.9 + 1))


def test_metrics_are_told_for_every_step_though_they_are_fetched_late(small, tmp_path):
    train(small(steps=9, log_steps=1, evaluate_steps=100, checkpoint_steps=100), tmp_path / "often", ONE)
    train(small(steps=9, log_steps=9, evaluate_steps=100, checkpoint_steps=100), tmp_path / "once", ONE)
    often = read_metrics(tmp_path / "often", "train")
    (once,) = read_metrics(tmp_path / "once", "train")
    assert [line["step"] for line in often] == list(range(1, 10))
    assert np.mean([line["loss"] for line in often]) == pytest.approx(once["loss"], rel=1e-4)


def test_the_seeds_of_a_run_are_not_those_of_another(small, tmp_path):
    digests = {train(small(seed=seed), tmp_path / str(seed), ONE)["state_digest"] for seed in (0, 1, 2)}
    assert len(digests) == 3


def test_the_largest_seed_trains(small, tmp_path):
    largest = 2**32 - 1
    assert train(small(seed=largest, steps=1), tmp_path, ONE)["seed"] == largest
    assert restore(tmp_path).experiment.seed == largest


def test_a_stop_between_the_lines_of_an_evaluation_keeps_both(small, tmp_path, monkeypatch):
    def record(log, line):
        recorded(log, line)
        if line["kind"] == "validation":
            os.kill(os.getpid(), signal.SIGINT)

    recorded = Log.record
    monkeypatch.setattr(Log, "record", record)
    with pytest.raises(Interrupted):
        train(small(data=replace(small().data, validation_images=100), evaluate_steps=2, evaluate_test=True), tmp_path,
              ONE)
    assert [(line["kind"], line["step"]) for line in read_metrics(tmp_path) if line["kind"] in ("validation", "test")
            ] == [("validation", 2), ("test", 2)]
