"""Exact errors: every image once, whatever the batch size and the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from resjax import evaluate
from resjax.data import Images, Preprocessing
from resjax.evaluation import error_rates, log_probabilities
from resjax.network import Classifier

COUNT, CLASSES = 103, 7


class Table(nn.Module):
    """A network whose logits are the pixels."""

    @nn.compact
    def __call__(self, x):
        return x.reshape(len(x), -1)


def table(mean):
    return Classifier(Table(), {}, Preprocessing(mean))


def images():
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 20, (COUNT, 1, CLASSES, 1)).astype(np.uint8), rng.integers(0, CLASSES, COUNT))


def expected(images):
    """Ties go to the earlier class, as with a stable sort."""
    logits = images.pixels.reshape(COUNT, CLASSES).astype(np.float64)
    order = np.argsort(-logits, axis=1, kind="stable")
    shifted = logits - logits.max(1, keepdims=True)
    loss = (np.log(np.exp(shifted).sum(1)) - shifted[np.arange(COUNT), images.labels]).mean()
    wrong = [100 * (1 - (order[:, :k] == images.labels[:, None]).any(1).mean()) for k in (1, 5)]
    return *wrong, loss


@pytest.mark.parametrize("batch_size", [1, 10, 103, 500])
def test_errors_are_exact_for_any_batch_size(batch_size):
    found = evaluate(table(jnp.zeros((1, CLASSES, 1))), images(), batch_size)
    assert found.images == COUNT
    np.testing.assert_allclose(found[:3], expected(images()), rtol=1e-6)


def test_errors_are_exact_on_eight_devices():
    mesh = jax.make_mesh((8,), ("batch",), devices=jax.devices()[:8], axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    mean, data = jax.device_put((jnp.zeros((1, CLASSES, 1)), images()), everywhere)
    seen = log_probabilities(table(mean), data, 16, NamedSharding(mesh, PartitionSpec("batch")))
    found = error_rates(seen, images().labels)
    np.testing.assert_allclose(found[:3], expected(images()), rtol=1e-6)


def test_the_mean_is_subtracted():
    data = Images(np.array([[[[3], [5]]]], np.uint8), np.array([0]))
    assert evaluate(table(jnp.zeros((1, 2, 1))), data, 4).top1_error == 100
    assert evaluate(table(jnp.array([[[0.0], [4.0]]])), data, 4).top1_error == 0


def test_logits_that_are_not_finite_are_errors():
    found = evaluate(table(jnp.full((1, CLASSES, 1), jnp.nan)), images(), 50)
    assert (found.top1_error, found.top5_error) == (100, 100)


def test_fewer_than_five_classes():
    data = Images(np.array([[[[3], [5]]]], np.uint8), np.array([0]))
    assert evaluate(table(jnp.zeros((1, 2, 1))), data, 4).top5_error == 0


def test_one_logit_that_is_not_finite_makes_an_image_wrong():
    data = Images(np.uint8([[[[9], [1], [0]]]]), np.array([0]))
    seen = log_probabilities(table(jnp.array([[[0.0], [np.inf], [0.0]]])), data, 1)
    assert np.isnan(seen).all()
    assert error_rates(seen, np.array([0]))[:2] == (100, 100)


def test_a_probability_below_every_float32_keeps_its_logarithm():
    data = Images(np.uint8([[[[0], [200]]]]), np.array([0]))
    assert evaluate(table(jnp.zeros((1, 2, 1))), data).loss == pytest.approx(200)
