"""Lists the kernels and collectives of a compiled program, with their bytes and multiply-adds."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from resjax.plan.hlo import Computation, Instruction, Module, Shape, parse_hlo

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
        "opt-barrier", "domain", "add-dependency", "iota"}  # opcodes that are not kernels, or that contain kernels
COLLECTIVES = {"all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast"}
SLICES = {"slice", "dynamic-slice", "gather"}
COPIES = {"copy", "transpose", "fusion", "reshape"} | SLICES
REDUCTIONS = {"reduce", "reduce-window", "select-and-scatter"}
CONTRACTED = re.compile(r'lhs_contracting_dim\w*"?[=:][{\[]([^}\]]*)')  # of a dot, or in cuBLAS's settings
SMALL = 2**18  # bytes; below this, a GPU kernel takes its launch time


class Kernel(NamedTuple):
    """One or more equal launches on a device; bytes, multiply-adds and bytes sent are per launch."""

    name: str
    kind: str
    """The kind, which is convolution, matrix product, sum, element-wise, copy, small, or XLA's name of a collective."""
    bytes: int
    macs: int
    times: int
    sent: int = 0
    """Bytes of the arrays that a collective sums or moves."""


def read_kernels(text: str, rounds: int | None = None) -> list[Kernel]:
    """List the kernels of a compiled program. Kernels in a loop count once per iteration.

    A loop of unknown length has `rounds` iterations. Bytes are those of each kernel's operands and results in the
    device's memory. For a slice, only the bytes that it reads count, and for an in-place update, only those that it
    writes. Of the branches of a conditional, only the one with the fewest bytes counts.
    """
    module, entry = parse_hlo(text)
    return list(kernels_of(module, entry, 1, rounds))


def kernels_of(module: Module, name: str, times: int, rounds: int | None) -> Iterator[Kernel]:
    """List the kernels of a computation that runs `times` times."""
    table = module[name]
    for instruction in table.values():
        opcode = instruction.opcode
        if opcode in FREE or opcode.endswith(("-done", "-update")):
            continue
        if opcode == "while":
            trips = trip_count(module, instruction, rounds)
            yield from kernels_of(module, instruction.attribute("body"), times * trips, rounds)
        elif opcode == "call":
            yield from kernels_of(module, instruction.attribute("to_apply"), times, rounds)
        elif opcode == "conditional":
            listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
            branches = ([branch.strip().lstrip("%") for branch in listed[1].split(",")] if listed else
                        [instruction.attribute(f"{value}_computation") for value in ("true", "false")])
            yield from min((list(kernels_of(module, branch, times, rounds)) for branch in branches),
                           key=lambda kernels: sum(kernel.bytes * kernel.times for kernel in kernels))
        else:
            yield kernel_of(module, table, instruction, times)


def trip_count(module: Module, loop: Instruction, rounds: int | None) -> int:
    """Return a loop's number of iterations, as the compiler states it or from the condition's only constant.

    If neither is available, the number is `rounds`. Raises ValueError if `rounds` is None.
    """
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    condition = module.get(loop.attribute("condition"), {}).values()
    numbers = [inner.operands[0] for inner in condition if inner.opcode == "constant" and inner.operands]
    if len(numbers) == 1 and numbers[0].isdigit():
        return int(numbers[0])
    if rounds is None:
        raise ValueError(f"the compiled program does not state the number of iterations of its loop {loop.name}")
    return rounds


def kernel_of(module: Module, table: Computation, instruction: Instruction, times: int) -> Kernel:
    """Read one kernel: a single instruction or a fusion."""
    body = module.get(instruction.attribute("calls"), {})
    if instruction.opcode == "async-start" and body:
        return kernel_of(module, body, next(reversed(body.values())), times)
    opcode = instruction.opcode.removesuffix("-start")
    macs = sum(multiply_adds(body, inner) for inner in body.values()) + multiply_adds(table, instruction)
    moved = bytes_moved(table, instruction, body)
    kind = kind_of_kernel(instruction, {opcode, *(inner.opcode for inner in body.values())}, macs, moved)
    sent = sum(shape.size for name in instruction.operands for shape in table[name].shapes)
    return Kernel(instruction.name, kind, moved, macs, times, sent if opcode in COLLECTIVES else 0)


def kind_of_kernel(instruction: Instruction, opcodes: set[str], macs: int, moved: int) -> str:
    """Return the main kind of operation of a kernel."""
    if collectives := opcodes & COLLECTIVES:
        return min(collectives)
    if "convolution" in opcodes or "$conv" in instruction.attributes:
        return "convolution"
    if macs:
        return "matrix product"
    if moved < SMALL:
        return "small"
    if opcodes & REDUCTIONS:
        return "sum"
    return "copy" if opcodes - FREE <= COPIES else "element-wise"


