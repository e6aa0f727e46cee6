"""Convolution as a primitive: by oneDNN on CPU, by XLA elsewhere, both against NumPy in float64."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from resjax.models import onednn
from resjax.models.convolutions import convolutions_of, convolve, xla_convolution
from resjax.system import custom_call

ALL, NONE = 0, 1 << 62  # multiply-adds from which on oneDNN computes


@pytest.fixture
def by_onednn(monkeypatch):
    """Have oneDNN compute convolutions of every size."""
    if not convolutions_of("cpu").startswith("oneDNN"):
        pytest.skip(f"convolutions by {convolutions_of('cpu')}")
    monkeypatch.setattr(onednn, "SMALL", ALL)


@pytest.fixture(params=["oneDNN", "XLA"])
def way(request, monkeypatch):
    """Have oneDNN compute, then XLA."""
    if request.param == "oneDNN":
        request.getfixturevalue("by_onednn")
    else:
        monkeypatch.setattr(onednn, "SMALL", NONE)


# images, height, width, channels, size, filters, stride, padding: the repository's layers, and odd ones
SHAPES = {
    "first layer": (4, 32, 32, 3, 3, 16, 1, 1), "identity": (8, 32, 32, 16, 3, 16, 1, 1),
    "stride 2": (8, 16, 16, 16, 3, 32, 2, 1), "projection": (4, 16, 16, 32, 1, 64, 2, 0),
    "stem": (2, 64, 64, 3, 7, 64, 2, 3), "bottleneck": (2, 14, 14, 64, 1, 256, 1, 0),
    "grey digits": (3, 8, 8, 1, 3, 16, 1, 1), "2x2 map": (6, 2, 2, 8, 3, 8, 1, 1), "1x1 map": (2, 1, 1, 8, 3, 8, 1, 1),
    "one image": (1, 38, 50, 8, 3, 16, 1, 1), "odd": (5, 13, 9, 5, 3, 7, 2, 1), "prime batch": (7, 6, 6, 4, 3, 4, 1, 1),
    "large kernel": (4, 7, 7, 256, 3, 256, 1, 1),
}


def arrays(shape):
    images, height, width, channels, size, filters, stride, padding = shape
    random = np.random.default_rng(0)
    x = random.normal(size=(images, height, width, channels))
    kernel = random.normal(size=(size, size, channels, filters))
    y = [(pixels + 2 * padding - size) // stride + 1 for pixels in (height, width)]
    return x, kernel, random.normal(size=(images, *y, filters)), (stride, stride), ((padding, padding),) * 2


def by_definition(x, kernel, dy, strides, padding):
    """y, dx and dkernel by the sum that defines them, in float64, one pixel of the kernel at a time."""
    (stride, _), ((pad, _), _) = strides, padding
    rows, columns = dy.shape[1:3]
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    y, dpadded, dkernel = np.zeros_like(dy), np.zeros_like(padded), np.zeros_like(kernel)
    for i, j in np.ndindex(kernel.shape[:2]):
        seen = np.s_[:, i:i + stride * (rows - 1) + 1:stride, j:j + stride * (columns - 1) + 1:stride]
        y += padded[seen] @ kernel[i, j]
        dpadded[seen] += dy @ kernel[i, j].T
        dkernel[i, j] = np.tensordot(padded[seen], dy, ((0, 1, 2), (0, 1, 2)))
    return y, dpadded[:, pad:pad + x.shape[1], pad:pad + x.shape[2]], dkernel


def with_gradients(x, kernel, dy, strides, padding):
    y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, strides, padding), x, kernel)
    return (y, *pull(dy))


def difference(found, right):
    return np.abs(np.asarray(found, np.float64) - right).max() / np.abs(right).max()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_definition(name, precision):
    *values, strides, padding = arrays(SHAPES[name])
    rounded = [np.asarray(jnp.asarray(value, precision), np.float64) for value in values]
    computed = jax.jit(partial(with_gradients, strides=strides, padding=padding))
    found = computed(*(jnp.asarray(value, precision) for value in values))
    for one, right in zip(found, by_definition(*rounded, strides, padding), strict=True):
        assert one.dtype == precision
        assert difference(one, right) < {"float32": 1e-5, "bfloat16": 8e-3}[precision]


@pytest.mark.usefixtures("way")
def test_derivatives_of_every_order_and_mode():
    x, kernel, _, strides, padding = arrays((3, 6, 5, 2, 3, 4, 2, 1))
    x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)

    def curvature(way):
        loss = lambda x, kernel: (way(x, kernel) ** 3).sum()  # noqa: E731
        return jax.jit(lambda *at: jax.jvp(jax.grad(loss, (0, 1)), at, (at[0] + 1, at[1] - 1))[1])(x, kernel)

    ours = curvature(lambda x, kernel: convolve(x, kernel, strides, padding))
    theirs = curvature(partial(xla_convolution, strides=strides, padding=padding, precision=None))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("way")
def test_loops_maps_and_checkpoints():
    x, kernel, _, strides, padding = arrays((4, 6, 6, 3, 3, 3, 1, 1))
    x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    once = jax.jit(partial(convolve, strides=strides, padding=padding))
    twice = once(once(x, kernel), kernel)
    looped = lax.scan(lambda y, _: (once(y, kernel), None), x, length=2)[0]
    np.testing.assert_array_equal(jax.jit(lambda: looped)(), twice)
    pair = jax.vmap(once, (0, None))(jnp.stack([x, 2 * x]), kernel)
    np.testing.assert_allclose(pair, jnp.stack([once(x, kernel), once(2 * x, kernel)]), rtol=1e-5, atol=1e-5)
    kernels = jax.vmap(once, (None, 3), 1)(x, jnp.stack([kernel, -kernel], 3))
    np.testing.assert_allclose(kernels[:, 1], -once(x, kernel), rtol=1e-5, atol=1e-5)
    again = jax.grad(jax.checkpoint(lambda kernel: once(x, kernel).sum()))(kernel)
    np.testing.assert_allclose(again, jax.grad(lambda kernel: once(x, kernel).sum())(kernel), rtol=1e-6)


def traced():
    x, kernel = jax.ShapeDtypeStruct((8, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 4), jnp.float32)
    loss = lambda x, kernel: convolve(x, kernel, (1, 1), ((1, 1), (1, 1))).sum()  # noqa: E731
    return jax.jit(jax.value_and_grad(loss, 1)), (x, kernel)


@pytest.mark.usefixtures("by_onednn")
def test_only_a_program_for_this_cpu_calls_onednn():
    function, shapes = traced()
    assert function.lower(*shapes).as_text().count(f"@{onednn.TARGET}(") == 2
    for platform in ("cuda", "tpu"):
        assert "custom_call" not in function.trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    assert "custom_call" not in jax.export.export(function, platforms=("cpu", "cuda", "tpu"))(*shapes).mlir_module()


@pytest.mark.usefixtures("by_onednn")
def test_small_convolutions_are_left_to_xla(monkeypatch):
    work = 8 * (8 * 8) * (3 * 3 * 3) * 4  # images, pixels, a kernel's values, filters
    for smallest, calls in ((work, 2), (work + 1, 0)):
        monkeypatch.setattr(onednn, "SMALL", smallest)
        function, shapes = traced()
        assert function.lower(*shapes).as_text().count(f"@{onednn.TARGET}(") == calls


@pytest.mark.usefixtures("by_onednn")
def test_images_shared_among_devices_stay_where_they_are():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel, _, strides, padding = arrays((16, 8, 8, 4, 3, 4, 1, 1))
    placed = (jax.device_put(jnp.asarray(x, jnp.float32), NamedSharding(mesh, P("data"))),
              jax.device_put(jnp.asarray(kernel, jnp.float32), NamedSharding(mesh, P())))
    loss = lambda x, kernel: (convolve(x, kernel, strides, padding) ** 2).mean()  # noqa: E731
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*placed).compile()
    assert "all-gather" not in compiled.as_text()
    value, (dx, dkernel) = compiled(*placed)
    alone, (dx_alone, dkernel_alone) = jax.value_and_grad(loss, (0, 1))(*map(np.asarray, placed))
    assert value == pytest.approx(float(alone), rel=1e-5)
    assert dx.sharding.spec == P("data")
    np.testing.assert_allclose(dx, dx_alone, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(dkernel, dkernel_alone, rtol=1e-4, atol=1e-6)


def test_jaxs_default_precision_is_that_of_the_call_for_gradients_too():
    function, shapes = traced()
    with jax.default_matmul_precision("float32"):
        program = function.trace(*shapes)
    text = program.lower(lowering_platforms=("cuda",)).as_text()
    assert (text.count("stablehlo.convolution("), text.count("precision HIGHEST")) == (2, 2 * 2)


def test_outside_of_jit_a_convolution_compiles_once(monkeypatch):
    lowered, computes = [], onednn.computes
    monkeypatch.setattr(onednn, "computes", lambda g: lowered.append(g) or computes(g))
    x, kernel = jnp.ones((3, 9, 9, 2)), jnp.ones((3, 3, 2, 5))
    several = [convolve(x, kernel, (1, 1), ((1, 1), (1, 1))) for _ in range(3)]
    assert len(lowered) == 1
    with jax.disable_jit():  # used to recurse without end
        np.testing.assert_array_equal(convolve(x, kernel, (1, 1), ((1, 1), (1, 1))), several[2])


BITS = """
import os
os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:{cores}]))
import hashlib, jax, numpy as np
from resjax.models import onednn
from resjax.models.convolutions import convolve
onednn.SMALL = 0
random = np.random.default_rng(0)
x, kernel = (random.normal(size=shape).astype("f") for shape in ((16, 9, 9, 8), (3, 3, 8, 8)))
f = jax.jit(jax.grad(lambda x, kernel: (convolve(x, kernel, (1, 1), ((1, 1), (1, 1))) ** 3).sum(), (0, 1)))
print(hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in f(x, kernel))).hexdigest())
"""


@pytest.mark.usefixtures("by_onednn")
def test_one_core_and_two_give_the_same_bits():
    found = {subprocess.run([sys.executable, "-c", BITS.format(cores=cores)], capture_output=True, text=True,
                            check=True, timeout=120).stdout for cores in (1, 2)}
    assert len(found) == 1


class FakeFile:
    """A file of an installed package whose content is not what was installed."""

    name = "libdnnl.so.3"

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"\x7fELF, cut off")
        self.path, self.hash = path, type("Hash", (), {"value": "digest of another content"})

    def locate(self):
        return self.path


@pytest.mark.parametrize(("files", "environment", "told"), [
    (lambda path: [FakeFile(path)], "1", "is damaged; reinstall it: pip install --force-reinstall onednn-cpu-gomp"),
    (lambda path: [], "1", "onednn-cpu-gomp is not installed"),
    (lambda path: None, "0", "RESJAX_ONEDNN=0"),
])
def test_without_the_library_xla_computes_and_says_why(files, environment, told, monkeypatch, tmp_path):
    monkeypatch.setenv("RESJAX_ONEDNN", environment)
    monkeypatch.setattr(onednn, "SMALL", ALL)
    monkeypatch.setattr(onednn, "files", lambda _: files(tmp_path / "library"))
    load_anew(monkeypatch)
    assert told in convolutions_of("cpu")
    function, shapes = traced()
    assert "custom_call" not in function.lower(*shapes).as_text()


@pytest.mark.usefixtures("by_onednn")
def test_a_processor_that_is_refused(monkeypatch):
    monkeypatch.setattr(onednn, "AVX2", 1 << 30)
    load_anew(monkeypatch)
    assert "or this processor is unsupported" in convolutions_of("cpu")


def load_anew(monkeypatch):
    """Have the library loaded at every call. The one in use stays: its primitives belong to its engine."""
    monkeypatch.setattr(onednn, "library", onednn.library.__wrapped__)


def test_an_error_in_a_handler_is_raised_where_the_program_ran():
    def fail(call):
        call.share(lambda pieces: [1 // (piece - 3) for piece in pieces], 8)

    custom_call.register("resjax_test_failure", fail)
    x = jnp.ones(4)
    call = jax.ffi.ffi_call("resjax_test_failure", jax.ShapeDtypeStruct((4,), jnp.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="ZeroDivisionError"):
        jax.block_until_ready(jax.jit(lambda x: call(x, attribute=np.arange(3)))(x))


def test_every_piece_is_computed_once():
    seen = []

    def note(call):
        call.share(seen.extend, 100)

    custom_call.register("resjax_test_pieces", note)
    call = jax.ffi.ffi_call("resjax_test_pieces", jax.ShapeDtypeStruct((4,), jnp.float32))
    jax.block_until_ready(jax.jit(lambda x: call(x, attribute=np.arange(3)))(jnp.ones(4)))
    assert sorted(seen) == list(range(100))


LATE = """
import time
from ctypes import CFUNCTYPE, c_void_p
import jax, numpy as np
from resjax.system import custom_call
real = custom_call.task
custom_call.task = CFUNCTYPE(None, c_void_p)(lambda number: (time.sleep(0.3), real(number))[0])
custom_call.register("late", lambda call: call.share(lambda pieces: [None for _ in pieces], 8))
call = jax.ffi.ffi_call("late", jax.ShapeDtypeStruct((4,), np.float32))
jax.block_until_ready(jax.jit(lambda x: call(x, attribute=np.arange(3)))(np.ones(4, np.float32)))
"""


def test_a_process_whose_threads_start_late_ends():
    """JAX's exit used to wait for such a thread forever, holding the lock that the thread needed."""
    subprocess.run([sys.executable, "-c", LATE], check=True, timeout=60)
