"""Pickles that ask for memory, time or code: the content of `data.pkl`, each with a name."""

import struct
from collections.abc import Iterator

MILLION = 1_000_000
MANY = 2_500_000  # more opcodes than a file may have
FEW = 1_990_000  # less
COUNT = 27 * 64  # elements of the storage "0" that lies beside each pickle


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def whole(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def group(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def sizes(values: tuple[int, ...]) -> bytes:
    return group(*map(whole, values))


def storage(key: bytes = text("0"), count: bytes = whole(COUNT), kind: str = "FloatStorage") -> bytes:
    return group(text("storage"), f"ctorch\n{kind}\n".encode(), key, text("cpu"), count) + b"Q"


def tensor(where: bytes | None = None, offset: bytes = whole(0), shape: bytes = sizes((64, 3, 3, 3)),
           strides: bytes = sizes((27, 9, 3, 1)), name: str = "_rebuild_tensor_v2") -> bytes:
    arguments = group(storage() if where is None else where, offset, shape, strides, b"\x89", b"N")
    return f"ctorch._utils\n{name}\n".encode() + arguments + b"R"


def state(content: bytes = b"", names: tuple[str, ...] = ("conv1.weight",), value: bytes | None = None) -> bytes:
    """Write a state_dict of a tensor or several alike, with `content` before it."""
    items = b"".join(text(name) + (tensor() if value is None else value) for name in names)
    return b"\x80\x02" + content + b"}(" + items + b"u."


def beside(content: bytes) -> bytes:
    """Write a checkpoint whose weights are whole, and which holds something else."""
    return b"\x80\x02}(" + text("state_dict") + state()[2:-1] + text("other") + content + b"u."


SHARED = b")" + b"2\x86" * 60  # a tuple of the tuple before, twice, and so on: 2 ** 60 parts in 120 bytes
LONG = b"(" + b"K\x01" * MILLION + b"tq\x00"
PAIRS = b"](" + (text("a") + b"N\x86") * 100_000 + b"eq\x01"
FORGED = ("os.system", "posix.system", "builtins.eval", "builtins.exec", "builtins.__import__", "builtins.getattr",
          "subprocess.Popen", "runpy.run_path", "importlib.import_module", "shutil.rmtree", "socket.socket",
          "ctypes.CDLL", "pickle.loads", "torch.load", "torch.hub.load", "numpy.load", "operator.attrgetter",
          "functools.partial", "functools.reduce", "copyreg._reconstructor", "codecs.encode", "marshal.loads",
          "types.CodeType", "types.FunctionType", "pydoc.locate", "timeit.timeit", "resjax.train", "antigravity.x",
          "http.server.main", "logging.config.listen", "a.b.c.d", "__main__.x")


def memory() -> Iterator[tuple[str, bytes]]:
    """Ask for memory by some bytes."""
    yield "memo index of 2**32 - 1", beside(b"Nr\xff\xff\xff\xff")
    yield "memo index of 250 digits", beside(b"Np" + b"9" * 250 + b"\n")
    yield "memo indices of 2**k", beside(b"N" + b"".join(b"r" + struct.pack("<I", 1 << k) for k in range(32)))
    yield "memo of 2.5 million", beside(b"N" + b"\x94" * MANY)
    for opcode, form in (("T", "<i"), ("X", "<I"), ("B", "<I"), ("\x8d", "<Q"), ("\x8e", "<Q"), ("\x96", "<Q")):
        most = (1 << 8 * struct.calcsize(form) - (form == "<i")) - 1
        yield f"string {opcode!r} of {most} bytes", beside(opcode.encode("latin-1") + struct.pack(form, most))
    yield "string of -1 bytes", beside(b"T\xff\xff\xff\xff")
    yield "whole number of 2**31 - 1 bytes", beside(b"\x8b\xff\xff\xff\x7f")
    yield "whole number of -1 bytes", beside(b"\x8b\xff\xff\xff\xff")
    yield "frame of 2**64 - 1", beside(b"\x95" + b"\xff" * 8 + b"N")
    yield "string that grows fourfold", beside(text("a" * 30 * MILLION + "\U0001f600"))
    yield "dictionaries, 2.5 million", beside(b"(" + b"}" * MANY + b"t")
    yield "dictionaries kept, 1 million", beside(b"(" + b"}\x94" * (FEW // 2) + b"t")
    yield "lists, 2.5 million", beside(b"(" + b"]" * MANY + b"t")
    yield "sets, 2.5 million", beside(b"(" + b"\x8f" * MANY + b"t")
    yield "marks, 2.5 million", beside(b"N" + b"(" * MANY)
    yield "names, 2.5 million", beside(b"(" + b"caa\nbb\n" * MANY + b"t")
    yield "names kept, 1 million", beside(b"(" + b"caa\nbb\n\x94" * (FEW // 2) + b"t")
    yield "strings kept, 1 million", beside(b"(" + b"\x8c\x04abcd\x94" * (FEW // 2) + b"t")
    yield "numbers kept, 1 million", beside(b"(" + b"J\x00\x00\x10\x00\x94" * (FEW // 2) + b"t")
    yield "objects, 0.6 million", beside(b"caa\nbb\nq\x00(" + b"h\x00)R" * (FEW // 3) + b"t")
    yield "more than 64 MiB of strings", beside(b"(" + text("a" * MILLION) * 80 + b"t")


def time() -> Iterator[tuple[str, bytes]]:
    """Ask for time: to hash, to compare, to copy or to follow what lies there once."""
    yield "shared tuples as a key", beside(b"}" + SHARED + b"Ns")
    yield "shared tuples as a key of many", beside(b"}(" + SHARED + b"N" + SHARED + b"Nu")
    yield "shared tuples as a value", beside(SHARED)
    yield "shared tuples in a set", beside(b"\x8f(" + SHARED + b"\x90")
    yield "shared tuples in a frozen set", beside(b"(" + SHARED + b"\x91")
    yield "shared tuples as arguments", beside(b"cbuiltins\nfrozenset\n" + SHARED + b"\x85R")
    yield "shared tuples as a tensor's storage", beside(tensor(SHARED))
    yield "shared tuples as a tensor's sizes", state(value=tensor(shape=SHARED))
    yield "shared tuples as an id", beside(SHARED + b"Q")
    yield "shared tuples as the kind of an id", beside(
        group(SHARED, b"ctorch\nFloatStorage\n", text("0"), text("cpu"), whole(COUNT)) + b"Q")
    yield "shared tuples as a size", beside(b"ctorch\nSize\n" + SHARED + b"\x85R")
    yield "shared dictionaries", beside(b"}q\x00" + b"".join(b"}(" + text("a") + b"h" + bytes([k]) + text("b") + b"h"
                                                            + bytes([k]) + b"uq" + bytes([k + 1]) for k in range(60)))
    yield "a number of a million digits", beside(b"I" + b"9" * MILLION + b"\n")
    yield "a long number of a million digits", beside(b"L" + b"9" * MILLION + b"L\n")
    yield "a real number of a million digits", beside(b"F" + b"9" * MILLION + b"\n")
    yield "a million sizes, 100,000 times", beside(LONG + b"ctorch\nSize\nq\x01" + b"h\x01h\x00\x85R" * 100_000)
    yield "a million arguments, 100,000 times", beside(LONG + b"ctorch\nx\nq\x01" + b"h\x01h\x00R" * 100_000)
    yield "a million arguments of a type, 100,000 times", beside(
        LONG + b"ctorch._tensor\n_rebuild_from_type_v2\nq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02"
        + b"h\x01(h\x02Nh\x00NtR" * 100_000)
    yield "a million parts of an id, 100,000 times", beside(LONG + b"h\x00Q" * 100_000)
    yield "a million axes, 100,000 times", beside(
        LONG + b"ctorch._utils\n_rebuild_tensor_v2\nq\x01" + storage() + b"q\x02"
        + b"h\x01(h\x02K\x00h\x00h\x00tR" * 100_000)
    yield "100,000 pairs, 100,000 times", beside(PAIRS + b"ccollections\nOrderedDict\nq\x02"
                                                 + b"h\x02h\x01\x85R" * 100_000)
    for name, begin, end in (("lists", b"(", b"l"), ("tuples", b"(", b"t"), ("dictionaries", b"(" + text("a"), b"d")):
        yield f"{name} in {name}, 600,000", beside(begin * 600_000 + b"N" + end * 600_000)
    yield "tuples of one in each other, a million", beside(b"N" + b"\x85" * MILLION)
    yield "calls in calls, 390,000", beside(b"N" + (b"\x85q\x01ctorch\nx\nh\x01R") * 390_000)
    yield "parameters in parameters", state(value=b"ctorch._utils\n_rebuild_parameter\nq\x00" + tensor() + b"q\x01"
                                            + b"h\x00h\x01\x85Rq\x01" * 200_000)
    yield "a list in itself", beside(b"]q\x00h\x00a")
    yield "a dictionary in itself", (b"\x80\x02}q\x00(" + text("a") + b"h\x00" + text("state_dict") + state()[2:-1]
                                     + b"u.")
    yield "arguments that are their list", beside(b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00]q\x01(h\x00Nh\x01eR")


def tensors() -> Iterator[tuple[str, bytes]]:
    """State tensors that are not there."""
    for count in (1 << 62, 1 << 40, -1, COUNT + 1):
        yield f"storage of {count}", state(value=tensor(storage(count=whole(count))))
    for key in ("../../../etc/passwd", "/etc/passwd", "data.pkl", "", "1", "\0", "a" * MILLION):
        yield f"storage {key[:20]!r}", state(value=tensor(storage(text(key))))
    yield "storage whose key is a number", state(value=tensor(storage(whole(0))))
    yield "storage of doubles", state(value=tensor(storage(kind="DoubleStorage")))
    yield "storage of complex numbers", state(value=tensor(storage(kind="ComplexFloatStorage")))
    yield "storage of quantised numbers", state(value=tensor(storage(kind="QInt8Storage")))
    yield "two kinds of one storage", state(names=("a", "b")) [:-2] + text("c") + tensor(
        storage(kind="HalfStorage", count=whole(2 * COUNT))) + b"u."
    for offset in (1 << 61, 1 << 63, -1, COUNT):
        yield f"offset {offset}", state(value=tensor(offset=whole(offset)))
    stem, all_one = (64, 3, 3, 3), (1, 1, 1, 1)
    for shape, strides in (((1 << 60,) * 4, (0,) * 4), ((1 << 40, 1 << 40, 1 << 40, 1), all_one),
                           (stem, (1 << 61,) * 4), (stem, (-27, 9, 3, 1)), ((-64, 3, 3, 3), (27, 9, 3, 1)),
                           ((1 << 62, 0, 1, 1), all_one), ((1 << 20, 1, 1, 1), (0, 0, 0, 0)),
                           ((600, 600, 1, 1), all_one), ((1,) * 70, (1,) * 70), (stem, (1, 1))):
        value = tensor(shape=sizes(shape), strides=sizes(strides))
        yield f"sizes {shape[:4]} strides {strides[:4]}", state(value=value)
    yield "sizes of real numbers", state(value=tensor(shape=group(b"G" + bytes(8), *[whole(3)] * 3)))
    yield "sizes of strings", state(value=tensor(shape=text("abcd")))
    yield "sizes of truth values", state(value=tensor(shape=b"(\x88\x88\x88\x88t"))
    yield "a tensor without a storage", state(value=tensor(b"N"))
    yield "a tensor of a tensor", state(value=tensor(tensor()))
    yield "a tensor without arguments", state(value=b"ctorch._utils\n_rebuild_tensor_v2\n)R")
    yield "a parameter of nothing", state(value=b"ctorch._utils\n_rebuild_parameter\n)R")
    yield "20,000 views of one storage", state(names=tuple(f"a{k}.weight" for k in range(20_000)))
    yield "10,000 views of one storage under our names", state(names=tuple(
        f"layer1.{k}.conv1.weight" for k in range(10_000)))
    yield "a name of a million letters", state(names=("a" * MILLION, "conv1.weight"))
    yield "a name of control characters", state(names=("\x1b[2J\x07", "conv1.weight"))
    yield "an empty name", state(names=("", "conv1.weight"))
    yield "numbers for names", b"\x80\x02}(K\x00" + tensor() + b"u."
    yield "30,000 sets of weights", b"\x80\x02" + state()[2:-1] + b"q\x00}(" + b"".join(
        text(f"s{k}") + b"}(" + text("conv1.weight") + tensor() + b"u" for k in range(30_000)) + b"u."
    yield "sets under names of a million letters", b"\x80\x02}(" + b"".join(
        text(chr(97 + k) * MILLION) + state()[2:-1] for k in range(5)) + b"u."
    yield "weights 1,000 dictionaries deep", (b"\x80\x02" + (b"}" + text("a")) * 1000 + state()[2:-1] + b"s" * 1000
                                              + b".")


def code() -> Iterator[tuple[str, bytes]]:
    """Ask for code to be run, in every way that an opcode has for it; `MARKER` becomes the path of a file."""
    for name in FORGED:
        module, _, function = name.rpartition(".")
        yield f"call {name}", beside(f"c{module}\n{function}\n".encode() + group(text("touch MARKER")) + b"R")
    run = text("open('MARKER','w')")
    yield "call by two strings", beside(text("timeit") + text("timeit") + b"\x93" + group(run) + b"R")
    yield "instance", beside(b"(" + run + b"itimeit\ntimeit\n")
    yield "object", beside(b"(ctimeit\ntimeit\n" + run + b"o")
    yield "new object", beside(b"ctimeit\nTimer\n" + group(run) + b"\x81")
    yield "new object by names", beside(b"ctimeit\nTimer\n" + group(run) + b"}\x92")
    yield "state", beside(b"ctimeit\nTimer\n)\x81}(" + text("__class__") + text("x") + b"ub")
    yield "state of a dictionary", state()[:-1] + b"}(" + text("__class__") + b"cposixpath\njoin\nub."
    yield "state of a name", beside(b"ctimeit\nTimer\n}(" + text("timer") + text("x") + b"ub")
    yield "items of an object", beside(b"ctimeit\nTimer\n)\x81(" + text("a") + b"Nu")
    yield "call of a dotted name", beside(text("timeit") + text("Timer.timeit") + b"\x93)R")
    yield "call of a module of ours", beside(b"cresjax.system.files\ndigest\n" + group(text("MARKER")) + b"R")
    yield "call of a string", beside(text("timeit.timeit") + group(text("MARKER")) + b"R")
    yield "call of a tensor", state(value=tensor() + b")R")
    yield "call of a type of storage", state(value=b"ctorch\nFloatStorage\n(K\x05tR")
    yield "an id that is code", beside(group(b"ctimeit\ntimeit\n", *[text("x")] * 4) + b"Q")
    yield "an extension", beside(b"\x82\x01")
    yield "a buffer from outside", beside(b"\x97")
    yield "a buffer made read-only", beside(b"\x98")


def nonsense() -> Iterator[tuple[str, bytes]]:
    """End too early, or do what no pickle does."""
    yield "nothing", b""
    yield "an end", b"."
    modules = text("_modules") + b"}" + text("_parameters") + b"}"
    yield "a whole network", b"\x80\x02cmodels\nResNet\n)\x81}(" + modules + b"ub."
    for opcode in b"\x85\x86\x87aeustlbRQ01od\x81\x90\x91\x92\x93h\x94\x01\xff":
        yield f"opcode {opcode:#x} alone", b"\x80\x02" + bytes([opcode])
    yield "an item for a number", b"\x80\x02K\x01Na."
    yield "an odd number of items", b"\x80\x02}(Nu."


KINDS = {"memory": memory, "time": time, "tensors": tensors, "code": code, "nonsense": nonsense}
