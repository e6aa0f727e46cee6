"""Programs for H100s and TPUs: read right, compiled, and our arithmetic for them against float64."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from resjax.models.batch_norm import batch_norm, in_one_pass, statistics
from resjax.models.convolutions import convolve, xla_convolution
from resjax.models.counts import count_macs
from resjax.models.ops import max_pool
from resjax.plan.classifier import programs_of_classifier
from resjax.plan.compile import Compiled, Program, compile_program, target_devices
from resjax.plan.devices import DEVICES, Machine, find_device
from resjax.plan.figures import figures
from resjax.plan.hlo import parse_hlo
from resjax.plan.kernels import read_kernels, valid_pairs
from resjax.system.errors import BadInput

AUDIT = Path(__file__).parents[2] / "experiments" / "results" / "accelerators.json"
LOOP = """
HloModule step, is_scheduled=true

%sums (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%sliced (p0: bf16[64,1024], p1: s32[]) -> bf16[1,1024] {
  %p0 = bf16[64,1024]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %row = bf16[1,1024]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,1024}
}

%updated (q0: f32[64,1024], q1: f32[1,1024], q2: s32[]) -> f32[64,1024] {
  %q0 = f32[64,1024]{1,0} parameter(0)
  %q1 = f32[1,1024]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %none = s32[] constant(0)
  ROOT %put = f32[64,1024]{1,0} dynamic-update-slice(%q0, %q1, %q2, %none)
}

%body (state: (s32[], f32[8,8,8,16], bf16[64,1024])) -> (s32[], f32[8,8,8,16], bf16[64,1024]) {
  %state = (s32[], f32[8,8,8,16]{3,2,1,0}, bf16[64,1024]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[8,8,8,16]{3,2,1,0} get-tuple-element(%state), index=1
  %table = bf16[64,1024]{1,0} get-tuple-element(%state), index=2
  %w = f32[16,3,3,16]{3,2,1,0} constant({...})
  %conv = (f32[8,8,8,16]{3,2,1,0}, u8[4096]{0}) custom-call(%x, /*index=1*/%w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %y = f32[8,8,8,16]{3,2,1,0} get-tuple-element(%conv), index=0
  %row.1 = bf16[1,1024]{1,0} fusion(%table, %i), kind=kLoop, calls=%sliced
  ROOT %next = (s32[], f32[8,8,8,16]{3,2,1,0}, bf16[64,1024]{1,0}) tuple(%i, %y, %table)
}

%condition (state.1: (s32[], f32[8,8,8,16], bf16[64,1024])) -> pred[] {
  %state.1 = (s32[], f32[8,8,8,16]{3,2,1,0}, bf16[64,1024]{1,0}) parameter(0)
  ROOT %always = pred[] constant(true)
}

ENTRY %main (m: f32[512,256], n: f32[256,128], log: f32[64,1024], line: f32[1,1024], start: (s32[], f32[8,8,8,16], bf16[64,1024])) -> f32[] {
  %m = f32[512,256]{1,0} parameter(0)
  %n = f32[256,128]{1,0:T(8,128)S(1)} parameter(1)
  %log = f32[64,1024]{1,0} parameter(2)
  %line = f32[1,1024]{1,0} parameter(3)
  %start = (s32[], f32[8,8,8,16]{3,2,1,0}, bf16[64,1024]{1,0}) parameter(4)
  %zero.1 = s32[] constant(0)
  %product = f32[512,128]{1,0} dot(%m, %n), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %kept = f32[64,1024]{1,0} fusion(%log, %line, %zero.1), kind=kLoop, calls=%updated
  %all-reduce.1 = f32[512,256]{1,0} all-reduce(%m), replica_groups={}, to_apply=%sums
  %loop = (s32[], f32[8,8,8,16]{3,2,1,0}, bf16[64,1024]{1,0}) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"10"}}
  ROOT %done = f32[] constant(0)
}
"""  # noqa: E501


def test_kernels_are_read_as_they_run():
    kernels = {kernel.name: kernel for kernel in read_kernels(LOOP)}
    assert set(kernels) == {"product", "kept", "all-reduce.1", "conv", "row.1"}
    assert [kernels[name].times for name in ("product", "conv", "row.1")] == [1, 10, 10]
    assert kernels["product"].macs == 512 * 128 * 256
    assert kernels["product"].bytes == 4 * (512 * 256 + 512 * 128)  # n lies on the chip
    assert kernels["kept"].bytes == 2 * 4096 + 4  # in place: the line read and written, and the index
    assert kernels["row.1"].bytes == 2 * 2048 + 4  # the slice, not the table
    assert kernels["all-reduce.1"].sent == 4 * 512 * 256
    assert kernels["conv"].bytes == 4 * (2 * 8 * 8 * 8 * 16 + 16 * 3 * 3 * 16)  # without the library's workspace
    real = (8 * 3 - 2) ** 2  # in each direction two of the 24 positions look at padding
    assert kernels["conv"].macs == 8 * real * 16 * 16
    assert {name: kernel.kind for name, kernel in kernels.items()} == {
        "product": "matrix product", "kept": "small", "all-reduce.1": "all-reduce", "conv": "convolution",
        "row.1": "small"}


def test_gradients_of_a_convolution_count_what_it_counts():
    """cuDNN's are told by the convolution forward; XLA's own by the spread-out image that they convolve."""
    forward, images, kernel, rows = 2 * 16 * 8, 14, 3, 7
    pairs = valid_pairs((images, kernel, rows), stride=2, pad=1)
    assert pairs == rows * kernel - 1
    assert valid_pairs((rows, kernel, images), pad=1, lhs_dilate=2) == pairs  # by the image
    assert valid_pairs((images, rows, kernel), pad=1, rhs_dilate=2) == pairs  # by the kernel
    text = """
