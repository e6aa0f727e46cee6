"""What only XLA's CPU compiler needs is in the programs for CPU, and in no other: here without oneDNN."""

import re

import jax
import jax.numpy as jnp
import pytest

from resjax import ResNet
from resjax.models import onednn
from resjax.models.ops import materialize, relu


@pytest.fixture(scope="module")
def lowered():
    """The gradient of a network with bottlenecks, the last maps of 2x2, lowered for each platform on this machine."""
    model = ResNet((1, 1), filters=8, classes=4, block="bottleneck", shortcut="B", stem="7x7", ghost_batch_size=2)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))

    def loss(params, stats, x):
        logits, _ = model.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
        return logits.sum()

    traced = jax.jit(jax.grad(loss)).trace(variables["params"], variables["batch_stats"],
                                           jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onednn, "computes", lambda _: False)
        return {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda", "tpu")}


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
