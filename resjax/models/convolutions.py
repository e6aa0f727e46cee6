"""Convolution and its two gradients as JAX primitives. The implementation is chosen when a program is lowered.

The convolution y = x * k and its two gradients are three operations. Each is bilinear, and its gradients are again
among the three:

    convolution(x, k) = y        input_gradient(dy, k) = dx        kernel_gradient(x, dy) = dk

On GPU and TPU, all three are XLA's own operations. On CPU, oneDNN (`resjax.models.onednn`) computes an operation if it
is installed and faster than XLA. Otherwise, this module uses the form for which XLA's CPU compiler generates the
fastest code. It transposes the operands of the two gradients itself, because the compiler does so only outside of loops
(jax-ml/jax#12868); inside `scan`, they would be thirty times slower. 1x1 convolutions become matrix products. If a map
is smaller than the kernel, the padding is a separate operation, because XLA would otherwise be ten times slower.
Exported programs use XLA's convolution, which is portable.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax._src.dispatch import apply_primitive, prim_requires_devices_during_lowering
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from resjax.models import onednn

LAYOUT = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]


def convolve(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, *, precision: Any = None,
             **how: Any) -> jax.Array:
    """Convolve `[batch, height, width, in]` with `[size, size, in, out]`; can be passed to `nn.Conv`.

    `padding` has the pixels before and after, for height and for width. The default precision, also of the gradients,
    is that of the `jax.default_matmul_precision` around this call. XLA computes dilated and grouped convolutions.
    """
    if x.shape[3] != kernel.shape[2] or {*how.get("lhs_dilation", ()), *how.get("rhs_dilation", ())} - {1}:
        how = {"dimension_numbers": LAYOUT, "precision": precision} | how
        return lax.conv_general_dilated(x, kernel, strides, padding, **how)
    y: jax.Array = convolution_p.bind(x, kernel, strides=tuple(strides), padding=tuple(map(tuple, padding)),
                                      precision=precision or jax.default_matmul_precision.value)
    return y


def xla_convolution(x: jax.Array, kernel: jax.Array, *, strides: Any, padding: Any, precision: Any,
                    lhs_dilation: Any = (1, 1)) -> jax.Array:
    """Convolve with XLA's own operation."""
    return lax.conv_general_dilated(x, kernel, strides, padding, lhs_dilation, dimension_numbers=LAYOUT,
                                    precision=precision)


def input_gradient_of(way: Any, dy: jax.Array, kernel: jax.Array, size: Pair, **how: Any) -> jax.Array:
    """Compute dx as the transpose of a convolution function; `size` is the height and width of x."""
    x = jax.ShapeDtypeStruct((len(dy), *size, kernel.shape[2]), dy.dtype)
    dx: jax.Array = jax.linear_transpose(lambda x: way(x, kernel, **how), x)(dy)[0]
    return dx


def kernel_gradient_of(way: Any, x: jax.Array, dy: jax.Array, size: Pair, **how: Any) -> jax.Array:
    """Compute the kernel's gradient as the transpose of a convolution function; `size` is the kernel's."""
    kernel = jax.ShapeDtypeStruct((*size, x.shape[3], dy.shape[3]), dy.dtype)
    dkernel: jax.Array = jax.linear_transpose(lambda kernel: way(x, kernel, **how), kernel)(dy)[0]
    return dkernel


def cpu_convolution(x: jax.Array, kernel: jax.Array, *, strides: Any, padding: Any, precision: Any) -> jax.Array:
    """Convolve with XLA on CPU, as the module docstring describes."""
    if is_pointwise(kernel.shape[:2], padding):
        return pointwise(x, kernel, strides=strides, precision=precision)
    way = padded_convolution if smaller_than_kernel(x.shape[1:3], kernel.shape[:2]) else xla_convolution
    return way(x, kernel, strides=strides, padding=padding, precision=precision)


def cpu_input_gradient(dy: jax.Array, kernel: jax.Array, *, size: Pair, strides: Any, padding: Any,
                       precision: Any) -> jax.Array:
    """Compute dx: convolve dy, dilated by the stride, with the flipped kernel."""
    if is_pointwise(kernel.shape[:2], padding):
        return input_gradient_of(pointwise, dy, kernel, size, strides=strides, precision=precision)
    full = [(k - 1 - low, n + low - s * (m - 1) - 1) for k, (low, _), n, m, s in
            zip(kernel.shape[:2], padding, size, dy.shape[1:3], strides, strict=True)]
    way = padded_convolution if smaller_than_kernel(dy.shape[1:3], kernel.shape[:2]) else xla_convolution
    return way(dy, kernel[::-1, ::-1].transpose(0, 1, 3, 2), strides=(1, 1), padding=full, lhs_dilation=strides,
               precision=precision)


