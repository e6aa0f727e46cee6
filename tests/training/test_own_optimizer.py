"""Custom optimizers: they update each block separately, receive the loss, and are evaluated at averaged weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import resjax
from resjax import BadInput, BasicBlock, Interrupted, Stage, cifar_resnet, read_metrics, restore, train
from resjax.models.stacking import join_blocks, separate_blocks
from resjax.training.learning_rate import learning_rate
from resjax.training.own_optimizer import adapted, check_state

ONE = jax.devices()[:1]
PIXELS = np.random.default_rng(0).integers(0, 255, (64, 8, 8, 1), np.uint8)
DIGITS = resjax.dataset((PIXELS, np.arange(64) % 10), (PIXELS[:20], np.arange(20) % 10))


class Nested(nn.Module):
    """A stage inside of a block of a stage, and two layers that are named like the parts of a stage."""

    filters: int = 2
    stride: int = 1
    deep: bool = True

    @nn.compact
    def __call__(self, x, *, train=False):
        block = Nested if self.deep else BasicBlock
        x = Stage(lambda **given: block(**given, **{"deep": False} if self.deep else {}), 3, self.filters, 1)(x)
        return nn.Dense(10, name="rest")(nn.Dense(2, name="first")(x)) if self.deep else x


class Linear(nn.Module):
    """One fully connected layer."""

    @nn.compact
    def __call__(self, x, *, train=False):
        return nn.Dense(10, kernel_init=nn.initializers.zeros)(x.reshape(len(x), -1) / 64)


def parameters(model, channels=3):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, channels)))["params"]
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.float32(random.normal(size=leaf.shape)), shapes)


@pytest.mark.parametrize("model", [cifar_resnet(14), Nested()])
def test_blocks_are_separated_and_joined_again(model):
    params = parameters(model, 2 if isinstance(model, Nested) else 3)
    apart = separate_blocks(params)
    assert max(leaf.ndim for leaf in jax.tree.leaves(apart)) == 4
    assert {leaf.ndim for path, leaf in jax.tree_util.tree_flatten_with_path(apart)[0]
            if path[-1].key in ("scale", "bias")} == {1}
    again = join_blocks(apart, params)
    assert jax.tree.structure(again) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, params))


@pytest.fixture
def params():
    """The parameters of a stage of three blocks, and of a last layer."""
    random = np.random.default_rng(0)
    block, blocks = ({"conv": {"kernel": np.float32(random.normal(size=(*stack, 3, 3, 2, 2)))},
                      "bn": {"scale": np.ones((*stack, 2), np.float32)}} for stack in ((), (2,)))
    return {"stage1": {"first": block, "rest": blocks}, "fc": {"kernel": np.ones((2, 3), np.float32)}}


def test_the_usual_mask_of_weight_decay_leaves_out_all_vectors(params):
    optimizer = adapted(optax.adamw(0.1, mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)))
    updates, _ = optimizer.update(jax.tree.map(np.zeros_like, params), optimizer.init(params), params)
    decayed = {path[-1].key for path, leaf in jax.tree_util.tree_flatten_with_path(updates)[0] if np.any(leaf)}
    assert decayed == {"kernel"}


def test_a_trust_ratio_belongs_to_one_layer(params):
    params["stage1"]["rest"]["conv"]["kernel"][1] *= 100
    gradients = jax.tree.map(np.ones_like, params)
    optimizer, alone = adapted(optax.lamb(0.1)), optax.lamb(0.1)
    updates, state = optimizer.update(gradients, optimizer.init(params), params)
    for block in (0, 1):
        kernel = params["stage1"]["rest"]["conv"]["kernel"][block]
        wanted, _ = alone.update(np.ones_like(kernel), alone.init(kernel), kernel)
        np.testing.assert_allclose(updates["stage1"]["rest"]["conv"]["kernel"][block], wanted, rtol=1e-5)
    assert learning_rate(optimizer, state) == pytest.approx(0.1)


def named_only(seen):
    """An optimizer whose update takes `value` and nothing else."""
    def update(updates, state, params=None, *, value):
        seen.append(value)
        return updates, state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def test_an_optimizer_gets_the_arguments_that_it_takes():
    seen = []
    adapted(named_only(seen)).update({}, ((), None), {}, value=1, error=2)
    assert seen == [1]
    adapted(optax.sgd(0.1)).update({}, adapted(optax.sgd(0.1)).init({}), {}, value=1, error=2)


def test_a_plateau_of_the_loss_lowers_the_rate():
    """In training, the loss comes by the name that Optax's plateau expects."""
    optimizer = adapted(optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=0.1)))
    params = {"fc": np.ones(2, np.float32)}
    state, seen = optimizer.init(params), []
    for loss in (1.0, 0.5, 0.5, 0.5):
        updates, state = optimizer.update(params, state, params, value=jnp.float32(loss), error=jnp.float32(0))
        seen.append(float(updates["fc"][0]))
    assert seen == [-1.0, -1.0, -0.5, -0.25]


def test_an_average_needs_batch_statistics_of_its_own(params):
    state = adapted(optax.contrib.schedule_free_sgd(0.1)).init(params)
    check_state(state, False, 0)
    check_state(state, True, 1)
    with pytest.raises(BadInput, match=r"schedule-free .* precise-batch-norm-steps must be at least 1"):
        check_state(state, True, 0)


def test_a_schedule_free_optimizer_is_measured_and_kept_by_its_average(small, tmp_path):
    """Against Optax's own formula in every step; and a run that is cut off, and one that is made longer."""
    run, averages = small(steps=4, log_steps=1, batch_size=64, evaluate_steps=2, evaluate_test=True), []
    optimizer = optax.contrib.schedule_free_sgd(0.5, warmup_steps=1)

    def cut(line, network):
        if line["step"] == 3:
            raise Interrupted("enough", 2)

    own = {"data": DIGITS, "model": Linear(), "optimizer": optimizer}
    whole = train(run, tmp_path / "whole", ONE, **own, callback=lambda line, network: averages.append(network))
    trained = restore(tmp_path / "whole", model=Linear())
    assert resjax.evaluate(trained.network, DIGITS.test).top1_error == whole["test_top1_error"]
    final = averages[-1].variables["params"]["Dense_0"]["kernel"]
    assert not np.allclose(trained.state.params["Dense_0"]["kernel"], final, rtol=1e-3)
    with pytest.raises(Interrupted):
        train(run, tmp_path / "cut", ONE, **own, callback=cut)
    assert train(run, tmp_path / "cut", ONE, **own)["state_digest"] == whole["state_digest"]
    train(small(steps=2, log_steps=1, batch_size=64, evaluate_steps=2, evaluate_test=True), tmp_path / "longer", ONE,
          **own)
    assert train(run, tmp_path / "longer", ONE, **own)["state_digest"] == whole["state_digest"]
    lines = [[(line["step"], line["loss"]) for line in read_metrics(tmp_path / place, "test")]
             for place in ("whole", "cut", "longer")]
    assert lines[0] == lines[1] == lines[2]
