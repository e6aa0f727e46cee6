"""The loss around a network, against closed forms and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resjax import BadInput
from resjax.analysis import landscape
from resjax.analysis.landscape import filter_normalized
from resjax.models import ResidualMLP, ResNet

KEY = jax.random.key(0)


class Linear(nn.Module):
    """One fully connected layer of two classes."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="fc")(x.reshape(len(x), -1))


def directions(params):
    """The two directions of `landscape`, as float64 arrays."""
    return [np.float64(filter_normalized(params, key)["fc"]["kernel"]) for key in jax.random.split(KEY)]


@pytest.fixture(scope="module")
def linear():
    random = np.random.default_rng(0)
    kernel, bias = random.normal(size=(4, 2)).astype(np.float32), np.float32([0.3, -0.2])
    return {"params": {"fc": {"kernel": kernel, "bias": bias}}}, random.normal(size=(6, 2, 2, 1)).astype(np.float32)


def test_the_loss_of_a_linear_network_in_closed_form(linear):
    """Of two classes the cross-entropy is log(1 + exp(-margin)), and the margin is linear in a and b."""
    variables, pixels = linear
    labels = np.array([0, 1, 1, 0, 1, 0])
    found = landscape(Linear(), variables, pixels, labels, KEY, span=2.0, points=7)
    x, sign = np.float64(pixels.reshape(6, 4)), np.where(labels == 0, 1, -1)
    margin, d, e = (x @ (kernel[:, 0] - kernel[:, 1]) for kernel in (
        np.float64(variables["params"]["fc"]["kernel"]), *directions(variables["params"])))
    bias = np.subtract(*np.float64(variables["params"]["fc"]["bias"]))
    wanted = [[np.log1p(np.exp(-sign * (margin + bias + a * d + b * e))).mean() for b in np.linspace(-2, 2, 7)]
              for a in np.linspace(-2, 2, 7)]
    assert found.shape == (7, 7)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_near_the_origin_of_a_linear_network_it_is_a_quadratic(linear):
    """With opposite labels for every image the gradient at zero margin vanishes: L = log 2 + mean(m^2) / 8 + O(m^4)."""
    variables, pixels = linear
    params = variables["params"]
    centred = jax.tree.map(lambda w: jnp.broadcast_to(w.mean(-1, keepdims=True), w.shape), params)  # margin 0
    found = landscape(Linear(), {"params": centred}, np.concatenate([pixels, pixels]), np.repeat([0, 1], 6), KEY,
                      span=0.05, points=5)
    d, e = (pixels.reshape(6, 4) @ (kernel[:, 0] - kernel[:, 1]) for kernel in directions(centred))
    steps = np.linspace(-0.05, 0.05, 5)
    wanted = [[np.square(a * d + b * e).mean() / 8 for b in steps] for a in steps]
    np.testing.assert_allclose(found - np.log(2), wanted, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("model", [ResNet((3, 1), 4, 10, "B"), ResidualMLP((3,), (16,), 10, ghost_batch_size=4)],
                         ids=["convolutional", "fully connected"])
def test_every_filter_of_a_direction_is_as_long_as_the_networks(model):
    params = jax.device_get(jax.jit(model.init)(KEY, jnp.zeros((1, 4, 4, 1)))["params"])
    direction = filter_normalized(params, KEY)
    kernels = 0
    for (path, w), (_, d) in zip(*map(jax.tree_util.tree_leaves_with_path, (params, direction)), strict=True):
        names, d = [key.key for key in path], np.float64(d)
        if names[-1] != "kernel":
            assert not d.any()
            continue
        kernels += 1
        blocks = list(zip(w, d, strict=True)) if "rest" in names else [(w, d)]
        for kernel, drawn in blocks:
            filters = [np.linalg.norm(np.float64(x).reshape(-1, x.shape[-1]), axis=0) for x in (kernel, drawn)]
            np.testing.assert_allclose(*filters, rtol=1e-5)
            assert abs(np.corrcoef(kernel.ravel(), drawn.ravel())[0, 1]) < 0.5
    assert kernels >= 4


def test_the_network_itself_is_in_the_middle_and_its_batch_norm_keeps_its_statistics():
    model = ResNet((2,), 4, 10, ghost_batch_size=4)
    pixels, labels = jax.random.normal(KEY, (4, 8, 8, 1)), jnp.arange(4)
    variables = jax.jit(model.init)(KEY, pixels)
    found = landscape(model, variables, pixels, labels, KEY, points=3)
    logits = np.float64(jax.jit(model.apply)(variables, pixels))
    likelihoods = np.exp(logits)[np.arange(4), labels] / np.exp(logits).sum(1)
    assert found[1, 1] == pytest.approx(-np.log(likelihoods).mean(), rel=1e-5)
    assert np.array_equal(found, landscape(model, variables, pixels, labels, KEY, points=3))
    assert not np.array_equal(found, landscape(model, variables, pixels, labels, jax.random.key(1), points=3))


@pytest.mark.parametrize(("settings", "message"), [({"span": 0.0}, r"span is 0\.0; it must be above 0"),
                                                   ({"points": 1}, "points is 1; it must be at least 2")])
def test_refuses(settings, message, linear):
    with pytest.raises(BadInput, match=message):
        landscape(Linear(), linear[0], linear[1], np.zeros(6, int), KEY, **settings)