def bytes_moved(table: Computation, instruction: Instruction, body: Computation) -> int:
    """Count the bytes that a kernel reads and writes in the device's memory."""
    operands, opcode, results = [table[name] for name in instruction.operands], instruction.opcode, instruction.shapes
    if opcode in SLICES or opcode == "slice-start":  # an asynchronous slice returns its input, the slice, a token
        whole, part = operands[0].shapes[0], results[1 if opcode == "slice-start" else 0]
        return part._replace(in_memory=whole.in_memory).bytes + part.bytes
    if opcode == "dynamic-update-slice":
        return 2 * operands[1].bytes
    if opcode == "copy-start":  # its result: output, input, and a token
        return results[0].bytes + operands[0].bytes
    read = sum(operand.bytes for operand in operands)
    if not body:
        if opcode.endswith("-start"):
            return 2 * read
        workspace = ("u8", "s8") if opcode == "custom-call" and len(results) > 1 else ()  # a library's workspace
        return read + sum(shape.bytes for shape in results if shape.kind not in workspace)
    parameters = {int(inner.operands[0]): inner.name for inner in body.values() if inner.opcode == "parameter"}
    return bytes_written(body, instruction) + sum(
        min(operand.bytes, bytes_read(body, parameters[place])) for place, operand in enumerate(operands)
        if place in parameters)


def bytes_read(body: Computation, name: str) -> int:
    """Count the bytes that a fusion reads of a parameter, which are all bytes unless the fusion only takes slices."""
    total = 0
    for user in (inner for inner in body.values() if name in inner.operands and inner.opcode != "parameter"):
        if user.opcode in SLICES and user.operands[0] == name:
            total += user.bytes
        elif user.opcode == "bitcast":
            total += bytes_read(body, user.name)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:  # the parameter is not updated in place
            return body[name].bytes
    return total


def bytes_written(body: Computation, instruction: Instruction) -> int:
    """Count the bytes that a fusion writes. For an in-place result, these are the bytes of the update."""
    root = next(inner for inner in body.values() if inner.root)
    results = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    written = []
    for result in results:
        origin = result
        while origin.opcode == "bitcast":  # the same array in another shape
            origin = body[origin.operands[0]]
        written.append(body[origin.operands[1]] if origin.opcode == "dynamic-update-slice" else result)
    if written != results or instruction.opcode.endswith("-start"):
        return sum(result.bytes for result in written)
    return instruction.bytes


def multiply_adds(table: Computation, instruction: Instruction) -> int:
    """Count the multiply-adds of a convolution or matrix product in any form; 0 for anything else."""
    shapes = [table[name].shapes[0] for name in instruction.operands if name in table and table[name].shapes]
    if instruction.opcode == "convolution" or "$conv" in instruction.attributes:
        return convolution_macs(instruction, shapes)
    if contracted := CONTRACTED.search(instruction.attributes):
        sides = map(int, re.findall(r"\d+", contracted[1]))
        return math.prod((*instruction.shapes[0].dimensions, *(shapes[0].dimensions[side] for side in sides)))
    return 0


def convolution_macs(instruction: Instruction, operands: list[Shape]) -> int:
    """Count the multiply-adds of a convolution, without those on padding or on zeros from dilation."""
    image, kernel, result = operands[0], operands[1], instruction.shapes[0]
    if "$convBackwardInput" in instruction.attributes:  # cuDNN's gradients are described by their forward convolution
        image, result = result, image
    elif "$convBackwardFilter" in instruction.attributes:
        kernel, result = result, kernel
    labels = re.split("_|->", instruction.attribute("dim_labels"))  # such as b01f_o01i->b01f
    images, kernels, results = (dict(zip(names, shape.dimensions, strict=True)) for names, shape in zip(
        labels, (image, kernel, result), strict=True))
    settings = re.findall(r"[{ ](stride|pad|lhs_dilate|rhs_dilate)=([^ }]+)", instruction.attributes)  # of its window
    pairs = 1
    for place, side in enumerate(sorted(filter(str.isdigit, labels[0]))):
        first = {name: int(values.split("x")[place].split("_")[0]) for name, values in settings}  # the low pad
        pairs *= valid_pairs((images[side], kernels[side], results[side]), **first)
    return int(results["b"] * results["f"] * kernels["i"] * pairs)


def valid_pairs(sizes: tuple[int, int, int], stride: int = 1, pad: int = 0, lhs_dilate: int = 1,
                rhs_dilate: int = 1) -> int:
    """Count, along one dimension, the pairs of output and kernel positions that meet a real pixel.

    `sizes` are those of the image, the kernel and the result.
    """
    image, kernel, result = sizes
    places = (out * stride + position * rhs_dilate - pad for out in range(result) for position in range(kernel))
    return sum(0 <= place <= (image - 1) * lhs_dilate and place % lhs_dilate == 0 for place in places)
