"""Pickles as plain values. Nothing that a pickle names is imported, looked up or called.

`pickle.Unpickler` calls what a file names, so that a list of what it may call has to be right for ever; and a few bytes
let it grow its memo to any index or hash a key without end. Here the opcodes are carried out on lists, dictionaries and
numbers. A name stays a `Name`. Whatever is made by calling one becomes an `Inert`, which keeps nothing of what it is
given: arguments, states and items are dropped. So every name is harmless, and none needs to be on a list. Names that
only an attack has a use for are refused all the same, for the sake of those who open the file elsewhere.

Work and memory are bounded: so many opcodes, so many bytes, and every opcode takes time in proportion to what it reads
or removes. https://docs.python.org/3/library/pickletools.html
"""

import struct
from collections.abc import Callable
from typing import Any

from resjax.system.errors import BadInput
from resjax.weights.plain_values import LONGEST_NUMBER, Inert, Name, digits, integer, text

MOST_BYTES = 1 << 26  # that net's takes 1.8 MB; strings in memory take up to four times as much as in the file
MOST_OPCODES = 2_000_000  # the 1202-layer net takes 0.24 million, with momentum and an average 0.58 million
MOST_ARGUMENTS = 8
ATTACKS = frozenset({
    "os", "posix", "nt", "subprocess", "pty", "runpy", "importlib", "shutil", "socket", "ctypes", "code", "commands"})
BUILT_IN_ATTACKS = frozenset({"eval", "exec", "execfile", "compile", "open", "file", "__import__", "breakpoint"})


Rebuild = Callable[[Name, tuple[Any, ...]], Any]
"""Tells what a call of a name is: a value, or None for an `Inert`."""


