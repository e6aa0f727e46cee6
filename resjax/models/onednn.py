"""oneDNN's convolutions as an XLA custom call on CPU. ctypes calls oneDNN's C API directly on the arrays' memory.

oneDNN's functions and constants are named as in oneapi/dnnl/dnnl.h and dnnl_types.h of oneDNN 3, without prefixes such
as `dnnl_`. Images have the layout NHWC, and kernels HWIO. oneDNN converts kernels to a layout of its choice.

How a batch is split into pieces depends only on the shapes, so results do not depend on the number of cores. Each of
XLA's threads takes one piece after another and computes it alone, without Python's GIL.
"""

import ctypes
import hashlib
import math
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from ctypes import POINTER, byref, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from typing import Any, ClassVar, NamedTuple

import numpy as np

from resjax.system.custom_call import Call, c_struct, register

TARGET = "resjax_onednn_convolution"
FORWARD, INPUT_GRADIENT, KERNEL_GRADIENT = range(3)


class Geometry(NamedTuple):
    """The numbers that determine a convolution, which are the only attribute of the custom call."""

    direction: int
    data_type: int  # dnnl_data_type_t
    images: int
    height: int
    width: int
    inputs: int
    rows: int
    columns: int
    outputs: int
    out_width: int
    out_height: int
    strides: tuple[int, int]
    before: tuple[int, int]  # padding, in pixels
    after: tuple[int, int]


DATA_TYPES, SIZES, F32 = {"bfloat16": 2, "float32": 3}, {2: 2, 3: 4}, 3
SRC, DST, WEIGHTS, SCRATCHPAD, DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, MULTIPLE_SRC = 1, 17, 33, 80, 129, 145, 161, 1024
ROLES = [(SRC, WEIGHTS, DST), (DIFF_SRC, WEIGHTS, DIFF_DST), (SRC, DIFF_WEIGHTS, DIFF_DST)]
WEIGHTS_MD, DIFF_WEIGHTS_MD, SCRATCHPAD_MD = 131, 132, 136  # dnnl_query_t
FORWARD_TRAINING, DIRECT, CPU, ANY, IN_ORDER, USER = 64, 1, 1, 1, 1, 1
AVX2 = 0x7  # dnnl_cpu_isa_t; below this, convolutions are slow
Dims = c_int64 * 12
LARGE_KERNEL, TOO_LARGE = 1 << 18, 1 << 22  # bytes
SMALL = 1 << 25  # multiply-adds; with fewer, a call costs as much as its work (docs/results/onednn.md)
Argument = c_struct("dnnl_exec_arg_t", arg=c_int, memory=c_void_p)


class Unavailable(Exception):
    """oneDNN cannot be used here; the message says why."""


class Library(NamedTuple):
    """The library (called with and without the GIL), and its OpenMP library, engine and version."""

    free: Any
    held: Any
    openmp: Any
    engine: c_void_p
    version: str


@cache
def library() -> Library:
    """Load oneDNN and register it with XLA.

    Raises Unavailable if the library is missing or damaged, has another version, or does not support the processor.
    """
    if os.environ.get("RESJAX_ONEDNN") == "0":
        raise Unavailable("RESJAX_ONEDNN=0")
    try:
        [file] = [file for file in files("onednn-cpu-gomp") or () if file.name == "libdnnl.so.3"]
        with open(file.locate(), "rb") as opened:
            digest = urlsafe_b64encode(hashlib.file_digest(opened, "sha256").digest()).decode().rstrip("=")
        if file.hash is None or file.hash.value != digest:  # loading a truncated library would kill the process
            raise Unavailable(f"{file.name} is damaged; reinstall it: pip install --force-reinstall onednn-cpu-gomp")
        free, held = ctypes.CDLL(str(file.locate())), ctypes.PyDLL(str(file.locate()))
        openmp = ctypes.PyDLL("libgomp.so.1")
    except (PackageNotFoundError, ValueError):
        raise Unavailable("onednn-cpu-gomp is not installed") from None
    except OSError as error:
        raise Unavailable(f"cannot load oneDNN: {error}") from None
    free.dnnl_version.restype = POINTER(c_int * 3)
    free.dnnl_primitive_desc_query_md.restype, free.dnnl_memory_desc_get_size.restype = c_void_p, c_size_t
    held.dnnl_memory_set_data_handle.argtypes = [c_void_p, c_void_p]
    version, engine = ".".join(map(str, free.dnnl_version().contents)), c_void_p()
    if not version.startswith("3.") or free.dnnl_get_effective_cpu_isa() & AVX2 != AVX2 or free.dnnl_engine_create(
            byref(engine), CPU, c_size_t(0)):
        raise Unavailable(f"oneDNN {version} or this processor is unsupported; resjax needs oneDNN 3.x and AVX2")
    register(TARGET, lambda call: cached_primitive(call.attribute)(call))
    return Library(free, held, openmp, engine, version)


