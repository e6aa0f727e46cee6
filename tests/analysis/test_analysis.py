"""Measurements on networks, against the same computed layer by layer; surgery on blocks; the fully connected net."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import same_trees
from jax import lax

from resjax.analysis import (
    activation_norms,
    gradient_norms,
    residual_ratios,
    with_identity_blocks,
    with_swapped_blocks,
    without_block,
)
from resjax.analysis.layers import WEIGHTS, in_order
from resjax.models import ResidualMLP, ResNet
from resjax.system.errors import BadInput

KEY = jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(1), (6, 8, 8, 1))
LABELS = jnp.arange(6)
NETS = {
    "mlp": lambda **more: ResidualMLP((3, 3), (16, 24), 10, "B", **more),
    "mlp-norm": lambda **more: ResidualMLP((3, 3), (16, 24), 10, "A", ghost_batch_size=6, **more),
    "mlp-plain": lambda **more: ResidualMLP((3,), (16,), 10, "plain", **more),
    "conv": lambda **more: ResNet((3, 2), 4, 10, "A", ghost_batch_size=6, **more),
}


def draw(model):
    """Variables with biases and statistics that are not those of a fresh net."""
    variables = jax.jit(model.init)(KEY, IMAGES)
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(variables))))
    return jax.tree.map(lambda x: x + 0.1 * jax.random.uniform(next(keys), x.shape, minval=-1), variables)


def blocks_of(variables):
    """List the blocks' parameters, the stacked ones apart."""
    params = variables["params"]
    for stage in sorted(name for name in params if name.startswith("stage")):
        yield stage, params[stage]["first"], True
        rest = params[stage].get("rest", {})
        for index in range(len(jax.tree.leaves(rest)[0]) if rest else 0):
            yield stage, jax.tree.map(lambda x, index=index: x[index], rest), False


def layer(name, p, x, stride=1):
    """One layer and its batch norm in training mode: outputs before and after the norm."""
    kernel = p[name]["kernel"]
    if kernel.ndim == 4:
        z = lax.conv_general_dilated(x, kernel, (stride, stride), ((1, 1), (1, 1)),
                                     dimension_numbers=("NHWC", "HWIO", "NHWC"))
    else:
        z = x @ kernel + p[name]["bias"]
    norm = p.get(f"bn{name[-1]}")
    if norm is None:
        return z, z
    axes = tuple(range(z.ndim - 1))
    return z, (z - z.mean(axes)) / jnp.sqrt(z.var(axes) + 1e-5) * norm["scale"] + norm["bias"]


@partial(jax.jit, static_argnums=0)
def by_hand(model, variables):
    """Run the net layer by layer, in training mode: logits, the layers' outputs, the blocks' inputs and residuals."""
    conv = "conv1" in variables["params"]
    name = "conv" if conv else "fc"
    x = IMAGES if conv else IMAGES.reshape(6, -1)
    z, y = layer(f"{name}1", variables["params"], x)
    x, outputs, inputs, residuals = jax.nn.relu(y), [z], [], []
    for stage, p, first in blocks_of(variables):
        stride = 2 if conv and first and stage != "stage1" else 1
        z1, y1 = layer(f"{name}1", p, x, stride)
        z2, y2 = layer(f"{name}2", p, jax.nn.relu(y1))
        added = x[:, ::stride, ::stride] if conv else x
        if "shortcut" in p:
            added = added @ p["shortcut"]["conv"]["kernel"]
        elif added.shape != y2.shape:
            added = jnp.pad(added, [(0, 0)] * (x.ndim - 1) + [(0, y2.shape[-1] - x.shape[-1])])
        outputs += [z1, z2]
        inputs.append(x)
        residuals.append(y2)
        x = jax.nn.relu(y2 + (0 if model.shortcut == "plain" else added))
    fc = variables["params"]["fc"]
    logits = (x.mean((1, 2)) if conv else x) @ fc["kernel"] + fc["bias"]
    return logits, [*outputs, logits], inputs, residuals


def size(x):
    return float(jnp.sqrt(jnp.square(x).sum()))


@pytest.mark.parametrize(("net", "unroll"), [("mlp", 0), ("mlp-plain", 8), ("conv", 0)])
def test_norms_are_those_of_a_computation_layer_by_layer(net, unroll):
    model = NETS[net](unroll=unroll)
    variables = draw(model)
    _, outputs, _, _ = by_hand(model, variables)
    expected = [size(y) / y.size**0.5 for y in outputs]
    np.testing.assert_allclose(activation_norms(model, variables, IMAGES), expected, rtol=1e-3)

    @jax.jit
    def loss(params):
        logits, *_ = by_hand(model, {**variables, "params": params})
        return -jax.nn.log_softmax(logits)[jnp.arange(6), LABELS].mean()

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    name = "conv" if net == "conv" else "fc"
    within = [p[f"{name}{i}"]["kernel"] for _, p, _ in blocks_of({"params": gradients}) for i in (1, 2)]
    kernels = [gradients[f"{name}1"]["kernel"], *within, gradients["fc"]["kernel"]]
    found = gradient_norms(model, variables, IMAGES, LABELS)
    np.testing.assert_allclose(found, [size(kernel) for kernel in kernels], rtol=2e-3)

    step = jax.tree.map(jnp.zeros_like, gradients)  # finite differences along the gradient of the last layer
    step["fc"]["kernel"] = gradients["fc"]["kernel"] / found[-1]
    up, down = (loss(jax.tree.map(lambda p, d, h=h: p + h * d, variables["params"], step)) for h in (1e-2, -1e-2))
    assert float(up - down) / 2e-2 == pytest.approx(float(found[-1]), rel=0.02)


