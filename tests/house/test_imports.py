"""The house: who may import whom, and how large things may be."""

import ast
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
from counts import count_rooms

ROOT = Path(__file__).parents[2] / "resjax"
# From the ground up: a room knows those before it, and of its own floor nobody but itself.
FLOORS = (("system",), ("models", "__init__"), ("experiment",), ("data",), ("network",),
          ("analysis", "evaluation", "weights"), ("training",), ("experiment_files", "detection"), ("paper", "plan"),
          ("console",), ("__main__",))
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(ROOT.rglob("*.py"))
BESIDE = sorted(file for room in ("experiments", "docs") for file in (ROOT.parent / room).rglob("*.py"))
INTERFACE = {"evaluate_networks", "landscape", "reproduce", "train"}  # public: flags, or what is one's own


def module_of(file: Path) -> str:
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(file) for file in FILES}


def imports(file: Path) -> set[str]:
    """The modules of resjax that a file imports, anywhere in it but for types alone."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "resjax":
            module = (node.module or "").removeprefix("resjax").removeprefix(".")
            inner = {f"{module}.{name.name}".strip(".") for name in node.names}
            found |= (inner & MODULES) or {module or "__init__"}
    return found


def room(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_arrows_point_down(file):
    module = module_of(file)
    for other in imports(file):
        assert FLOOR[room(other)] < FLOOR[room(module)] or room(other) == room(module), f"{module} imports {other}"


def test_the_house_has_at_most_eleven_floors():
    rooms = {room(module_of(file)) for file in FILES}
    assert rooms == FLOOR.keys()
    assert len(FLOORS) <= 11


def test_lines_are_counted(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one.py").write_text('"""Told."""\n\n# said\ndef f():  # here\n    """Told\n    twice."""\n'
                                              '    return """a\n\nb"""\n')
    assert count_rooms(tmp_path) == {"room": {"files": 1, "lines": 4, "functions": 1}}


def test_no_module_imports_itself_by_way_of_others():
    graph = {module_of(file): imports(file) for file in FILES}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_file_and_its_functions_can_be_read(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name not in INTERFACE:
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            names = [argument.arg for argument in arguments if argument.arg not in ("self", "cls")]
            assert len(names) <= 6, f"{node.name} takes {', '.join(names)}"


def test_only_the_command_line_and_what_tells_of_progress_print():
    printing = {module_of(file) for file in FILES if any(
        isinstance(node, ast.Name) and node.id == "print" for node in ast.walk(ast.parse(file.read_text())))}
    others = {module for module in printing if room(module) != "console"}
    assert others <= {"system.terminal", "weights.hdf5_layout"}  # which is a program of its own


def in_the_locale(call: ast.AST) -> bool:
    """Whether a call reads or writes text in the encoding of the locale, which may lack a letter."""
    if not isinstance(call, ast.Call) or "encoding" in {keyword.arg for keyword in call.keywords}:
        return False
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name != "open":
        method = isinstance(call.func, ast.Attribute)
        return method and len(call.args) < {"read_text": 1, "write_text": 2}.get(name, 0)
    values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [str(value.value) for value in values if isinstance(value, ast.Constant)]
    return not (call.args or call.keywords) or any(set(mode) <= set("rwaxt+") for mode in modes)


def test_text_files_state_their_encoding():
    for text, wanted in {"a.read_text()": True, "a.write_text(b)": True, "a.open('a')": True, "a.open()": True,
                         "a.read_text('utf-8')": False, "write_text(a, b)": False, "a.open('rb')": False,
                         "open(a, 'w', encoding='utf-8')": False}.items():
        assert in_the_locale(ast.parse(text, mode="eval").body) == wanted, text
    assert [f"{file}:{node.lineno}" for file in FILES + BESIDE for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if in_the_locale(node)] == []


@pytest.mark.parametrize("package", ["resjax", "resjax.detection"])
def test_every_public_name_is_where_it_is_looked_for(package):
    module = import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