class Reader:
    """Reads pickles that follow each other in `content`; `position` is where the next begins.

    `rebuild` knows the calls that matter, `persistent` turns an id into a value. Raises BadInput, naming `source`, for
    what is too much or an attack, and ValueError, LookupError, TypeError or struct.error for what is no pickle.
    """

    def __init__(self, content: bytes, source: str, rebuild: Rebuild, persistent: Callable[[Any], Any]) -> None:
        self.content, self.source, self.rebuild, self.persistent = content, source, rebuild, persistent
        self.position, self.opcodes = 0, 0
        self.memo: dict[int, Any] = {}
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below the marks

    def load(self) -> Any:
        """Read the next pickle."""
        self.memo, self.stack, self.outer = {}, [], []
        content = self.content
        while (opcode := content[self.position]) != STOP:
            self.position += 1
            self.charge(1)
            action = ACTIONS.get(opcode)
            if action is None:
                raise ValueError(f"unknown opcode {opcode} at byte {self.position - 1}")
            action(self)
        self.position += 1
        return self.stack.pop()

    def charge(self, opcodes: int) -> None:
        """Count work. Raises BadInput where it is more than any checkpoint of the library's networks asks for."""
        self.opcodes += opcodes
        if self.opcodes > MOST_OPCODES:
            raise BadInput(f"{self.source}: it holds more beside its tensors than any checkpoint of a ResNet; save the "
                           "state_dict alone")

    def take(self, size: int) -> bytes:
        """Read so many bytes. Raises ValueError where there are not as many."""
        end = self.position + size
        if not self.position <= end <= len(self.content):
            raise ValueError(f"it ends within a pickle, {size} bytes after byte {self.position}")
        taken = self.content[self.position:end]
        self.position = end
        return taken

    def number(self, form: struct.Struct) -> Any:
        """Read a number of fixed size."""
        (value,) = form.unpack_from(self.content, self.position)
        self.position += form.size
        return value

    def line(self) -> bytes:
        """Read up to the end of a line."""
        taken = self.take(self.content.index(b"\n", self.position) + 1 - self.position)
        return taken[:-1]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def keep(self, index: int) -> None:
        """Put the top of the stack into the memo, which takes no more memory for a large index than for a small one."""
        self.memo[index] = self.stack[-1]

    def last(self, size: int) -> tuple[Any, ...]:
        """Remove the last so many values from the stack."""
        if len(self.stack) < size:
            raise IndexError("an opcode for more values than there are")
        values = tuple(self.stack[-size:])
        del self.stack[-size:]
        return values

    def add(self, items: list[Any]) -> None:
        """Append to the list at the top of the stack."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise TypeError("items are added to what is no list")

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values into the dictionary at the top of the stack.

        No key but a string: to hash another can take for ever, and every tensor has a name. Optimizers count theirs.
        """
        target = self.stack[-1]
        if isinstance(target, dict):
            target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True)
                          if isinstance(key, str))
        elif not isinstance(target, Inert):
            raise TypeError("items are set in what is no dictionary")

    def make_dictionary(self) -> None:
        items = self.pop_to_mark()
        self.stack.append({})
        self.set_items(items)

    def name(self, module: Any, name: Any) -> None:
        """Push a name. Raises BadInput for one that only an attack has a use for."""
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > 1000:
            raise TypeError("a name that is none")
        built_in = module in ("builtins", "__builtin__") and name in BUILT_IN_ATTACKS
        if built_in or module.partition(".")[0] in ATTACKS:
            raise BadInput(f"{self.source}: it asks for {ascii(module)[1:-1]}.{ascii(name)[1:-1]}, which no file of "
                           "weights needs; nothing of it was run, and it is better opened nowhere else either")
        self.stack.append(Name(module, name))

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

    def make_instance(self) -> None:
        """Push what stands for an instance, as it was written before protocol 2."""
        arguments = self.pop_to_mark()
        self.name(text(self.line()), text(self.line()))
        self.make(self.stack.pop(), arguments)

    def make_object(self) -> None:
        maker, *arguments = self.pop_to_mark()
        self.make(maker, arguments)

    def dictionary(self, arguments: Any) -> dict[str, Any]:
        """Make a dictionary, of pairs where there are some, as Python 2 wrote ordered ones."""
        pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
        self.charge(len(pairs))  # which lie in memory once and may be named any number of times
        return {pair[0]: pair[1] for pair in pairs if isinstance(pair, (list, tuple)) and len(pair) == 2
                and isinstance(pair[0], str)}

    def build(self) -> None:
        """Give an object its state: all that is kept of it is whether it is that of a network."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert) and isinstance(state, dict) and "_modules" in state:
            target.network = True


def long(reader: Reader, form: struct.Struct) -> int:
    """Read a whole number of any size."""
    size = reader.number(form)
    if not 0 <= size <= LONGEST_NUMBER:
        raise ValueError("a number of too many bytes")
    return int.from_bytes(reader.take(size), "little", signed=True)


BYTE, SHORT, INT, UNSIGNED, LONG, FLOAT = map(struct.Struct, ("<B", "<H", "<i", "<I", "<Q", ">d"))
STOP = ord(".")
Action = Callable[[Reader], Any]
ACTIONS: dict[int, Action] = {ord(opcode): action for opcode, action in {
    "\x80": lambda r: r.take(1), "\x95": lambda r: r.take(8),  # the protocol, and a frame's length
    "N": lambda r: r.push(None), "\x88": lambda r: r.push(True), "\x89": lambda r: r.push(False),
    "]": lambda r: r.push([]), "}": lambda r: r.push({}), ")": lambda r: r.push(()),
    "\x8f": lambda r: r.push(Inert("set")), "\x91": lambda r: r.push((r.pop_to_mark(), Inert("frozenset"))[1]),
    "K": lambda r: r.push(r.number(BYTE)), "M": lambda r: r.push(r.number(SHORT)),
    "J": lambda r: r.push(r.number(INT)), "G": lambda r: r.push(r.number(FLOAT)),
    "\x8a": lambda r: r.push(long(r, BYTE)), "\x8b": lambda r: r.push(long(r, INT)),
    "I": lambda r: r.push(integer(r.line())), "L": lambda r: r.push(integer(r.line())),
    "F": lambda r: r.push(float(digits(r.line()))),
    "S": lambda r: r.push(text(r.line().strip(b" ")[1:-1])), "V": lambda r: r.push(text(r.line())),
    "U": lambda r: r.push(text(r.take(r.number(BYTE)))), "T": lambda r: r.push(text(r.take(r.number(INT)))),
    "\x8c": lambda r: r.push(text(r.take(r.number(BYTE)))), "X": lambda r: r.push(text(r.take(r.number(UNSIGNED)))),
    "\x8d": lambda r: r.push(text(r.take(r.number(LONG)))), "C": lambda r: r.push(r.take(r.number(BYTE))),
    "B": lambda r: r.push(r.take(r.number(UNSIGNED))), "\x8e": lambda r: r.push(r.take(r.number(LONG))),
    "\x96": lambda r: r.push(r.take(r.number(LONG))),
    "q": lambda r: r.keep(r.number(BYTE)), "r": lambda r: r.keep(r.number(UNSIGNED)),
    "p": lambda r: r.keep(integer(r.line())), "\x94": lambda r: r.keep(len(r.memo)),
    "h": lambda r: r.push(r.memo[r.number(BYTE)]), "j": lambda r: r.push(r.memo[r.number(UNSIGNED)]),
    "g": lambda r: r.push(r.memo[integer(r.line())]),
    "(": Reader.mark, "0": lambda r: r.stack.pop() if r.stack else r.pop_to_mark(), "1": Reader.pop_to_mark,
    "2": lambda r: r.push(r.stack[-1]),
    "t": lambda r: r.push(tuple(r.pop_to_mark())), "l": lambda r: r.push(r.pop_to_mark()),
    "\x85": lambda r: r.push(r.last(1)), "\x86": lambda r: r.push(r.last(2)), "\x87": lambda r: r.push(r.last(3)),
    "d": Reader.make_dictionary, "s": lambda r: r.set_items(list(r.last(2))),
    "u": lambda r: r.set_items(r.pop_to_mark()), "a": lambda r: r.add(list(r.last(1))),
    "e": lambda r: r.add(r.pop_to_mark()), "\x90": lambda r: r.add(r.pop_to_mark()),
    "c": lambda r: r.name(text(r.line()), text(r.line())), "\x93": lambda r: r.name(*r.last(2)),
    "R": lambda r: r.make(*r.last(2)), "\x81": lambda r: r.make(*r.last(2)), "\x92": lambda r: r.make(*r.last(3)[:2]),
    "i": Reader.make_instance, "o": Reader.make_object, "b": Reader.build,
    "Q": lambda r: r.push(r.persistent(r.stack.pop())),
}.items()}