def cpu_kernel_gradient(x: jax.Array, dy: jax.Array, *, size: Pair, strides: Any, padding: Any,
                        precision: Any) -> jax.Array:
    """Compute the kernel's gradient: convolve x with dy, with x's channels as the batch and images as the channels."""
    if is_pointwise(size, padding):
        return kernel_gradient_of(pointwise, x, dy, size, strides=strides, precision=precision)
    full = [(low, k + s * (m - 1) - n - low) for k, (low, _), n, m, s in
            zip(size, padding, x.shape[1:3], dy.shape[1:3], strides, strict=True)]
    return lax.conv_general_dilated(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), (1, 1), full,
                                    rhs_dilation=strides, dimension_numbers=LAYOUT,
                                    precision=precision).transpose(1, 2, 0, 3)


def is_pointwise(size: Any, padding: Any) -> bool:
    """Return whether a convolution is a matrix product at every pixel that it reads."""
    return tuple(size) == (1, 1) and padding == ((0, 0), (0, 0))


def smaller_than_kernel(pixels: Any, size: Any) -> bool:
    """Return whether a map is smaller than the kernel, so that every window reaches into the padding."""
    return any(n < k for n, k in zip(pixels, size, strict=True))


def pointwise(x: jax.Array, kernel: jax.Array, *, strides: Any, precision: Any) -> jax.Array:
    """Multiply every pixel's channels by a kernel `[1, 1, in, out]`."""
    y = lax.dot_general(x[:, ::strides[0], ::strides[1]], kernel, (((3,), (2,)), ((), ())), precision=precision)
    return y.reshape(*y.shape[:3], -1)


def padded_convolution(x: jax.Array, kernel: jax.Array, *, strides: Any, padding: Any, precision: Any,
                       lhs_dilation: Any = (1, 1)) -> jax.Array:
    """Convolve after padding and dilating separately; a barrier keeps XLA from merging the operations."""
    borders = [(low, high, apart - 1) for (low, high), apart in zip(padding, lhs_dilation, strict=True)]
    x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *borders, (0, 0, 0))))
    return xla_convolution(x, kernel, strides=strides, padding=((0, 0), (0, 0)), precision=precision)


# The primitives -----------------------------------------------------------------------------------------------------

def result_shape(x: Any, kernel: Any, *, strides: Any, padding: Any, precision: Any) -> tuple[int, ...]:
    """Return the shape `[batch, rows, columns, out]` of the result."""
    return (x.shape[0], *((n + low + high - k) // s + 1 for n, k, (low, high), s in
                          zip(x.shape[1:3], kernel.shape[:2], padding, strides, strict=True)), kernel.shape[3])


class Operation(NamedTuple):
    """One of the three operations, with its direction for oneDNN, its sharding rule for Shardy, its result shape, and
    its implementations in XLA, one for all platforms and one for CPU.
    """

    name: str
    direction: int
    sharding_rule: str
    shape: Callable[..., tuple[int, ...]]
    xla: Callable[..., jax.Array]
    on_cpu: Callable[..., jax.Array]


CONVOLUTION = Operation(
    "convolution", onednn.FORWARD, "n h w i, k l i o -> n p q o", result_shape, xla_convolution, cpu_convolution)
INPUT_GRADIENT = Operation(
    "input_gradient", onednn.INPUT_GRADIENT, "n p q o, k l i o -> n h w i",
    lambda dy, kernel, size, **_: (dy.shape[0], *size, kernel.shape[2]),
    partial(input_gradient_of, xla_convolution), cpu_input_gradient)
KERNEL_GRADIENT = Operation(
    "kernel_gradient", onednn.KERNEL_GRADIENT, "n h w i, n p q o -> k l i o",
    lambda x, dy, size, **_: (*size, x.shape[3], dy.shape[3]),
    partial(kernel_gradient_of, xla_convolution), cpu_kernel_gradient)


def primitive(operation: Operation) -> Primitive:
    """Create the primitive of an operation, with all JAX rules except its gradients."""
    made = Primitive(operation.name)
    made.def_abstract_eval(lambda a, b, **how: a.update(shape=operation.shape(a, b, **how), weak_type=False))
    made.def_impl(partial(apply_primitive, made))  # compiles once per shape
    batching.primitive_batchers[made] = partial(batched, made, operation)
    mlir.register_lowering(made, mlir.lower_fun(operation.xla, multiple_results=False))

    def lower(context: Any, a: Any, b: Any, **how: Any) -> Any:
        way, exported = operation.on_cpu, context.module_context.lowering_parameters.for_export
        known = context.avals_in[0].dtype.name in onednn.DATA_TYPES and not exported
        if known and onednn.computes(geometry_of(operation, *context.avals_in, **how)):
            way = partial(shared, operation)
        return mlir.lower_fun(way, multiple_results=False)(context, a, b, **how)

    mlir.register_lowering(made, lower, platform="cpu")
    prim_requires_devices_during_lowering.add(made)  # as custom_partitioning does, because there is no public way
    return made


