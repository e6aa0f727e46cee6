"""Parses the text of a compiled program (HLO, from `compiled.as_text()` or XLA's dump flags)."""

import json
import math
import re
from functools import reduce
from itertools import count
from operator import getitem
from typing import Any, NamedTuple

import jax

COMMENT = re.compile(r"/\*.*?\*/")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\(([^)]*)\)(.*)", re.MULTILINE)
ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")


class Shape(NamedTuple):
    """One array: its dtype, its dimensions, and whether it is in the device's main memory rather than on the chip."""

    kind: str
    dimensions: tuple[int, ...]
    in_memory: bool = True

    @property
    def size(self) -> int:
        """The bytes of the array in any memory, without tile padding."""
        digits = re.search(r"\d+", "u8" if self.kind == "pred" else self.kind)  # "bf16"; a token has none
        return -(-math.prod(self.dimensions) * int(digits[0] if digits else 0) // 8)

    @property
    def bytes(self) -> int:
        """The bytes of the array in the device's main memory; 0 if it is on the chip."""
        return self.size if self.in_memory else 0


class Instruction(NamedTuple):
    """`name = type opcode(operands), attributes`; the type is a shape, or a list of types for a tuple."""

    name: str
    type: Any
    opcode: str
    operands: tuple[str, ...]
    attributes: str = ""
    root: bool = False

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """All arrays of the result."""
        return tuple(jax.tree.leaves(self.type, is_leaf=lambda part: isinstance(part, Shape)))

    @property
    def bytes(self) -> int:
        """The bytes of the result in the device's main memory."""
        return sum(shape.bytes for shape in self.shapes)

    def attribute(self, name: str) -> str:
        """Return the word after `name=`, without the `%` that precedes names; empty if there is none."""
        word = re.search(rf"\b{name}=%?([^\s,{{}}]+)", self.attributes)
        return word[1] if word else ""


Computation = dict[str, Instruction]


Module = dict[str, Computation]


def parse_hlo(text: str) -> tuple[Module, str]:
    """Parse a printed program into its computations; return them and the name of the entry computation.

    Raises ValueError if there is no entry computation.
    """
    computations = COMPUTATION.findall(COMMENT.sub("", text))
    entries = [name for is_entry, name, _ in computations if is_entry]
    if not entries:
        raise ValueError("not the text of a compiled program: it has no entry computation")
    return {name: parse_computation(body) for _, name, body in computations}, entries[0]


def parse_computation(body: str) -> Computation:
    """Parse the instructions of a computation.

    In XLA's dumps, an operand `fusion.1#0` is an element of a tuple, and `fusion.1#0#2` one of a nested tuple; each
    becomes an instruction of its own.
    """
    table: Computation = {}
    for root, name, kind, opcode, arguments, attributes in INSTRUCTION.findall(body):
        operands = tuple(re.findall(r"[^\s,%]+", arguments))
        for operand in operands:
            if "#" in operand:
                whole, *places = operand.split("#")
                element = reduce(getitem, map(int, places), table[whole].type)
                table[operand] = Instruction(operand, element, "get-tuple-element", (whole,))
        table[name] = Instruction(name, parse_type(kind), opcode, operands, attributes, bool(root))
    return table


def parse_type(text: str) -> Any:
    """Parse a type. `S(1)` and higher numbers in an array's layout are on-chip memories."""
    shapes = [Shape(kind, tuple(int(size) for size in sizes.split(",") if size), not re.search(r"S\([1-9]", layout))
              for kind, sizes, layout in ARRAY.findall(text)]
    places = count()
    tuples = ARRAY.sub(lambda _: str(next(places)), text)  # "(0, (1, 2))"
    return jax.tree.map(shapes.__getitem__, json.loads(tuples.replace("(", "[").replace(")", "]")))
