"""What only XLA's CPU compiler needs is in the programs for CPU, and in no other: here without oneDNN."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from resjax import BatchNorm, ResNet
from resjax.models import onednn
from resjax.models.ops import from_bfloat16, materialize, relu, to_bfloat16


def lower(precision):
    """Lower the gradient of a network with bottlenecks, the last maps of 2x2, for each platform on this machine."""
    model = ResNet((1, 1), filters=8, classes=4, block="bottleneck", shortcut="B", stem="7x7", ghost_batch_size=2,
                   precision=precision)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))

    def loss(params, stats, x):
        logits, _ = model.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
        return logits.sum()

    traced = jax.jit(jax.grad(loss)).trace(variables["params"], variables["batch_stats"],
                                           jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn, "computes", lambda _: False)
        return {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda", "tpu")}


@pytest.fixture(scope="module")
def lowered():
    return lower("float32")


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_plain_programs(lowered, platform):
    text = lowered[platform]
    assert "optimization_barrier" not in text
    assert "stablehlo.minimum" not in text  # of `materialize`
    assert text.count("stablehlo.dot_general") <= 3  # the last layer's: a 1x1 convolution stays one


def test_the_cpu_gets_its_own(lowered):
    text = lowered["cpu"]
    assert "optimization_barrier" in text
    assert "stablehlo.minimum" in text
    assert text.count("stablehlo.dot_general") > 15
    small = re.compile(r"stablehlo\.convolution.*: \(tensor<2x2x2x\d+xf32>, tensor<3x3x")
    assert small.search(lowered["tpu"])
    assert not small.search(text)  # smaller maps than the kernel are padded before


def test_what_is_stored_is_what_was_computed():
    x = jnp.array([0.0, -0.0, 1.5, -3e38, 3e38, jnp.inf, -jnp.inf, jnp.nan])
    stored = jax.jit(materialize)(x)
    assert stored[:-1].tolist() == x[:-1].tolist()
    assert jnp.isnan(stored[-1])
    assert jax.jit(relu)(x)[5] == jnp.inf


def test_bfloat16_is_rounded_to_the_nearest_and_widened_exactly_whatever_the_bits():
    bits = np.random.default_rng(0).integers(0, 2**32, 2**16, np.uint32)
    ties = np.arange(2**16, dtype=np.uint32) << 16 | 0x8000  # between any two neighbours
    x = np.concatenate([bits, ties, ties - 1, ties + 1]).view(np.float32)
    with np.errstate(invalid="ignore"):
        rounded = np.asarray(jax.jit(to_bfloat16, static_argnums=(1, 2))(x, x.shape, True))
        np.testing.assert_array_equal(rounded.astype(np.float32), x.astype(ml_dtypes.bfloat16).astype(np.float32))
    narrow = np.arange(2**16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(from_bfloat16(jnp.asarray(narrow), (256, 256)).ravel(), narrow.astype(np.float32))


def test_xla_itself_rounds_no_images_to_bfloat16_on_a_cpu():
    """Its own rounding takes four times as long (docs/results/onednn.md)."""
    of_images = re.compile(r"stablehlo\.convert.*: \(tensor<(?:1x)?2x\S*xf32>\) -> tensor<\S*xbf16>")
    text = lower("bfloat16")
    assert len(of_images.findall(text["cpu"])) == 2  # the network's input, and the gradient of the average over pixels
    assert len(of_images.findall(text["cuda"])) > 15


@pytest.mark.parametrize("rectify", [False, True])
def test_batch_norm_in_bfloat16_and_its_first_and_second_derivatives(rectify):
    """The same as on accelerators, where it has the plain shapes, up to bfloat16's rounding."""
    x = jax.random.normal(jax.random.key(0), (6, 20, 5, 3)).astype(jnp.bfloat16)
    weights = jax.random.normal(jax.random.key(1), x.shape)
    norm = BatchNorm(train=True, ghost_batch_size=3, rectify=rectify)
    variables = norm.init(jax.random.key(0), x)

    def loss(x):
        y, _ = norm.apply(variables, x, mutable=["batch_stats"])
        return jnp.sum(weights * y.astype(jnp.float32)**2)

    def derivatives(x):
        return loss(x), jax.grad(loss)(x), jax.grad(lambda x: jnp.sum(weights * jax.grad(loss)(x)))(x)

    compute = jax.jit(derivatives)
    for one, other in zip(compute(x), compute(x.astype(jnp.float32)), strict=True):
        assert float(jnp.abs(one - other).max()) < 0.03 * float(jnp.abs(other).max())