def new(name: str, *arguments: Any) -> c_void_p:
    """Call a function that creates an object and return its address. Raises RuntimeError if oneDNN cannot create it."""
    made = c_void_p()
    if status := getattr(library().free, f"dnnl_{name}")(byref(made), *arguments):
        raise RuntimeError(f"dnnl_{name}: dnnl_status_t {status}")
    return made


class Primitive:
    """A dnnl_primitive_t, called with the addresses of its arguments; several threads may call it concurrently."""

    def __init__(self, description: c_void_p, *arguments: tuple[int, Any]) -> None:
        self.pointer, self.arguments, self.idle = new("primitive_create", description), arguments, list[Any]()
        self.execute, self.place = library().free.dnnl_primitive_execute, library().held.dnnl_memory_set_data_handle

    def __call__(self, *addresses: int) -> None:
        try:
            stream, memories, arguments = self.idle.pop()
        except IndexError:
            stream = new("stream_create", library().engine, IN_ORDER)
            memories = [new("memory_create", layout, library().engine, None) for _, layout in self.arguments]
            arguments = (Argument * len(memories))(*[
                (role, memory) for (role, _), memory in zip(self.arguments, memories, strict=True)])
        for memory, address in zip(memories, addresses, strict=True):
            self.place(memory, address)
        if status := self.execute(self.pointer, stream, len(memories), arguments):
            raise RuntimeError(f"dnnl_primitive_execute: dnnl_status_t {status}")
        self.idle.append((stream, memories, arguments))