def test_a_network_without_stages_is_not_measured_in_part():
    with pytest.raises(BadInput, match="layers can only be measured in plain and residual networks"):
        in_order({"convolutions": {}, "hidden": {"fc6": {}}, "fc": {}}, WEIGHTS)  # as in VGG


@pytest.mark.parametrize(("net", "unroll"), [("mlp", 0), ("mlp-norm", 8), ("conv", 0)])
def test_residual_ratios_are_those_of_a_computation_layer_by_layer(net, unroll):
    model = NETS[net](unroll=unroll)
    variables = draw(model)
    if "batch_stats" in variables:  # evaluation with the statistics of this very batch is training mode by hand
        update = partial(model.clone(norm_momentum=0.0).apply, train=True, mutable=["batch_stats"])
        _, updated = jax.jit(update)(variables, IMAGES)
        variables = {**variables, **updated}
    _, _, inputs, residuals = by_hand(model, variables)
    expected = [size(f) / size(x) for f, x in zip(residuals, inputs, strict=True)]
    np.testing.assert_allclose(residual_ratios(model, variables, IMAGES), expected, rtol=1e-3)


@pytest.mark.parametrize("net", ["mlp", "conv"])
def test_appended_identity_blocks_change_no_bit(net):
    model = NETS[net]()
    variables = draw(model)
    larger, more = with_identity_blocks(model, variables, stage=1, count=2, key=KEY)
    assert larger.blocks[1] == model.blocks[1] + 2
    expected = jax.eval_shape(larger.init, KEY, IMAGES)
    assert jax.tree.map(jnp.shape, more["params"]) == jax.tree.map(jnp.shape, expected["params"])
    np.testing.assert_array_equal(jax.jit(larger.apply)(more, IMAGES), jax.jit(model.apply)(variables, IMAGES))
    assert (residual_ratios(larger, more, IMAGES) == 0).sum() == 2
    smaller, fewer = without_block(larger, more, stage=1, index=larger.blocks[1] - 2)
    smaller, fewer = without_block(smaller, fewer, stage=1, index=smaller.blocks[1] - 2)
    assert smaller == model
    assert same_trees(fewer, variables, 0)


@pytest.mark.parametrize("net", ["mlp-norm", "conv"])
def test_blocks_are_taken_out_and_swapped(net):
    model = NETS[net]()
    variables = draw(model)
    blocks = [p for stage, p, _ in blocks_of(variables) if stage == "stage1"]
    smaller, fewer = without_block(model, variables, stage=0, index=0)
    assert [same_trees(p, q, 0) for p, q in zip([p for s, p, _ in blocks_of(fewer) if s == "stage1"],
                                                [blocks[0], blocks[2]], strict=True)] == [True, True]
    swapped = with_swapped_blocks(model, variables, 0, 0, 1)
    assert [same_trees(p, q, 0) for p, q in zip([p for s, p, _ in blocks_of(swapped) if s == "stage1"],
                                                [blocks[0], blocks[2], blocks[1]], strict=True)] == [True] * 3
    np.testing.assert_allclose(jax.jit(partial(smaller.apply, train=True, mutable=["batch_stats"]))(fewer, IMAGES)[0],
                               by_hand(smaller, fewer)[0], rtol=1e-3, atol=1e-3)
    last, alone = without_block(smaller, fewer, stage=0, index=0)
    assert last.blocks[0] == 1
    assert jax.eval_shape(last.apply, alone, IMAGES).shape == (6, 10)
    with pytest.raises(ValueError, match="block 2 does not exist; stage 0 has 2 identical blocks"):
        without_block(model, variables, stage=0, index=2)
    with pytest.raises(ValueError, match="stage is 7; it must be in 0"):
        with_swapped_blocks(model, variables, 7, 0, 1)


@pytest.mark.parametrize(("model", "wrong"), [
    (ResidualMLP((3,), (16,), 10, "plain"), "shortcut plain"), (ResidualMLP((3,), (16,), 10, "C"), "shortcut C"),
    (ResidualMLP((1,), (16,), 10, "A"), r"\(1,\) blocks")])
def test_identity_blocks_need_identity_shortcuts(model, wrong):
    with pytest.raises(ValueError, match=wrong):
        with_identity_blocks(model, jax.eval_shape(model.init, KEY, IMAGES), stage=0, count=1, key=KEY)


def test_the_fully_connected_net_draws_its_weights_with_the_gain():
    model = ResidualMLP((2,), (400,), 10, gain=3.0)
    params = jax.jit(model.init)(KEY, IMAGES)["params"]
    assert params["stage1"]["first"]["fc1"]["kernel"].std() == pytest.approx((3 / 400) ** 0.5, rel=0.02)
    assert not params["stage1"]["first"]["fc1"]["bias"].any()
