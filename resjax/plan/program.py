"""What a compiled program does in a run: its kernels with their bytes and multiply-adds, and what devices send."""

import json
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from resjax.plan.hlo import Instruction, Module, Shape, parse

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id",
        "opt-barrier", "domain", "add-dependency", "iota"}  # no kernel, or what the program is made of
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
SLICES = {"slice", "dynamic-slice", "gather"}
REDUCTIONS = {"reduce", "reduce-window", "select-and-scatter"}
SMALL = 2**18  # bytes: below, a GPU's kernel takes the time of its launch


class Kernel(NamedTuple):
    """One launch of a device, or so many; bytes, multiply-adds and what is sent are those of one."""

    name: str
    kind: str
    """convolution, matrix product, sum, element-wise, copy, small, or collective."""
    bytes: int
    macs: int
    times: int
    sent: int = 0
    """Bytes of the arrays that a collective sums or moves."""


def read_kernels(text: str, rounds: int | None = None) -> list[Kernel]:
    """List the kernels of a compiled program, those of loops as often as they run; `rounds`, where that is not known.

    Bytes are the operands and results of each kernel in the device's memory; a slice counts as what it reads, an array
    that is updated in place as what is written. Of the branches of a condition the one with the fewest bytes counts.
    """
    module = parse(text)
    return list(kernels_of(module, module.entry, 1, rounds))


def kernels_of(module: Module, name: str, times: int, rounds: int | None) -> Iterator[Kernel]:
    """List the kernels of a computation that runs so many times."""
    table = module.computations[name]
    for instruction in table.values():
        opcode = instruction.opcode
        if opcode in FREE or opcode.endswith("-done") or opcode.endswith("-update"):
            continue
        if opcode == "while":
            trips = trip_count(module, instruction, rounds)
            yield from kernels_of(module, str(instruction.attribute("body")), times * trips, rounds)
        elif opcode == "call":
            yield from kernels_of(module, str(instruction.attribute("to_apply")), times, rounds)
        elif opcode == "conditional":
            branches = [list(kernels_of(module, branch, times, rounds)) for branch in branches_of(instruction)]
            yield from min(branches, key=total_bytes)
        else:
            yield kernel(module, table, instruction, times)


def total_bytes(kernels: list[Kernel]) -> int:
    """Add up the bytes, of all the times."""
    return sum(kernel.bytes * kernel.times for kernel in kernels)


def trip_count(module: Module, loop: Instruction, rounds: int | None) -> int:
    """Return how often a loop runs: as the compiler says, or up to the only number that its condition compares with.

    Where neither tells it is `rounds`; raises ValueError where nobody says how many these are.
    """
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if found:
        return int(found.group(1))
    condition = module.computations.get(loop.attribute("condition") or "", {}).values()
    numbers = [inner.operands[0] for inner in condition if inner.opcode == "constant" and inner.operands]
    if len(numbers) != 1 or not numbers[0].isdigit():
        if rounds is not None:
            return rounds
        raise ValueError(f"the compiled program does not say how often its loop {loop.name} runs")
    return int(numbers[0])


def branches_of(instruction: Instruction) -> list[str]:
    """Name the computations of which a condition runs one."""
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if listed:
        return [name.strip().lstrip("%") for name in listed.group(1).split(",")]
    return [str(instruction.attribute("true_computation")), str(instruction.attribute("false_computation"))]


def kernel(module: Module, table: dict[str, Instruction], instruction: Instruction, times: int) -> Kernel:
    """Read one kernel: an instruction of its own, or the fusion of many."""
    body = module.computations.get(instruction.attribute("calls") or "", {})
    if instruction.opcode == "async-start" and body:
        return kernel(module, body, next(reversed(body.values())), times)
    opcode = instruction.opcode.removesuffix("-start")
    macs = sum(multiply_adds(body, inner) for inner in body.values()) + multiply_adds(table, instruction)
    moved = bytes_moved(table, instruction, body)
    kind = kind_of(instruction, {opcode, *(inner.opcode for inner in body.values())}, macs, moved)
    sent = (sum(shape.size for name in instruction.operands for shape in table[name].shapes)
            if opcode in COLLECTIVES else 0)
    return Kernel(instruction.name, kind, moved, macs, times, sent)


def kind_of(instruction: Instruction, opcodes: set[str], macs: int, moved: int) -> str:
    """Say what a kernel mostly does."""
    if opcodes & set(COLLECTIVES):
        return "collective"
    if "convolution" in opcodes or "$conv" in instruction.attributes:
        return "convolution"
    if macs:
        return "matrix product"
    if moved < SMALL:
        return "small"
    if opcodes & REDUCTIONS:
        return "sum"
    return "copy" if opcodes - FREE <= {"copy", "transpose", "fusion", "reshape"} | SLICES else "element-wise"


def bytes_moved(table: dict[str, Instruction], instruction: Instruction, body: dict[str, Instruction]) -> int:
    """Count what a kernel reads and writes in the device's memory."""
    operands = [table[name] for name in instruction.operands]
    if instruction.opcode in SLICES:
        return sliced(operands[0].shapes[0], instruction.shapes[0])
    if instruction.opcode == "dynamic-update-slice":
        return 2 * operands[1].bytes
    if instruction.opcode == "copy-start":  # its result: what is written, what is read, and a token
        return instruction.shapes[0].bytes + operands[0].bytes
    if instruction.opcode == "slice-start":  # its result: what it reads from, what is written, and a token
        return sliced(operands[0].shapes[0], instruction.shapes[1])
    if instruction.opcode.endswith("-start") and not body:
        return 2 * sum(operand.bytes for operand in operands)
    if not body:
        results = [shape for shape in instruction.shapes if not is_workspace(instruction, shape)]
        return sum(operand.bytes for operand in operands) + sum(shape.bytes for shape in results)
    parameters = {int(inner.operands[0]): inner for inner in body.values() if inner.opcode == "parameter"}
    read = sum(min(operand.bytes, bytes_read(body, parameters[place].name)) if place in parameters else 0
               for place, operand in enumerate(operands))
    return read + bytes_written(body, instruction)


