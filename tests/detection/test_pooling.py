"""The max pool and its gradient, which goes to the first of equal maxima."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from resjax.models.ops import max_pool


def reference(x):
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (1, 7, 9, 2), (1, 2, 1, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("ties", [False, True])
def test_output_and_gradient_are_jaxs_own(shape, ties):
    x = jax.random.normal(jax.random.key(0), shape)
    x = jnp.round(x) if ties else x
    y, gradient = jax.vjp(max_pool, x)
    wanted, wanted_gradient = jax.vjp(reference, x)
    dy = jax.random.normal(jax.random.key(1), y.shape)
    assert np.array_equal(y, wanted)
    np.testing.assert_allclose(gradient(dy)[0], wanted_gradient(dy)[0], rtol=1e-6, atol=1e-6)


def test_the_first_of_equal_maxima_has_the_gradient():
    x = jnp.zeros((1, 3, 3, 1))  # windows of the padded image; each begins at its upper left real pixel
    gradient = jax.grad(lambda x: max_pool(x).sum())(x)[0, :, :, 0]
    assert gradient.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_bfloat16_is_kept():
    x = jnp.ones((1, 4, 4, 1), jnp.bfloat16)
    assert jax.grad(lambda x: max_pool(x).astype(jnp.float32).sum())(x).dtype == jnp.bfloat16


def test_no_operation_of_the_gradient_adds_up_in_any_order():
    text = jax.jit(jax.grad(lambda x: max_pool(x).sum())).lower(jnp.ones((1, 8, 8, 1))).as_text()
    assert "select_and_scatter" not in text
    assert "scatter" not in text