ENTRY %main (x: f32[2,14,14,8], dy: f32[2,7,7,16]) -> f32[16,3,3,8] {
  %x = f32[2,14,14,8]{3,2,1,0} parameter(0)
  %dy = f32[2,7,7,16]{3,2,1,0} parameter(1)
  ROOT %dw = (f32[16,3,3,8]{3,2,1,0}, u8[0]{0}) custom-call(%x, %dy), window={size=3x3 stride=2x2 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
}
"""  # noqa: E501
    assert [kernel.macs for kernel in read_kernels(text)] == [forward * pairs**2]


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no entry computation"):
        parse_hlo("HloModule nothing")
    with pytest.raises(ValueError, match="does not state the number of iterations of its loop loop"):
        read_kernels(LOOP.replace("known_trip_count", "unknown"))


def test_a_step_is_bounded_by_what_each_kernel_needs():
    program, compiled = Program(lambda: None, 10), Compiled(LOOP, 1, 2, 3, 0.5)
    read = figures(program, compiled, Machine(find_device("h100"), 8), "tensorfloat32")
    assert read.kernels == pytest.approx((2 + 1 + 10 + 10) / 10)
    assert read.limits["launches"] == pytest.approx(2e-6 * (1 + 1 + 20) / 10)  # all are small
    assert read.collectives == {"all-reduce": (0.1, 0.1 * 4 * 512 * 256)}
    assert read.limits["exchange"] == pytest.approx(0.1 * max(2e-6, 2 * 7 / 8 * 4 * 512 * 256 / 450e9))
    slow = figures(program, compiled, Machine(find_device("v5e")), "float32")
    assert slow.limits["memory"] + slow.limits["arithmetic"] == pytest.approx(slow.seconds)


def of_platform(name):
    """Take the branch of another platform, on this one."""
    return lambda *values, default=None, **branches: branches.get(name, default)(*values)


def tree_means(*arrays):
    """Average in float32 by halves, as accelerators do; XLA's CPU adds up one by one, which costs three digits here."""
    for x in arrays:
        rows = np.asarray(x, np.float32).reshape(len(x), -1, x.shape[-1])
        count = rows.shape[1]
        rows = np.pad(rows, ((0, 0), (0, 2 ** math.ceil(math.log2(count)) - count), (0, 0)))
        while rows.shape[1] > 1:
            rows = rows[:, ::2] + rows[:, 1::2]
        yield rows[:, :, None, None] / np.float32(count)


@pytest.mark.parametrize("deviations", [0, 3, 1000])
@pytest.mark.parametrize(("platform", "dtype", "behind"), [
    ("cuda", "float32", None), ("tpu", "float32", None), ("cuda", "bfloat16", None), ("tpu", "bfloat16", 5)])
def test_variance_in_one_pass_is_that_of_float64(platform, dtype, behind, deviations, monkeypatch):
    """Whatever the running mean; but of a TPU's bfloat16, with one that is 5 standard deviations behind, which is more
    than a training's 0 is at first.
    """
    monkeypatch.setattr(lax, "platform_dependent", of_platform(platform))
    monkeypatch.setattr("resjax.models.batch_norm.means_together", tree_means)
    x = np.random.default_rng(0).normal(deviations, 1, (2, 32, 14, 14, 16)).astype(dtype)
    mean, var = statistics(x, jnp.zeros(16) if behind is None else jnp.full(16, float(deviations - behind)), 16)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(var, wide.var((1, 2, 3), keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(mean, wide.mean((1, 2, 3), keepdims=True), rtol=1e-5, atol=1e-5)
    assert var.dtype == mean.dtype == jnp.float32


def test_far_from_the_mean_a_variance_is_no_mere_rounding():
    """In one pass around 0, a mean of 1,000 deviations takes 20 bits; nothing may be divided by what is left of 24."""
    x = np.random.default_rng(0).normal(1000, 1, (1, 32, 14, 14, 16)).astype(np.float32)
    _, var = in_one_pass(x, jnp.zeros(16))
    assert 0.2 < var.min() <= var.max() < 2
    _, nothing = in_one_pass(np.ones_like(x), jnp.zeros(16))
    assert nothing.max() < 1e-6


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_gradients_are_those_of_float64_on_every_platform(platform, rectify, monkeypatch):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(1, 2, (2, 2, 8, 5, 3, 6))
    scale, bias = rng.normal(1, 0.3, 6), rng.normal(0, 1, 6)

    def reference(x, scale, bias):
        mean, var = (part(x, (1, 2, 3), keepdims=True) for part in (jnp.mean, jnp.var))
        y = (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias
        return jnp.maximum(y, 0) if rectify else y

    with jax.enable_x64(True):
        y, pull = jax.vjp(reference, *map(jnp.float64, (x, scale, bias)))
        wanted = [np.asarray(value) for value in (y, *pull(jnp.float64(dy)))]
    monkeypatch.setattr(lax, "platform_dependent", of_platform(platform))
    y, pull, *_ = jax.vjp(lambda *values: batch_norm(*values, 1e-5, jnp.zeros(6), rectify)[0],
                          *map(jnp.float32, (x, scale, bias)))
    for found, value in zip((y, *pull(jnp.float32(dy))), wanted, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-5 * np.abs(value).max())


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_max_pools_gradient_is_the_same_on_every_platform(platform, monkeypatch):
    x = jnp.round(jax.random.normal(jax.random.key(0), (2, 9, 8, 3)))  # with many equal values
    y, wanted = jax.vjp(lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1))), x)
    dy = jax.random.normal(jax.random.key(1), y.shape)
    monkeypatch.setattr(lax, "platform_dependent", of_platform(platform))
    np.testing.assert_allclose(jax.vjp(max_pool, x)[1](dy)[0], wanted(dy)[0], atol=1e-6)


def test_the_max_pools_gradient_is_xlas_own_on_a_tpu_only():
    traced = jax.jit(jax.grad(lambda x: max_pool(x).sum())).trace(jnp.ones((1, 8, 8, 1)))
    scatters = {name: "select_and_scatter" in traced.lower(lowering_platforms=(name,)).as_text()
                for name in ("cpu", "cuda", "tpu")}
    assert scatters == {"cpu": False, "cuda": False, "tpu": True}


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_gradients_of_a_convolution_are_the_same_on_every_platform(platform, monkeypatch):
    x, kernel = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(((2, 9, 8, 3), (3, 3, 3, 5))))
    y, wanted = jax.vjp(lambda *values: xla_convolution(*values, strides=(2, 2), padding=((1, 1), (1, 1)),
                                                        precision=None), x, kernel)
    dy = jax.random.normal(jax.random.key(2), y.shape)
    monkeypatch.setattr(lax, "platform_dependent", of_platform(platform))
    found = jax.vjp(lambda *values: convolve(*values, (2, 2), ((1, 1), (1, 1))), x, kernel)[1](dy)
    for one, other in zip(found, wanted(dy), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_slice_that_is_brought_onto_the_chip_is_read():
    """Written down by XLA's flags, where elements of tuples have names of their own."""
    (made, copied, found) = read_kernels("""HloModule slices
%slicing (p: f32[8,128]) -> f32[2,128] {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %slice.1 = f32[2,128]{1,0:T(2,128)S(1)} slice(%p), slice={[0:2], [0:128]}
}
ENTRY %main (n: f32[8,128]) -> f32[2,128] {
  %n = f32[8,128]{1,0:T(8,128)} parameter(0)
  %custom = ((s32[], f32[8,128]{1,0:T(8,128)S(1)}), f32[8,128]{1,0:T(8,128)}) custom-call(%n), target="halve"
  %copy = f32[8,128]{1,0:T(8,128)} copy(%custom#0#1)
  %slice-start = ((f32[8,128]{1,0}), f32[2,128]{1,0:S(1)}, s32[]{:S(2)}) async-start(%custom#1), calls=%slicing
  ROOT %slice-done = f32[2,128]{1,0:T(2,128)S(1)} async-done(%slice-start)
}
""")
    assert made.bytes == 2 * 4 * 8 * 128 + 4
    assert copied.bytes == 4 * 8 * 128  # from the chip
    assert found.bytes == 4 * 2 * 128


def test_what_is_summed_on_the_chip_is_sent_all_the_same():
    (found,) = read_kernels("""HloModule sums
ENTRY %main (n: f32[256,128]) -> f32[256,128] {
  %n = f32[256,128]{1,0:T(8,128)S(1)} parameter(0)
  ROOT %all-reduce = f32[256,128]{1,0:T(8,128)S(1)} all-reduce(%n), replica_groups={}, to_apply=%add
}
""")
    assert (found.kind, found.bytes, found.sent) == ("all-reduce", 0, 4 * 256 * 128)


@pytest.mark.parametrize(("name", "count"), [("h100", 1), ("h100", 8), ("v5e", 1)])
def test_the_cifar_step_compiles(name, count, small):
    """On eight GPUs one sum of the gradients a step, of the parameters' bytes and those of the batch statistics."""
    machine = Machine(DEVICES[name], count)
    try:
        devices = target_devices(machine)
    except BadInput as error:
        pytest.skip(str(error))
    experiment = small(batch_size=16 * count)
    kind, program = next(programs_of_classifier(experiment, devices))
    read = figures(program, compile_program(program), machine, "float32")
    assert kind == "train"
    assert read.kernels > 50
    macs = 3 * 16 * count_macs(experiment.architecture.model(10), (8, 8, 1))  # forward, and two gradients
    assert 0.7 * macs < read.macs < macs  # the first layer has one gradient, and padding is not multiplied with
    assert read.argument_bytes + read.temporary_bytes <= read.peak_bytes + 1
    assert set(read.collectives) <= {"all-reduce"}
    if count > 1:
        parameters = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(
            experiment.architecture.model(10).init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]))
        assert 4 * parameters <= sum(size for _, size in read.collectives.values()) <= 4.2 * parameters


def test_the_audit_stays_within_its_bars():
    """Bytes and kernels of the committed audit against stock Flax in the same run."""
    if not AUDIT.is_file():
        pytest.skip(f"{AUDIT.name} is not there: python experiments/benchmarks/accelerators.py makes it")
    audit = json.loads(AUDIT.read_text())
    ours, stock = (audit["h100"][name] for name in ("resnet50", "stock_resnet50"))
    assert ours["bytes"] <= 0.95 * stock["bytes"]
    assert ours["kernels"] <= stock["kernels"]
    assert audit["h100"]["resnet20"]["kernels"] <= 300
    if "v5e" in audit:
        ours, stock = (audit["v5e"][name] for name in ("resnet50", "stock_resnet50"))
        assert ours["compiler_bytes"] <= stock["compiler_bytes"]