def sliced(whole: Shape, part: Shape) -> int:
    """Count what is read of an array, where that lies, and written as a part of it."""
    return part._replace(in_memory=whole.in_memory).bytes + part.bytes


def is_workspace(instruction: Instruction, shape: Shape) -> bool:
    """Say whether a result is memory that a library's kernel works in."""
    return instruction.opcode == "custom-call" and shape.kind in ("u8", "s8") and len(instruction.shapes) > 1


def bytes_read(body: dict[str, Instruction], name: str) -> int:
    """Count what a fusion reads of one of its parameters: all of it, unless it only takes slices."""
    total = 0
    for user in (inner for inner in body.values() if name in inner.operands and inner.opcode != "parameter"):
        if user.opcode in SLICES and user.operands[0] == name:
            total += user.bytes
        elif user.opcode == "bitcast":
            total += bytes_read(body, user.name)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:  # which updates it in place
            return body[name].bytes
    return total


def bytes_written(body: dict[str, Instruction], instruction: Instruction) -> int:
    """Count what a fusion writes: of a result that is updated in place, the update."""
    root = next(inner for inner in body.values() if inner.root)
    results = [body[name] for name in root.operands] if root.opcode == "tuple" else [root]
    origins = [origin(body, result) for result in results]
    if any(found.opcode == "dynamic-update-slice" for found in origins):
        return sum(body[found.operands[1]].bytes if found.opcode == "dynamic-update-slice" else result.bytes
                   for found, result in zip(origins, results, strict=True))
    return sum(result.bytes for result in results) if instruction.opcode.endswith("-start") else instruction.bytes


def origin(body: dict[str, Instruction], instruction: Instruction) -> Instruction:
    """Follow an array back through the instructions that only see it in another shape."""
    while instruction.opcode == "bitcast":
        instruction = body[instruction.operands[0]]
    return instruction


def multiply_adds(table: dict[str, Instruction], instruction: Instruction) -> int:
    """Count the multiply-adds of a convolution or a matrix product, whoever computes it; 0 of anything else."""
    shapes = [table[name].shapes[0] for name in instruction.operands if name in table and table[name].shapes]
    if instruction.opcode == "dot":
        return instruction.shapes[0].elements * contracted(shapes[0], instruction.attributes)
    if instruction.opcode == "custom-call" and re.search(r'custom_call_target="__cublas', instruction.attributes):
        numbers = re.search(r'"dot_dimension_numbers":(\{.*?\})', instruction.attributes)
        sides = json.loads(numbers.group(1))["lhs_contracting_dimensions"] if numbers else []
        return instruction.shapes[0].elements * math.prod(shapes[0].dimensions[int(side)] for side in sides)
    if instruction.opcode == "convolution" or "$conv" in instruction.attributes:
        return convolution_macs(instruction, shapes)
    return 0


def contracted(left: Shape, attributes: str) -> int:
    """Count the products of one sum of a matrix product."""
    sides = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", attributes)
    return math.prod(left.dimensions[int(side)] for side in sides.group(1).split(",") if side) if sides else 1


def convolution_macs(instruction: Instruction, operands: list[Shape]) -> int:
    """Count the multiply-adds of a convolution, those with padding or with the zeros of a spread image left out."""
    image, kernel, result = operands[0], operands[1], instruction.shapes[0]
    if "$convBackwardInput" in instruction.attributes:  # cuDNN's gradients are described by the convolution forward
        image, result = result, image
    elif "$convBackwardFilter" in instruction.attributes:
        kernel, result = result, kernel
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        return 0
    images, kernels, results = labels.groups()
    window = window_of(instruction.attributes)
    pairs = 1
    for place, letter in enumerate(sorted(letter for letter in images if letter.isdigit())):
        pairs *= valid_pairs(image.dimensions[images.index(letter)], kernel.dimensions[kernels.index(letter)],
                             result.dimensions[results.index(letter)],
                             {name: values[place] for name, values in window.items()})
    outside = result.dimensions[results.index("b")] * result.dimensions[results.index("f")]
    return int(outside * kernel.dimensions[kernels.index("i")] * pairs)


def window_of(attributes: str) -> dict[str, list[tuple[int, ...]]]:
    """Read a convolution's window: for each property the values of its dimensions."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    parts = (part.partition("=") for part in (found.group(1).split() if found else ()))
    return {name: [tuple(map(int, value.split("_"))) for value in values.split("x")] for name, _, values in parts
            if name in ("stride", "pad", "lhs_dilate", "rhs_dilate")}


def valid_pairs(image: int, kernel: int, result: int, window: dict[str, tuple[int, ...]]) -> int:
    """Count, along one dimension, the pairs of a result and a kernel's position that meet a real pixel."""
    stride, low = window.get("stride", (1,))[0], window.get("pad", (0, 0))[0]
    spread, gap = window.get("lhs_dilate", (1,))[0], window.get("rhs_dilate", (1,))[0]
    places = (out * stride + position * gap - low for out in range(result) for position in range(kernel))
    return sum(0 <= place <= (image - 1) * spread and place % spread == 0 for place in places)
