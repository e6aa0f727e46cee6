"""Blocks, shortcuts and stages against the formulas of the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import same_trees
from jax import lax

from resjax.models import ResNet, Shortcut, cifar_resnet
from resjax.models.counts import count_macs

KEY = jax.random.key(0)


def random_images(*shape):
    return jax.random.normal(jax.random.key(7), shape)


def conv(x, kernel, stride=1):
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), ((pad, pad), (pad, pad)),
                                    dimension_numbers=("NHWC", "HWIO", "NHWC"))


def norm(x, parameters):
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / jnp.sqrt(var + 1e-5) * parameters["scale"] + parameters["bias"]


def in_training(model, **settings):
    """The network in training mode, compiled: its result, and what it changed."""
    settings = {"mutable": ["batch_stats"]} | settings
    return jax.jit(lambda variables, x: model.apply(variables, x, train=True, **settings))


def shortcut_of(option, x, filters, stride, parameters):
    if option == "plain":
        return 0
    if option == "C" or (option == "B" and stride == 2):
        return norm(conv(x, parameters["conv"]["kernel"], stride), parameters["bn"])
    return jnp.concatenate([x[:, ::stride, ::stride], jnp.zeros((*x[:, ::stride, ::stride].shape[:3],
                                                                 filters - x.shape[-1]))], -1)


def written_out(params, option, x, blocks):
    """The whole CIFAR net as the paper's section 4.2 says it, block by block, in plain jnp."""
    x = jax.nn.relu(norm(conv(x, params["conv1"]["kernel"]), params["bn1"]))
    for stage in range(3):
        stacked = params[f"stage{stage + 1}"]
        rest = [jax.tree.map(lambda leaf, i=i: leaf[i], stacked["rest"]) for i in range(blocks - 1)]
        for number, p in enumerate([stacked["first"], *rest]):
            stride = 2 if stage > 0 and number == 0 else 1
            y = jax.nn.relu(norm(conv(x, p["conv1"]["kernel"], stride), p["bn1"]))
            y = norm(conv(y, p["conv2"]["kernel"]), p["bn2"])
            x = jax.nn.relu(y + shortcut_of(option, x, 16 * 2**stage, stride, p.get("shortcut")))
    return x.mean((1, 2)) @ params["fc"]["kernel"] + params["fc"]["bias"]


@pytest.mark.parametrize("option", ["plain", "A", "B", "C"])
def test_network_is_the_papers_formula(option):
    model, x = cifar_resnet(14, option, ghost_batch_size=4), random_images(4, 8, 8, 3)
    variables = jax.jit(model.init)(KEY, x)
    logits, _ = in_training(model)(variables, x)
    expected = jax.jit(written_out, static_argnums=(1, 3))(variables["params"], option, x, 2)
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)


def test_shortcut_a_takes_every_second_pixel_and_appends_zeros():
    x = random_images(2, 5, 6, 3)
    y = Shortcut("A", None, None).apply({}, x, 8, 2)
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])
    assert y.shape == (2, 3, 3, 8)
    assert not y[..., 3:].any()


@pytest.mark.parametrize("option", ["A", "B"])
def test_shortcuts_a_and_b_are_the_identity_where_dimensions_stay(option):
    x = random_images(2, 4, 4, 8)
    assert Shortcut(option, None, None).apply({}, x, 8, 1) is x


@pytest.mark.parametrize("stride_in", ["1x1", "3x3"])
def test_bottleneck_is_the_papers_formula(stride_in):
    model = ResNet((1, 1), filters=4, classes=5, shortcut="B", block="bottleneck", stride_in=stride_in,
                   ghost_batch_size=2)
    x = random_images(2, 8, 8, 3)
    variables = jax.jit(model.init)(KEY, x)
    _, state = in_training(model, mutable=["batch_stats", "intermediates"],
                           capture_intermediates=lambda module, _: module.name in ("stage1", "first"))(variables, x)
    seen, p = state["intermediates"], variables["params"]["stage2"]["first"]
    x, (found,) = seen["stage1"]["__call__"][0], seen["stage2"]["first"]["__call__"]
    first, second = (2, 1) if stride_in == "1x1" else (1, 2)
    y = jax.nn.relu(norm(conv(x, p["conv1"]["kernel"], first), p["bn1"]))
    y = jax.nn.relu(norm(conv(y, p["conv2"]["kernel"], second), p["bn2"]))
    y = norm(conv(y, p["conv3"]["kernel"]), p["bn3"])
    y = jax.nn.relu(y + norm(conv(x, p["shortcut"]["conv"]["kernel"], 2), p["shortcut"]["bn"]))
    np.testing.assert_allclose(found, y, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("side", ["fan_in", "fan_out"])
def test_he_initialisation(side):
    params = jax.jit(cifar_resnet(8, initialization=side).init)(KEY, jnp.zeros((1, 8, 8, 3)))["params"]
    kernel = params["stage3"]["first"]["conv1"]["kernel"]  # 3x3, 32 to 64
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * (32 if side == "fan_in" else 64))), rel=0.03)
    assert np.abs(kernel).max() > 3.2 * kernel.std()  # normal, not cut off at two deviations


def test_scanned_and_unrolled_stages_share_parameters_and_agree():
    x = random_images(8, 8, 8, 3)
    scanned, unrolled = (cifar_resnet(20, ghost_batch_size=8, unroll=unroll) for unroll in (0, 8))
    variables = jax.jit(scanned.init)(KEY, x)
    assert same_trees(variables, jax.jit(unrolled.init)(KEY, x), 0)

    def loss(model):
        return lambda params: jnp.square(model.apply({**variables, "params": params}, x, train=True,
                                                     mutable=["batch_stats"])[0]).mean()

    (a, da), (b, db) = (jax.jit(jax.value_and_grad(loss(model)))(variables["params"]) for model in (scanned, unrolled))
    assert float(a) == pytest.approx(float(b), abs=1e-5)
    assert same_trees(da, db, 1e-4)


def test_program_does_not_grow_with_depth():
    def size(depth):
        model = cifar_resnet(depth)
        variables = jax.eval_shape(model.init, KEY, jnp.zeros((1, 8, 8, 3)))
        return len(str(jax.make_jaxpr(model.apply)(variables, jnp.zeros((1, 8, 8, 3)))))

    assert size(1202) < 1.05 * size(20)


def test_bfloat16_computes_narrow_and_keeps_wide():
    model, x = cifar_resnet(8, precision="bfloat16", ghost_batch_size=8), random_images(8, 8, 8, 3)
    variables = jax.jit(model.init)(KEY, x)
    logits, updated = in_training(model)(variables, x)
    exact, _ = in_training(model.clone(precision="float32"))(variables, x)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated, logits))} == {jnp.dtype("float32")}
    assert 1e-4 < np.abs(logits - exact).max() / np.abs(exact).max() < 0.1


def test_a_width_is_an_argument():
    variables = jax.eval_shape(cifar_resnet(8, filters=32).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert variables["params"]["conv1"]["kernel"].shape == (3, 3, 3, 32)
    assert variables["params"]["fc"]["kernel"].shape == (128, 10)


def test_images_of_any_size_are_counted_without_their_memory():
    small, large = (count_macs(cifar_resnet(8), (side, side, 3)) for side in (32, 100_000))
    last = 64 * 10
    assert large == (small - last) * 3125**2 + last
