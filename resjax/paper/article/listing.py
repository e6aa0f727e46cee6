"""Python source with its keywords, names, strings and comments marked up, for a page that needs no other file."""

import builtins
import inspect
import io
import keyword
import tokenize
from html import escape
from textwrap import dedent
from typing import Any


def source_of(thing: Any) -> str:
    """Return the source of a function or class, as it stands in its file."""
    return dedent(inspect.getsource(thing))


def highlighted(source: str) -> str:
    """Mark up keywords, strings, comments, numbers and what is defined; the text itself stays as it is."""
    lines, done, parts, before = source.splitlines(keepends=True), (1, 0), [], ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        parts.append(escape(between(lines, done, token.start), quote=False))
        done = token.end
        style = style_of(token, before)
        shown = escape(token.string, quote=False)
        parts.append(f'<span class="{style}">{shown}</span>' if style and shown else shown)
        before = token.string
    return "".join(parts).rstrip()


def between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the text from one place `(line, column)` to another; tokens leave out only spaces."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1]:end[1]] if start[0] <= len(lines) else ""
    return lines[start[0] - 1][start[1]:] + "".join(lines[start[0]:end[0] - 1]) + (
        lines[end[0] - 1][:end[1]] if end[0] <= len(lines) else "")


def style_of(token: tokenize.TokenInfo, before: str) -> str:
    """Name the class of a token; empty for what is shown plainly."""
    if token.type == tokenize.COMMENT:
        return "comment"
    if token.type == tokenize.STRING or tokenize.tok_name[token.type].startswith("FSTRING"):
        return "string"
    if token.type == tokenize.NUMBER:
        return "number"
    if token.type == tokenize.NAME:
        if before in ("def", "class"):
            return "defined"
        if keyword.iskeyword(token.string):
            return "keyword"
        return "builtin" if hasattr(builtins, token.string) else ""
    return ""
