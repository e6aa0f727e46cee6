"""The gradients that we write ourselves, against those that JAX derives; and batch norm against NumPy in float64."""

import os
import subprocess
import sys
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from resjax.models import BatchNorm
from resjax.models.batch_norm import batch_norm
from resjax.models.convolutions import convolve
from resjax.models.ops import relu


def random(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def close(a, b, tolerance=2e-5):
    scale = max(float(jnp.abs(jnp.asarray(b)).max()), 1e-6)
    np.testing.assert_allclose(np.asarray(a) / scale, np.asarray(b) / scale, atol=tolerance)


@pytest.mark.parametrize("looped", [False, True])
@pytest.mark.parametrize(("size", "stride", "height", "width"),
                         [(3, 1, 8, 8), (3, 2, 8, 8), (3, 2, 9, 7), (1, 1, 5, 4), (1, 2, 8, 7), (7, 2, 14, 13),
                          (3, 1, 2, 2), (3, 1, 1, 5), (3, 2, 4, 3), (3, 2, 1, 2), (7, 2, 5, 9)])
def test_convolution_and_its_gradients_are_xlas(size, stride, height, width, looped):
    x, kernel, pad = random(0, 5, height, width, 3), random(1, size, size, 3, 4), ((size // 2, size // 2),) * 2

    def ours(x, kernel):
        return convolve(x, kernel, (stride, stride), pad, precision="float32")

    def xlas(x, kernel):
        return lax.conv_general_dilated(x, kernel, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def gradients(conv, x, kernel):
        y, pull = jax.vjp(conv, x, kernel)
        return y, *pull(random(2, *y.shape))

    run = jax.jit(lambda x, k: gradients(ours, x, k))
    if looped:
        run = jax.jit(lambda x, k: jax.tree.map(lambda a: a[0], lax.scan(
            lambda c, _: (c, gradients(ours, *c)), (x, k), length=2)[1]))
    for found, expected in zip(run(x, kernel), gradients(xlas, x, kernel), strict=True):
        close(found, expected)


def derived_batch_norm(x, scale, bias, epsilon):
    """Batch norm as JAX differentiates it."""
    mean = x.mean((1, 2, 3), keepdims=True)
    var = jnp.square(x - mean).mean((1, 2, 3), keepdims=True)
    return (x - mean) / jnp.sqrt(var + epsilon) * scale + bias, mean, var


@pytest.mark.parametrize("shift", [0.0, 10.0])
def test_batch_norm_and_its_gradients(shift):
    x, scale, bias = random(0, 2, 4, 5, 3, 6) + shift, 1 + 0.1 * random(1, 6), random(2, 6)
    dy = random(3, *x.shape)

    def gradients(norm):
        (y, mean, var), pull = jax.vjp(lambda *arguments: norm(*arguments, 1e-5), x, scale, bias)
        return y, mean, var, *pull((dy, jnp.zeros_like(mean), jnp.zeros_like(var)))

    for found, expected in zip(gradients(batch_norm), gradients(derived_batch_norm), strict=True):
        close(found, expected, 1e-4)


def test_relu_and_its_gradient():
    x, dy = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0, 1e30]), jnp.arange(1.0, 7.0)
    y, pull = jax.vjp(relu, x)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(pull(dy)[0], [0, 0, 0, 4, 5, 6])


def test_statistics_are_those_of_each_group_even_far_from_zero():
    x = np.asarray(random(0, 12, 4, 4, 3)) + 100 * np.arange(12).reshape(12, 1, 1, 1) // 4
    norm = BatchNorm(train=True, ghost_batch_size=4)
    variables = norm.init(jax.random.key(0), x)
    y, updated = norm.apply(variables, x, mutable=["batch_stats"])
    groups = x.astype(np.float64).reshape(3, 4, 4, 4, 3)
    mean, var = groups.mean((1, 2, 3), keepdims=True), groups.var((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(y, ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape), atol=1e-3)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * mean.mean((0, 1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * var.mean((0, 1, 2, 3)), rtol=1e-4)


def test_evaluation_uses_the_running_statistics():
    x = random(0, 3, 2, 2, 5)
    stats = {"mean": jnp.arange(5.0), "var": 1 + jnp.arange(5.0)}
    params = {"scale": jnp.full(5, 2.0), "bias": jnp.ones(5)}
    y = BatchNorm(train=False).apply({"params": params, "batch_stats": stats}, x)
    close(y, (x - stats["mean"]) / jnp.sqrt(stats["var"] + 1e-5) * 2 + 1)


def test_groups_must_divide_the_batch():
    with pytest.raises(ValueError, match="a batch of 6 images cannot be divided into groups of 4"):
        BatchNorm(train=True, ghost_batch_size=4).init(jax.random.key(0), jnp.zeros((6, 2, 2, 3)))


@pytest.mark.parametrize("group", [2, 8, 16])
def test_groups_give_the_same_numbers_on_eight_devices(group):
    x, norm = random(0, 16, 4, 4, 3), BatchNorm(train=True, ghost_batch_size=group)
    variables = norm.init(jax.random.key(0), x)
    apply = jax.jit(lambda v, x: norm.apply(v, x, mutable=["batch_stats"]))
    mesh = jax.make_mesh((8,), ("batch",), devices=jax.devices()[:8], axis_types=(AxisType.Auto,))
    spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
    everywhere = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    alone, together = jax.tree.leaves(apply(variables, x)), jax.tree.leaves(apply(everywhere, spread))
    for one, eight in zip(alone, together, strict=True):
        close(eight, one, 1e-6)


def test_importing_resjax_sets_the_flag_or_warns_that_it_is_too_late():
    def python(code, **more):
        environment = {**os.environ, "XLA_FLAGS": "--xla_cpu_enable_fast_math=false", **more}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)

    early = python("import os, resjax; print(os.environ['XLA_FLAGS'])")
    assert early.stdout.startswith("--xla_cpu_enable_fast_math=false")  # the user's own stay
    jaxlib = tuple(map(int, version("jaxlib").split(".")[:3]))
    assert ("--xla_cpu_experimental_ynn_fusion_type=" in early.stdout) == (jaxlib >= (0, 10, 2))
    late = python("import jax; jax.devices(); import resjax", RESJAX_DETERMINISTIC="1")
    assert "JAX was already running when resjax" in late.stderr
    code = "import os, resjax, jax; print(os.environ['XLA_FLAGS'], jax.numpy.ones(3).sum())"
    repeatable = python(code, RESJAX_DETERMINISTIC="1").stdout  # a flag that this jaxlib did not know would abort it
    assert ("--xla_gpu_exclude_nondeterministic_ops=true --xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false "
            "3.0") in repeatable
    assert "nondeterministic" not in early.stdout
