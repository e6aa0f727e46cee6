"""Highlights the syntax of Python source, as HTML with the classes of `article.css`."""

import inspect
from html import escape
from itertools import groupby
from textwrap import dedent
from typing import Any

from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

STYLES = {  # classes of `article.css` by token kind; the first match counts
    Comment: "comment", String: "string", Number: "number", Keyword: "keyword", Operator.Word: "keyword",
    Name.Class: "defined", Name.Function: "defined", Name.Builtin.Pseudo: "", Name.Builtin: "builtin",
    Name.Exception: "builtin"}


def source_of(thing: Any) -> str:
    """Return the source code of a function or class."""
    return dedent(inspect.getsource(thing))


def highlighted(source: str) -> str:
    """Mark keywords, strings, comments, numbers and definitions; the text stays unchanged."""
    parts = []
    for style, tokens in groupby(PythonLexer(stripnl=False).get_tokens(source), lambda token: style_of(token[0])):
        text = escape("".join(text for _, text in tokens), quote=False)
        parts.append(f'<span class="{style}">{text}</span>' if style else text)
    return "".join(parts).rstrip()


def style_of(kind: Any) -> str:
    """Return the class of a token kind; empty for plain text."""
    return next((style for known, style in STYLES.items() if kind in known), "")
