"""Reads pickles as plain values. Nothing that a pickle names is imported, looked up or called.

`pickle.Unpickler` calls every function that a file names, so it would need a list of allowed names. Even with such a
list, a file of a few bytes can make the unpickler use any amount of memory or time. Here, Python's `pickletools` reads
the opcodes, and this module executes them on lists, dictionaries and numbers. A name becomes a `Name`. Calls that
create dictionaries and tensors are imitated. Calling any other `Name` gives an `Inert`, which does not keep the
arguments. Every name is therefore harmless, and no list is needed. Names that only an attack would use are still
refused, to protect users who open the file with other tools.
"""

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from resjax.system.errors import BadInput

MOST_BYTES = 1 << 26  # 1.8 MB for 1202 layers; in memory, strings take up to four times as much
MOST_OPCODES = 2_000_000  # 0.24 million for 1202 layers, 0.58 million with momentum and an average
MOST_ARGUMENTS = 8
ATTACK = re.compile(
    r"(os|posix|nt|subprocess|pty|runpy|importlib|shutil|socket|ctypes|code|commands)\."
    r"|(builtins|__builtin__)\.(eval|exec|execfile|compile|open|file|__import__|breakpoint)\Z")
VALUES = frozenset(  # opcodes that push their argument
    opcode.name for opcode in pickletools.opcodes
    if opcode.arg and not opcode.stack_before and opcode.stack_after and opcode.stack_after != [pickletools.anyobject])


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle names. It is never looked up."""

    full: str


@dataclass(slots=True)
class Inert:
    """A placeholder for an object of a pickle. It stores only the name of its type and whether it was a `nn.Module`."""

    maker: str
    network: bool = False


def extend(operands: list[Any]) -> Any:
    """Add values to a list, or keys and values to a dictionary. Values that are added to an `Inert` are dropped.

    Keys that are not strings are dropped too, because hashing them could take forever. The keys of tensors are names;
    only optimizers use numbers as keys.
    """
    target, *items = operands
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, dict):
        target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if isinstance(key, str))
    elif not isinstance(target, Inert):
        raise TypeError("items are added to neither a list nor a dictionary")
    return target


def set_state(operands: list[Any]) -> Any:
    """Drop the state of an object, but record whether the object is a network."""
    target, state = operands
    if isinstance(target, Inert) and isinstance(state, dict) and "_modules" in state:
        target.network = True
    return target


PLAIN: dict[str, Callable[[list[Any]], Any]] = {  # opcodes that turn their operands into a plain value, or drop them
    **dict.fromkeys(("PROTO", "FRAME", "POP", "POP_MARK", "NONE"), lambda _: None),
    "NEWTRUE": lambda _: True, "NEWFALSE": lambda _: False,
    "EMPTY_LIST": list, "LIST": list, "APPEND": extend, "APPENDS": extend,
    "EMPTY_DICT": dict, "DICT": lambda items: extend([{}, *items]), "SETITEM": extend, "SETITEMS": extend,
    "EMPTY_TUPLE": tuple, "TUPLE": tuple, "TUPLE1": tuple, "TUPLE2": tuple, "TUPLE3": tuple,
    "EMPTY_SET": lambda _: Inert("set"), "ADDITEMS": extend, "FROZENSET": lambda _: Inert("frozenset"),
    "BUILD": set_state}
Rebuild = Callable[[str, tuple[Any, ...]], Any]
"""Returns the value of a call of a name, or None for an `Inert`."""


class PickleReader:
    """Reads consecutive pickles in `content`; `stream` is positioned at the next pickle.

    `rebuild` handles the calls that create tensors, and `persistent` converts an id to a value. Raises BadInput for an
    attack or excessive work. Raises ValueError, LookupError or TypeError for an invalid pickle.
    """

    def __init__(self, content: bytes, rebuild: Rebuild, persistent: Callable[[Any], Any]) -> None:
        self.stream, self.rebuild, self.persistent = BytesIO(content), rebuild, persistent
        self.opcodes = 0
        self.memo: dict[int, Any] = {}
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each mark

    def load(self) -> Any:
        """Read the next pickle."""
        self.memo, self.stack, self.outer = {}, [], []
        for opcode, argument, _ in pickletools.genops(self.stream):
            if opcode.name == "STOP":
                break
            self.charge(1)
            self.execute(opcode, argument)
        return self.stack.pop()

    def charge(self, opcodes: int) -> None:
        """Count executed opcodes. Raises BadInput for more opcodes than any checkpoint of resjax's networks needs."""
        self.opcodes += opcodes
        if self.opcodes > MOST_OPCODES:
            raise BadInput("contains more than the tensors of a ResNet; save only the state_dict")

    def execute(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Execute an opcode, in time proportional to the number of values that it pops."""
        match opcode.name:
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
            case "DUP":
                self.stack.append(self.stack[-1])
            case "MARK":
                self.outer.append(self.stack)
                self.stack = []
            case "POP" if not self.stack:
                self.stack = self.outer.pop()
            case name:
                result = self.result(name, argument, self.operands(opcode.stack_before))
                if opcode.stack_after:
                    self.stack.append(result)

    def operands(self, kinds: list[pickletools.StackObject]) -> list[Any]:
        """Pop the operands of an opcode. A mark among them means all values above the last mark."""
        above, count = [], len(kinds)
        if pickletools.markobject in kinds:
            above, self.stack = self.stack, self.outer.pop()
            count = kinds.index(pickletools.markobject)
        if count > len(self.stack):
            raise IndexError("an opcode that needs more values than the stack has")
        below = [self.stack.pop() for _ in range(count)]
        return below[::-1] + above

    def result(self, opcode: str, argument: Any, operands: list[Any]) -> Any:
        """Return the result of an opcode for its operands."""
        if opcode in VALUES:
            return argument
        if opcode in PLAIN:
            return PLAIN[opcode](operands)
        match opcode:
            case "GET" | "BINGET" | "LONG_BINGET":
                return self.memo[argument]
            case "GLOBAL":
                return self.name(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                return self.name(*operands)
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                return self.call(*operands[:2])
            case "INST":
                return self.call(self.name(*argument.split(" ", 1)), operands)
            case "OBJ":
                return self.call(operands[0], operands[1:])
            case "BINPERSID":
                return self.persistent(*operands)
        raise ValueError(f"opcode {opcode}, which no file of tensors needs")

    def name(self, module: Any, name: Any) -> Name:
        """Return a name. Raises BadInput for a name that only an attack would use."""
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > 1000:
            raise TypeError("an invalid name")
        if ATTACK.match(full := f"{module}.{name}"):
            raise BadInput(f"asks for {ascii(full)[1:-1]}, which no weights file needs. It may be malicious: resjax "
                           "ran none of its code, and you should not open it")
        return Name(full)

    def call(self, maker: Any, arguments: Any) -> Any:
        """Return the result of a call, which is a dictionary, a value of `rebuild`, or an `Inert`."""
        if isinstance(maker, Inert):
            return Inert(maker.maker)
        if not isinstance(maker, Name):
            raise TypeError("a call of something that is not a name")
        if maker.full in ("collections.OrderedDict", "collections.defaultdict"):
            return self.dictionary(arguments)
        result = self.rebuild(maker.full, tuple(arguments[:MOST_ARGUMENTS]))  # many calls may share a million values
        return Inert(maker.full) if result is None else result

    def dictionary(self, arguments: Any) -> dict[str, Any]:
        """Create a dictionary, from pairs if given. Python 2 pickled ordered dictionaries as pairs."""
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        self.charge(len(pairs))  # pairs that are stored once may be referenced many times
        return {pair[0]: pair[1] for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2
                and isinstance(pair[0], str)}
