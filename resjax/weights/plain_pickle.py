"""Reads pickles as plain values. Nothing that a pickle names is imported, looked up or called.

`pickle.Unpickler` calls whatever a file names, so a list of allowed names would have to be correct forever. A file of a
few bytes can also make the unpickler grow its memo to any size, or hash a key forever. Here, Python's `pickletools`
reads the opcodes, and they are executed on lists, dictionaries and numbers. A name stays a `Name`. Calling a `Name`
gives an `Inert`, which does not keep its arguments. So every name is harmless, and no list is needed. Names that only
an attack would use are still refused, to protect those who open the file with other tools.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from resjax.system.errors import BadInput

MOST_BYTES = 1 << 26  # 1.8 MB for 1202 layers; strings in memory take up to four times as much
MOST_OPCODES = 2_000_000  # 0.24 million for 1202 layers, 0.58 million with momentum and an average
MOST_ARGUMENTS = 8
ATTACKS = frozenset({
    "os", "posix", "nt", "subprocess", "pty", "runpy", "importlib", "shutil", "socket", "ctypes", "code", "commands"})
BUILT_IN_ATTACKS = frozenset({"eval", "exec", "execfile", "compile", "open", "file", "__import__", "breakpoint"})
VALUES = frozenset(  # opcodes that push their argument
    opcode.name for opcode in pickletools.opcodes
    if opcode.arg and not opcode.stack_before and opcode.stack_after and opcode.stack_after != [pickletools.anyobject])
EMPTY: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple, "EMPTY_SET": lambda: Inert("set")}
TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "SETITEM": 2, "APPEND": 1, "STACK_GLOBAL": 2, "REDUCE": 2, "NEWOBJ": 2,
         "NEWOBJ_EX": 3, "BUILD": 1, "BINPERSID": 1}  # number of values from the stack
TAKES_TO_MARK = frozenset({"TUPLE", "LIST", "DICT", "FROZENSET", "SETITEMS", "APPENDS", "ADDITEMS", "INST", "OBJ",
                           "POP_MARK"})


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Inert:
    """A placeholder for an object of a pickle; it stores only the name of its type and whether it was a `nn.Module`."""

    __slots__ = ("maker", "network")

    def __init__(self, maker: str) -> None:
        self.maker = maker
        self.network = False


Rebuild = Callable[[Name, tuple[Any, ...]], Any]
"""Tells what a call of a name is: a value, or None for an `Inert`."""


class PickleReader:
    """Reads consecutive pickles in `content`; `stream` is positioned at the next one.

    `rebuild` handles the calls that matter, and `persistent` converts an id to a value. Raises BadInput, naming
    `source`, for an attack or excessive work, and ValueError, LookupError or TypeError for invalid pickles.
    """

    def __init__(self, content: bytes, source: str, rebuild: Rebuild, persistent: Callable[[Any], Any]) -> None:
        self.stream, self.source, self.rebuild, self.persistent = BytesIO(content), source, rebuild, persistent
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
            if opcode.name in VALUES:
                self.stack.append(argument)
            elif opcode.name in EMPTY:
                self.stack.append(EMPTY[opcode.name]())
            else:
                self.carry_out(opcode.name, argument)
        return self.stack.pop()

    def charge(self, opcodes: int) -> None:
        """Count work. Raises BadInput for more work than any checkpoint of resjax's networks needs."""
        self.opcodes += opcodes
        if self.opcodes > MOST_OPCODES:
            raise BadInput(f"{self.source}: contains more than the tensors of a ResNet; save only the "
                           "state_dict")

    def carry_out(self, opcode: str, argument: Any) -> None:
        """Execute a stack opcode in time proportional to what it pops."""
        items = (self.last(TAKES[opcode]) if opcode in TAKES else
                 self.to_mark() if opcode in TAKES_TO_MARK else [])
        match opcode:
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "MARK":
                self.outer.append(self.stack)
                self.stack = []
            case "POP" if self.stack:
                self.stack.pop()
            case "POP":
                self.to_mark()
            case "DUP":
                self.stack.append(self.stack[-1])
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(items))
            case "LIST":
                self.stack.append(items)
            case "FROZENSET":
                self.stack.append(Inert("frozenset"))
            case "DICT":
                self.stack.append({})
                self.add(items)
            case "SETITEM" | "SETITEMS" | "APPEND" | "APPENDS" | "ADDITEMS":
                self.add(items)
            case "GLOBAL":
                self.stack.append(self.name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                self.stack.append(self.name(*items))
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                self.make(*items[:2])
            case "INST":
                self.make(self.name(*argument.split(" ", 1)), items)
            case "OBJ":
                self.make(items[0], items[1:])
            case "BUILD":  # of a state, only record whether it belongs to a network
                if isinstance(self.stack[-1], Inert) and isinstance(items[0], dict) and "_modules" in items[0]:
                    self.stack[-1].network = True
            case "BINPERSID":
                self.stack.append(self.persistent(items[0]))
            case "POP_MARK" | "PROTO" | "FRAME":
                pass
            case _:
                raise ValueError(f"opcode {opcode}, which no file of tensors needs")

    def to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def last(self, size: int) -> list[Any]:
        """Pop this many values."""
        if len(self.stack) < size:
            raise IndexError("an opcode that needs more values than the stack has")
        values = self.stack[-size:]
        del self.stack[-size:]
        return values

    def add(self, items: list[Any]) -> None:
        """Add to the list or dictionary at the top of the stack.

        Keys other than strings are dropped: hashing them could take forever. Tensors have names; only optimizers use
        numbers.
        """
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, dict):
            target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True)
                          if isinstance(key, str))
        elif not isinstance(target, Inert):
            raise TypeError("items are added to neither a list nor a dictionary")

    def name(self, module: Any, name: Any) -> Name:
        """Return a name. Raises BadInput for one that only an attack would use."""
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > 1000:
            raise TypeError("an invalid name")
        built_in = module in ("builtins", "__builtin__") and name in BUILT_IN_ATTACKS
        if built_in or module.partition(".")[0] in ATTACKS:
            raise BadInput(f"{self.source}: asks for {ascii(module)[1:-1]}.{ascii(name)[1:-1]}, which no weights file "
                           "needs. It may be malicious: resjax ran none of its code, and you should not open it")
        return Name(module, name)

    def make(self, maker: Any, arguments: Any) -> None:
        """Push the result of calling `maker`."""
        if not isinstance(arguments, (tuple, list)):
            raise TypeError("a call whose arguments are not a tuple")
        made: Any = None
        if isinstance(maker, Name):
            if maker.module == "collections" and maker.name in ("OrderedDict", "defaultdict"):
                made = self.dictionary(arguments)
            else:
                made = self.rebuild(maker, tuple(arguments[:MOST_ARGUMENTS]))  # calls may share a million values
        elif not isinstance(maker, Inert):
            raise TypeError("a call of something that is not a name")
        self.stack.append(Inert(str(maker) if isinstance(maker, Name) else maker.maker) if made is None else made)

    def dictionary(self, arguments: Any) -> dict[str, Any]:
        """Create a dictionary, from pairs if given: Python 2 pickled ordered dictionaries as pairs."""
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        self.charge(len(pairs))  # stored once, but may be referenced any number of times
        return {pair[0]: pair[1] for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2
                and isinstance(pair[0], str)}
