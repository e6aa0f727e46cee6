"""The form of the state and the steps that accelerators get: the same training, and the same on disk."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import same_trees
from flax import linen as nn

from resjax import Interrupted, Optimizer, ResNet, train
from resjax.data import Batch
from resjax.system.distributed import batch_sharding, replicated
from resjax.training import build_optimizer, initial_state, loop, restore, state_digest
from resjax.training.packing import PACKED, PLAIN, Packed, most_unstacked

ONE = jax.devices()[:1]
MODEL = ResNet((1, 2, 3), filters=4, classes=3, ghost_batch_size=4)
CAREFUL = Optimizer(learning_rate=0.01)


def first_state(optimizer=None):
    return initial_state(MODEL, optimizer or build_optimizer(CAREFUL, 1), np.zeros((8, 8, 3)), 0)


def steps(form, most, calls, devices=ONE):
    """Losses and last state of a few steps on one batch."""
    random, spread = np.random.default_rng(0), batch_sharding(devices)
    batch = Batch(jnp.float32(random.normal(size=(8, 8, 8, 3))), jnp.int32(random.integers(0, 3, 8)))
    batch = jax.device_put(batch, spread)
    state, found = form.pack(jax.device_put(first_state(), replicated(spread)), most), []
    programs = {count: form.steps.lower(MODEL, build_optimizer(CAREFUL, 1), same_batch, count, state, batch).compile()
                for count in set(calls)}
    for count in calls:
        state, metrics = programs[count](state, batch)  # which lies where the program wants it
        found.extend(metrics.loss)
    return np.array(found), form.unpack(state)


def same_batch(_, batch):
    return batch


@pytest.fixture(scope="module")
def plain():
    return steps(PLAIN, 0, (1, 1, 1, 1))


@pytest.mark.parametrize(("most", "calls", "devices"), [
    (0, (1, 1, 1, 1), 1), (1, (1, 1, 1, 1), 1), (8, (3, 1), 1), (8, (1, 1, 1, 1), 8)])
def test_packed_steps_are_the_same_steps(plain, most, calls, devices):
    """With no stage, some, or all of them taken apart; in a loop and alone; on one device and on eight."""
    (plain, wanted), (packed, found) = plain, steps(PACKED, most, calls, jax.devices()[:devices])
    np.testing.assert_allclose(packed, plain, rtol=1e-5)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    assert same_trees((found.params, found.opt_state), (wanted.params, wanted.opt_state), 1e-5)
    assert same_trees(found.batch_stats, wanted.batch_stats, 1e-5)


@pytest.mark.parametrize("optimizer", [
    build_optimizer(CAREFUL, 1), build_optimizer(replace(CAREFUL, backbone_rate=0.1, clip_norm=1.0, ema_decay=0.9), 1),
    build_optimizer(replace(CAREFUL, method="adamw"), 1), optax.adam(0.1)])
def test_what_is_packed_comes_back_bit_for_bit(optimizer):
    state = first_state(optax.with_extra_args_support(optimizer))
    again = PACKED.unpack(PACKED.pack(jax.tree.map(jnp.copy, state), 8))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), again, state))


def test_blocks_that_are_compiled_one_by_one_lie_apart_and_loops_keep_their_stack():
    def kernels(most):
        params = PACKED.pack(first_state(), most).params
        assert isinstance(params, Packed)
        return [leaf.shape for leaf in params.large if leaf.ndim == 5]  # stacks of `[height, width, in, out]`

    assert kernels(8) == []
    assert [shape[0] for shape in kernels(1)] == [2, 2]  # of stage 3, its two convolutions
    assert [shape[0] for shape in kernels(0)] == [1, 1, 2, 2]
    assert (most_unstacked(MODEL), most_unstacked(nn.Dense(2))) == (8, 0)


@pytest.fixture
def packed_for(monkeypatch):
    """Train on this machine as on an accelerator; lists for how many blocks a state was packed."""
    asked = []

    def pack(state, most):
        asked.append(most)
        return PACKED.pack(state, most)

    monkeypatch.setattr("resjax.training.classification.layout_for", lambda platform: PACKED._replace(pack=pack))
    return asked


def test_a_packed_run_is_measured_stopped_and_resumed_as_any(small, tmp_path, packed_for, monkeypatch):
    run = small(steps=12, log_steps=2, evaluate_steps=4, checkpoint_steps=4, precise_batch_norm_steps=0)
    whole = train(run, tmp_path / "whole", ONE)
    real = loop.pause

    def stopped(run, state, metrics, stop):
        real(run, state, metrics, 15 if int(state.step) == 8 else stop)

    monkeypatch.setattr(loop, "pause", stopped)
    with pytest.raises(Interrupted):
        train(run, tmp_path / "stopped", ONE)
    monkeypatch.setattr(loop, "pause", real)
    assert train(run, tmp_path / "stopped", ONE)["state_digest"] == whole["state_digest"]
    assert packed_for == [8, 8, 8]
    assert state_digest(restore(tmp_path / "stopped").state) == whole["state_digest"]  # by whoever does not pack


def test_a_network_stays_stacked_for_an_optimizer_of_ones_own(small, tmp_path, packed_for):
    train(small(steps=2, precise_batch_norm_steps=0), tmp_path, ONE, optimizer=optax.sgd(0.01))
    assert packed_for == [0]
