"""The text of a compiled program (HLO, as `compiled.as_text()` or XLA's flags print it), taken apart into
instructions.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16, "f16": 16, "s16": 16,
        "u16": 16, "f32": 32, "s32": 32, "u32": 32, "f64": 64, "s64": 64, "u64": 64, "c64": 64, "c128": 128}
ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
HEAD = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
COMMENT = re.compile(r"/\*.*?\*/")
COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")


class Shape(NamedTuple):
    """One array: its type, its dimensions, and whether it lies in the device's main memory (else on the chip)."""

    kind: str
    dimensions: tuple[int, ...]
    in_memory: bool = True

    @property
    def elements(self) -> int:
        """Count the elements."""
        return math.prod(self.dimensions)

    @property
    def size(self) -> int:
        """Count the bytes wherever it lies, without the padding of tiles."""
        return -(-self.elements * BITS.get(self.kind, 0) // 8)

    @property
    def bytes(self) -> int:
        """Count the bytes in the device's main memory."""
        return self.size if self.in_memory else 0


class Instruction(NamedTuple):
    """`name = shapes opcode(operands), attributes`; a tuple has several shapes, or none."""

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool

    @property
    def bytes(self) -> int:
        """Count the bytes of the result."""
        return sum(shape.bytes for shape in self.shapes)

    def attribute(self, name: str) -> str | None:
        """Return the word after `name=`, without the `%` of names; None where there is none."""
        found = re.search(rf"\b{name}=%?([^\s,{{}}]+)", self.attributes)
        return found.group(1) if found else None


class Module(NamedTuple):
    """The computations by name, each its instructions by name; and the one that runs."""

    computations: dict[str, dict[str, Instruction]]
    entry: str


def parse(text: str) -> Module:
    """Take a printed program apart. Raises ValueError where it has no entry."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    lines: dict[str, str] = {}
    for line in COMMENT.sub("", text).splitlines():
        if current is None:
            if found := COMPUTATION.match(line):
                current = computations[found.group(2)] = {}
                entry = found.group(2) if found.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif instruction := parse_instruction(line):
            current |= {name: element(lines, name) for name in instruction.operands if "#" in name}
            current[instruction.name] = instruction
            lines[instruction.name] = line
    if not entry:
        raise ValueError("the text is of no compiled program: it has no entry computation")
    return Module(computations, entry)


def element(lines: dict[str, str], name: str) -> Instruction:
    """Return what takes an element out of a tuple; a program that XLA writes down names it `fusion.1#0`, or one of a
    tuple within a tuple `fusion.1#0#0`.
    """
    whole, *places = name.split("#")
    line = lines[whole]
    kind = line[line.index("("):]
    for place in places:
        inner = kind[1:closing(kind, 0) - 1]
        kind = list(separated(inner))[int(place)].strip()
    return Instruction(name, shapes_of(kind), "get-tuple-element", (whole,), "", False)


def parse_instruction(line: str) -> Instruction | None:
    """Take one line apart; None where it is no instruction."""
    head = HEAD.match(line)
    if not head:
        return None
    start = head.end()
    end = closing(line, start) if line[start] == "(" else ARRAY.match(line, start).end()  # type: ignore[union-attr]
    bracket = line.index("(", end)
    close = closing(line, bracket)
    operands = tuple(found.split()[-1].lstrip("%") for found in separated(line[bracket + 1:close - 1]))
    return Instruction(head.group(2), shapes_of(line[start:end]), line[end:bracket].strip(), operands,
                       line[close:], bool(head.group(1)))


def shapes_of(text: str) -> tuple[Shape, ...]:
    """Read the shapes of a type; `S(1)` and on in a layout are memories on the chip."""
    return tuple(Shape(found.group(1), tuple(int(size) for size in found.group(2).split(",") if size),
                       not re.search(r"S\([1-9]", found.group(3) or "")) for found in ARRAY.finditer(text))


def closing(text: str, start: int) -> int:
    """Return the place after the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] in "([{") - (text[place] in ")]}")
        if depth == 0:
            return place + 1
    raise ValueError(f"an unclosed bracket: {text[start:start + 60]}")


def separated(text: str) -> Iterator[str]:
    """Split at the commas that lie within no bracket."""
    depth, start = 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    if text[start:].strip():
        yield text[start:]
