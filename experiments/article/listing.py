"""Python source with its keywords, names, strings and comments marked up, for a page that needs no other file."""

import inspect
from html import escape
from itertools import groupby
from textwrap import dedent
from typing import Any

from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

STYLES = {  # the classes of `article.css`, of the first kind that a token is of
    Comment: "comment", String: "string", Number: "number", Keyword: "keyword", Operator.Word: "keyword",
    Name.Class: "defined", Name.Function: "defined", Name.Builtin.Pseudo: "", Name.Builtin: "builtin",
    Name.Exception: "builtin"}


def source_of(thing: Any) -> str:
    """Return the source of a function or class, as it stands in its file."""
    return dedent(inspect.getsource(thing))


def highlighted(source: str) -> str:
    """Mark up keywords, strings, comments, numbers and what is defined; the text itself stays as it is."""
    parts = []
    for style, tokens in groupby(PythonLexer(stripnl=False).get_tokens(source), lambda token: style_of(token[0])):
        text = escape("".join(text for _, text in tokens), quote=False)
        parts.append(f'<span class="{style}">{text}</span>' if style else text)
    return "".join(parts).rstrip()


def style_of(kind: Any) -> str:
    """Name the class of a kind of token; empty for what is shown plainly."""
    return next((style for known, style in STYLES.items() if kind in known), "")
