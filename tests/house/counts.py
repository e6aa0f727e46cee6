"""Count the package: `python tests/house/counts.py [FOLDER]` prints files, lines of code and functions by room.

A line of code is one that holds more than a docstring, a comment or nothing.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

EMPTY = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def count(file: Path) -> Counter[str]:
    """Count the lines of code and the functions of a file."""
    source = file.read_text()
    nodes = list(ast.walk(ast.parse(source)))
    lines = {line for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in EMPTY
             for line in range(token.start[0], token.end[0] + 1)}
    told = {line for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str) for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    functions = sum(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) for node in nodes)
    return Counter(files=1, lines=len(lines - told), functions=functions)


def count_rooms(package: Path) -> dict[str, Counter[str]]:
    """Count a package by its rooms; "" are the modules at its top."""
    rooms: dict[str, Counter[str]] = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).parts
        rooms.setdefault(parts[0] if len(parts) > 1 else "", Counter()).update(count(file))
    return rooms


if __name__ == "__main__":
    found = count_rooms(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[2] / "resjax")
    for room, counts in {**found, "all": sum(found.values(), Counter())}.items():
        print(f"{room:12} {counts['files']:4} files {counts['lines']:6,} lines {counts['functions']:5,} functions")