class Workspace:
    """Reusable memory, aligned to 64 bytes."""

    idle: ClassVar[list[Any]] = []

    def __init__(self, size: int) -> None:
        try:
            self.memory = self.idle.pop()
        except IndexError:
            self.memory = np.empty(0, np.uint8)
        if self.memory.size < size + 64:
            self.memory = np.empty(size + 64, np.uint8)
        self.address = -(-self.memory.ctypes.data // 64) * 64


class ConvolutionPrimitive:
    """A primitive that computes y, dx or dkernel for one geometry. Raises RuntimeError if oneDNN cannot compute it."""

    def __init__(self, g: Geometry) -> None:
        engine, size, shape = library().engine, SIZES[g.data_type], (g.outputs, g.inputs, g.rows, g.columns)
        self.direction, added = g.direction, size * math.prod(shape) if g.direction == KERNEL_GRADIENT else 0
        if added >= TOO_LARGE:
            raise RuntimeError("XLA is faster here, because it need not add up the gradients of several pieces")
        most = 4 if added > LARGE_KERNEL else 8  # the pieces' gradients are stored, then added
        self.pieces = max(pieces for pieces in range(1, most + 1) if g.images % pieces == 0)
        images = g.images // self.pieces
        self.x_step = size * images * g.height * g.width * g.inputs
        self.y_step = size * images * g.out_height * g.out_width * g.outputs

        def layout(shape: tuple[int, ...], *strides: int) -> c_void_p:
            return new("memory_desc_create_with_strides", 4, Dims(*shape), g.data_type, Dims(*strides))

        def nhwc(height: int, width: int, channels: int) -> c_void_p:
            return layout((images, channels, height, width), height * width * channels, 1, width * channels, channels)

        any_layout = {of: new("memory_desc_create_with_tag", 4, Dims(*shape), of, ANY) for of in (g.data_type, F32)}
        x, y = nhwc(g.height, g.width, g.inputs), nhwc(g.out_height, g.out_width, g.outputs)
        hwio = layout(shape, 1, g.outputs, g.columns * g.inputs * g.outputs, g.inputs * g.outputs)
        attributes, how = new("primitive_attr_create"), (Dims(*g.strides), Dims(), Dims(*g.before), Dims(*g.after))
        library().free.dnnl_primitive_attr_set_scratchpad_mode(attributes, USER)
        chosen = new("convolution_forward_primitive_desc_create", engine, FORWARD_TRAINING, DIRECT, x,
                     any_layout[g.data_type], None, y, *how, attributes)
        if g.direction == INPUT_GRADIENT:
            chosen = new("convolution_backward_data_primitive_desc_create", engine, DIRECT, x, any_layout[g.data_type],
                         y, *how, chosen, attributes)
        elif g.direction == KERNEL_GRADIENT:
            chosen = new("convolution_backward_weights_primitive_desc_create", engine, DIRECT, x, any_layout[F32], None,
                         y, *how, chosen, attributes)
        kernel, scratch = (c_void_p(library().free.dnnl_primitive_desc_query_md(chosen, what, 0)) for what in (
            DIFF_WEIGHTS_MD if g.direction == KERNEL_GRADIENT else WEIGHTS_MD, SCRATCHPAD_MD))
        self.kernel_size, self.scratch_size = (
            -(-library().free.dnnl_memory_desc_get_size(memory) // 64) * 64 for memory in (kernel, scratch))
        self.convolve = Primitive(chosen, *zip((*ROLES[g.direction], SCRATCHPAD), (x, kernel, y, scratch), strict=True))
        source, target = (kernel, hwio) if g.direction == KERNEL_GRADIENT else (hwio, kernel)
        self.reorder = Primitive(new("reorder_primitive_desc_create", source, engine, target, engine, attributes),
                                 (SRC, source), (DST, target))
        if g.direction == KERNEL_GRADIENT:
            parts = [kernel] * self.pieces
            self.add = Primitive(new("sum_primitive_desc_create", engine, kernel, len(parts),
                                     (ctypes.c_float * len(parts))(*[1.0] * len(parts)),
                                     (c_void_p * len(parts))(*parts), attributes),
                                 *enumerate(parts, MULTIPLE_SRC), (DST, kernel))

    def __call__(self, call: Call) -> None:
        """Compute y from x and kernel, dx from dy and kernel, or dkernel from x and dy."""
        first, second = call.arguments
        x, y = (call.result, first) if self.direction == INPUT_GRADIENT else (
            first, call.result if self.direction == FORWARD else second)
        parts = self.pieces if self.direction == KERNEL_GRADIENT else 0
        workspace = Workspace(max(parts, 1) * self.kernel_size)
        kernels = [workspace.address + part * self.kernel_size for part in range(max(parts, 1))]
        if not parts:
            self.reorder(second, kernels[0])

        def compute(pieces: Iterator[int]) -> None:
            scratch, before = Workspace(self.scratch_size), one_thread()
            for piece in pieces:
                self.convolve(x + piece * self.x_step, kernels[piece if parts else 0], y + piece * self.y_step,
                              scratch.address)
            Workspace.idle.append(scratch.memory)
            library().openmp.omp_set_num_threads(before)

        call.share(compute, self.pieces)
        if parts:
            self.add(*kernels, kernels[0])
            self.reorder(kernels[0], call.result)
        Workspace.idle.append(workspace.memory)


def one_thread() -> int:
    """Limit OpenMP to one thread in calls from this thread; return the previous number."""
    before: int = library().openmp.omp_get_max_threads()
    library().openmp.omp_set_num_threads(1)
    return before


@cache
def cached_primitive(attribute: bytes) -> ConvolutionPrimitive:
    """Create the convolution that a custom call's attribute describes. It is cached for all threads."""
    values, before = np.frombuffer(attribute, np.int64).tolist(), one_thread()
    try:
        return ConvolutionPrimitive(Geometry._make((*values[:11], *zip(values[11::2], values[12::2], strict=True))))
    finally:
        library().openmp.omp_set_num_threads(before)


def computes(g: Geometry) -> bool:
    """Return whether oneDNN computes this convolution, because it is faster than XLA."""
    if math.prod((g.images, g.out_height, g.out_width, g.outputs, g.rows, g.columns, g.inputs)) < SMALL:
        return False
    try:
        library()
        cached_primitive(np.hstack(g).astype(np.int64).tobytes())
    except (Unavailable, RuntimeError):
        return False
    return True