def convolutions_of(platform: str) -> str:
    """Return the library that computes convolutions on a platform: "oneDNN 3.2.0", or "XLA" with the reason."""
    try:
        return f"oneDNN {onednn.library().version}" if platform == "cpu" else "XLA"
    except onednn.Unavailable as reason:
        return f"XLA ({reason})"


def geometry_of(operation: Operation, a: Any, b: Any, **how: Any) -> onednn.Geometry:
    """Describe an operation for oneDNN. Raises KeyError for unsupported dtypes."""
    result = operation.shape(a, b, **how)
    x, kernel, y = {onednn.FORWARD: (a.shape, b.shape, result), onednn.INPUT_GRADIENT: (result, b.shape, a.shape),
                    onednn.KERNEL_GRADIENT: (a.shape, result, b.shape)}[operation.direction]
    before, after = zip(*how["padding"], strict=True)
    numbers = (operation.direction, onednn.DATA_TYPES[a.dtype.name], *x, *kernel[:2], y[3], y[2], y[1])
    return onednn.Geometry._make((*numbers, how["strides"], before, after))


def by_onednn(operation: Operation, a: Any, b: Any, **how: Any) -> Any:
    """Call oneDNN."""
    values = np.hstack(geometry_of(operation, a, b, **how)).astype(np.int64)
    shape = operation.shape(a, b, **how)
    if a.dtype == jnp.float32:
        return jax.ffi.ffi_call(onednn.TARGET, jax.ShapeDtypeStruct(shape, a.dtype))(a, b, geometry=values)
    # pass rows of bits, as in `on_rows`, which XLA need not convert or copy
    rows = [lax.bitcast_convert_type(x, jnp.uint16).reshape(*x.shape[:2], -1) for x in (a, b)]
    result = jax.ShapeDtypeStruct((*shape[:2], shape[2] * shape[3]), jnp.uint16)
    y = jax.ffi.ffi_call(onednn.TARGET, result)(*rows, geometry=values)
    return lax.bitcast_convert_type(y.reshape(shape), a.dtype)


def shared(operation: Operation, a: Any, b: Any, **how: Any) -> Any:
    """Call oneDNN on each device's own images if the batch is sharded."""
    local: Any = partial(by_onednn, operation, **how)
    rule, summed = operation.sharding_rule, operation is KERNEL_GRADIENT
    call = custom_partitioning(local)

    def partition(mesh: Any, arguments: Any, _: Any) -> Any:
        over = next(iter(arguments[0].sharding.spec), None)
        images, whole = NamedSharding(mesh, P(over)), NamedSharding(mesh, P())
        if not summed:
            return mesh, local, images, (images, whole)
        return mesh, lambda a, b: lax.psum(local(a, b), over) if over else local(a, b), whole, (images, images)

    whole_axes = tuple(dict.fromkeys(axis for axis in rule if axis in "hwiklopq"))  # in the order of the sharding rule
    call.def_partition(partition, sharding_rule=rule, need_replication_factors=whole_axes,
                       **({"reduction_factors": ("n",)} if summed else {}))
    return call(a, b)


def batched(made: Primitive, operation: Operation, arguments: Any, axes: Any, **how: Any) -> Any:
    """Map over an additional axis, sequentially on CPU and in parallel elsewhere."""
    [size, *_] = [x.shape[axis] for x, axis in zip(arguments, axes, strict=True) if axis is not None]
    a, b = (batching.bdim_at_front(x, axis, size) for x, axis in zip(arguments, axes, strict=True))
    return lax.platform_dependent(a, b, cpu=lambda a, b: lax.map(lambda pair: made.bind(*pair, **how), (a, b)),
                                  default=jax.vmap(partial(operation.xla, **how))), 0


convolution_p, input_gradient_p, kernel_gradient_p = map(primitive, (CONVOLUTION, INPUT_GRADIENT, KERNEL_GRADIENT))

ad.defbilinear(convolution_p,
               lambda dy, x, kernel, **how: input_gradient_p.bind(dy, kernel, size=x.aval.shape[1:3], **how),
               lambda dy, x, kernel, **how: kernel_gradient_p.bind(x, dy, size=kernel.aval.shape[:2], **how))
ad.defbilinear(input_gradient_p,
               lambda ddx, dy, kernel, size, **how: convolution_p.bind(ddx, kernel, **how),
               lambda ddx, dy, kernel, size, **how: kernel_gradient_p.bind(ddx, dy, size=kernel.aval.shape[:2], **how))
ad.defbilinear(kernel_gradient_p,
               lambda dk, x, dy, size, **how: input_gradient_p.bind(dy, dk, size=x.aval.shape[1:3], **how),
               lambda dk, x, dy, size, **how: convolution_p.bind(x, dk, **how))
