"""Pickles as plain values. Nothing that a pickle names is imported, looked up or called.

`pickle.Unpickler` calls what a file names, so that a list of what it may call has to be right for ever; and a few bytes
let it grow its memo to any index or hash a key without end. Here Python's own `pickletools` reads the opcodes, and they
are carried out on lists, dictionaries and numbers. A name stays a `Name`. Whatever is made by calling one becomes an
`Inert`, which keeps nothing of what it is given. So every name is harmless, and none needs to be on a list. Names that
only an attack has a use for are refused all the same, for the sake of those who open the file elsewhere.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from resjax.system.errors import BadInput

MOST_BYTES = 1 << 26  # the 1202-layer net's takes 1.8 MB; strings in memory take up to four times as much
MOST_OPCODES = 2_000_000  # that net takes 0.24 million, with momentum and an average 0.58 million
MOST_ARGUMENTS = 8
ATTACKS = frozenset({
    "os", "posix", "nt", "subprocess", "pty", "runpy", "importlib", "shutil", "socket", "ctypes", "code", "commands"})
BUILT_IN_ATTACKS = frozenset({"eval", "exec", "execfile", "compile", "open", "file", "__import__", "breakpoint"})
VALUES = frozenset(  # opcodes that stand for the value that follows them
    opcode.name for opcode in pickletools.opcodes
    if opcode.arg and not opcode.stack_before and opcode.stack_after and opcode.stack_after != [pickletools.anyobject])
EMPTY: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_LIST": list, "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple, "EMPTY_SET": lambda: Inert("set")}
TAKES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "SETITEM": 2, "APPEND": 1, "STACK_GLOBAL": 2, "REDUCE": 2, "NEWOBJ": 2,
         "NEWOBJ_EX": 3, "BUILD": 1, "BINPERSID": 1}  # values from the stack
TAKES_TO_MARK = frozenset({"TUPLE", "LIST", "DICT", "FROZENSET", "SETITEMS", "APPENDS", "ADDITEMS", "INST", "OBJ",
                           "POP_MARK"})


@dataclass(frozen=True, slots=True)
class Name:
    """What a pickle names: a class or a function, which is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Inert:
    """Stands for an object that a pickle makes, and holds nothing but whose it is and whether it was a `nn.Module`."""

    __slots__ = ("maker", "network")

    def __init__(self, maker: str) -> None:
        self.maker = maker
        self.network = False


Rebuild = Callable[[Name, tuple[Any, ...]], Any]
"""Tells what a call of a name is: a value, or None for an `Inert`."""


class PickleReader:
    """Reads pickles that follow each other in `content`; `stream` stands where the next begins.

    `rebuild` knows the calls that matter, `persistent` turns an id into a value. Raises BadInput, naming `source`, for
    what is too much or an attack, and ValueError, LookupError or TypeError for what is no pickle.
    """

    def __init__(self, content: bytes, source: str, rebuild: Rebuild, persistent: Callable[[Any], Any]) -> None:
        self.stream, self.source, self.rebuild, self.persistent = BytesIO(content), source, rebuild, persistent
        self.opcodes = 0
        self.memo: dict[int, Any] = {}
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below the marks

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
        """Count work. Raises BadInput if it is more than any checkpoint of the library's networks asks for."""
        self.opcodes += opcodes
        if self.opcodes > MOST_OPCODES:
            raise BadInput(f"{self.source}: it holds more beside its tensors than any checkpoint of a ResNet; save the "
                           "state_dict alone")

    def carry_out(self, opcode: str, argument: Any) -> None:
        """Carry out an opcode that works on the stack, in time proportional to what it removes."""
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
            case "BUILD":  # all that is kept of a state is whether it is that of a network
                if isinstance(self.stack[-1], Inert) and isinstance(items[0], dict) and "_modules" in items[0]:
                    self.stack[-1].network = True
            case "BINPERSID":
                self.stack.append(self.persistent(items[0]))
            case "POP_MARK" | "PROTO" | "FRAME":
                pass
            case _:
                raise ValueError(f"an opcode {opcode}, which no file of tensors has")

    def to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def last(self, size: int) -> list[Any]:
        """Remove the last so many values from the stack."""
        if len(self.stack) < size:
            raise IndexError("an opcode for more values than there are")
        values = self.stack[-size:]
        del self.stack[-size:]
        return values

    def add(self, items: list[Any]) -> None:
        """Add to the list or dictionary at the top of the stack.

        No key but a string: to hash another can take for ever, and every tensor has a name. Optimizers count theirs.
        """
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, dict):
            target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True)
                          if isinstance(key, str))
        elif not isinstance(target, Inert):
            raise TypeError("items are added to what is no list and no dictionary")

    def name(self, module: Any, name: Any) -> Name:
        """Return a name. Raises BadInput for one that only an attack has a use for."""
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > 1000:
            raise TypeError("a name that is none")
        built_in = module in ("builtins", "__builtin__") and name in BUILT_IN_ATTACKS
        if built_in or module.partition(".")[0] in ATTACKS:
            raise BadInput(f"{self.source}: it asks for {ascii(module)[1:-1]}.{ascii(name)[1:-1]}, which no file of "
                           "weights needs; nothing of it was run, and it is better opened nowhere else either")
        return Name(module, name)

    def make(self, maker: Any, arguments: Any) -> None:
        """Push what calling `maker` stands for."""
        if not isinstance(arguments, (tuple, list)):
            raise TypeError("a call whose arguments are no tuple")
        made: Any = None
        if isinstance(maker, Name):
            if maker.module == "collections" and maker.name in ("OrderedDict", "defaultdict"):
                made = self.dictionary(arguments)
            else:
                made = self.rebuild(maker, tuple(arguments[:MOST_ARGUMENTS]))  # each call may name the same million
        elif not isinstance(maker, Inert):
            raise TypeError("a call of what is no name")
        self.stack.append(Inert(str(maker) if isinstance(maker, Name) else maker.maker) if made is None else made)

    def dictionary(self, arguments: Any) -> dict[str, Any]:
        """Make a dictionary, of pairs where there are some, as Python 2 wrote ordered ones."""
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        self.charge(len(pairs))  # which lie in memory once and may be named any number of times
        return {pair[0]: pair[1] for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2
                and isinstance(pair[0], str)}
