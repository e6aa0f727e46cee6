"""Parser for the text of a compiled program (HLO, from `compiled.as_text()` or XLA's dump flags)."""

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
    """One array: its dtype, its dimensions, and whether it is in the device's main memory rather than on the chip."""

    kind: str
    dimensions: tuple[int, ...]
    in_memory: bool = True

    @property
    def elements(self) -> int:
        return math.prod(self.dimensions)

    @property
    def size(self) -> int:
        """Its bytes in any memory, without tile padding."""
        return -(-self.elements * BITS.get(self.kind, 0) // 8)

    @property
    def bytes(self) -> int:
        """Its bytes in the device's main memory."""
        return self.size if self.in_memory else 0


class Instruction(NamedTuple):
    """`name = shapes opcode(operands), attributes`; a tuple has any number of shapes."""

    name: str
    shapes: tuple[Shape, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str = ""
    root: bool = False

    @property
    def bytes(self) -> int:
        """The bytes of the result in the device's main memory."""
        return sum(shape.bytes for shape in self.shapes)

    def attribute(self, name: str) -> str:
        """Return the word after `name=`, without the `%` of names; empty if there is none."""
        found = re.search(rf"\b{name}=%?([^\s,{{}}]+)", self.attributes)
        return found[1] if found else ""


Computation = dict[str, Instruction]


class Module(NamedTuple):
    """The computations by name, each with its instructions by name, and the entry computation."""

    computations: dict[str, Computation]
    entry: str


def parse_hlo(text: str) -> Module:
    """Parse a printed program. Raises ValueError if it has no entry computation."""
    computations: dict[str, Computation] = {}
    entry, current, lines = "", None, dict[str, str]()
    for line in COMMENT.sub("", text).splitlines():
        if current is None:
            if found := COMPUTATION.match(line):
                current = computations[found[2]] = {}
                entry = found[2] if found[1] else entry
        elif line.startswith("}"):
            current = None
        elif instruction := parse_instruction(line):
            current |= {name: element(lines, name) for name in instruction.operands if "#" in name}
            current[instruction.name] = instruction
            lines[instruction.name] = line
    if not entry:
        raise ValueError("not the text of a compiled program: it has no entry computation")
    return Module(computations, entry)


def element(lines: dict[str, str], name: str) -> Instruction:
    """Return the get-tuple-element that `fusion.1#0` stands for in XLA's dumps.

    `fusion.1#0#0` is an element of a nested tuple.
    """
    whole, *places = name.split("#")
    kind = lines[whole][lines[whole].index("("):]
    for place in places:
        kind = split(kind[1:closing(kind, 0) - 1])[int(place)]
    return Instruction(name, shapes_of(kind), "get-tuple-element", (whole,))


def parse_instruction(line: str) -> Instruction | None:
    """Parse one line; None if it is not an instruction."""
    head = HEAD.match(line)
    if not head:
        return None
    start = head.end()
    end = closing(line, start) if line[start] == "(" else ARRAY.match(line, start).end()  # type: ignore[union-attr]
    bracket = line.index("(", end)
    close = closing(line, bracket)
    operands = tuple(found.split()[-1].lstrip("%") for found in split(line[bracket + 1:close - 1]))
    return Instruction(head[2], shapes_of(line[start:end]), line[end:bracket].strip(), operands, line[close:],
                       bool(head[1]))


def shapes_of(text: str) -> tuple[Shape, ...]:
    """Read the shapes of a type; `S(1)` and higher in a layout are on-chip memories."""
    return tuple(Shape(kind, tuple(int(size) for size in sizes.split(",") if size), not re.search(r"S\([1-9]", layout))
                 for kind, sizes, layout in ARRAY.findall(text))


def depths(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield every position from `start` on, with the nesting depth after it."""
    depth = 0
    for place in range(start, len(text)):
        depth += 1 if text[place] in "([{" else -1 if text[place] in ")]}" else 0
        yield place, depth


def closing(text: str, start: int) -> int:
    """Return the position after the bracket that matches the one at `start`."""
    for place, depth in depths(text, start):
        if depth == 0:
            return place + 1
    raise ValueError(f"an unclosed bracket: {text[start:start + 60]}")


def split(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    commas = [place for place, depth in depths(text, 0) if text[place] == "," and depth == 0]
    starts = [0, *(comma + 1 for comma in commas)]
    return [text[start:end].strip() for start, end in zip(starts, [*commas, len(text)], strict=True) if text[start:end]]
