"""Entries of annotation files, whose fields are read by their type: whatever stands there, a message names it."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from resjax.data.classes import composed
from resjax.system.errors import BadInput
from resjax.system.serialization import brief

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # in no name: no file system and no output takes all of them
TRUE, FALSE = {"1", "1.0", "true", "yes", "y", "t"}, {"0", "0.0", "false", "no", "n", "f", "unspecified"}


class AnnotationEntry(NamedTuple):
    """An entry of a file, by its fields; of XML, the texts by the paths of their tags.

    A field that stands there twice, with two values, holds a list of them, which no reader of one value takes. An empty
    text is as good as none.
    """

    file: Path
    called: str
    fields: Mapping[str, Any]

    def said(self, field: str) -> Any:
        """Return what stands in a field, None for nothing."""
        value = self.fields.get(field)
        return (value.strip() or None) if isinstance(value, str) else value

    def number(self, field: str) -> float:
        """Return a finite number; text that is one counts. Raises BadInput for anything else."""
        value = self.said(field)
        if type(value) in (int, float) or (isinstance(value, str) and NUMBER.fullmatch(value)):
            try:
                found = float(value)
            except OverflowError:
                found = math.inf
            if math.isfinite(found):
                return found
        raise self.wrong(field, "a finite number")

    def numbers(self, field: str, count: int) -> list[float]:
        """Return a list of finite numbers. Raises BadInput for anything else."""
        values = self.said(field)
        if not isinstance(values, list) or len(values) != count:
            raise self.wrong(field, f"{count} numbers")
        each = AnnotationEntry(self.file, self.called, {f"{field}[{i}]": value for i, value in enumerate(values)})
        return [each.number(name) for name in each.fields]

    def pixels(self, field: str) -> int:
        """Return a whole number above 0, and 0 where nothing is said. Raises BadInput for anything else."""
        if self.said(field) is None:
            return 0
        found = self.number(field)
        if found != int(found) or not 0 <= found < 2**31:
            raise self.wrong(field, "a whole number of pixels")
        return int(found)

    def truth(self, field: str) -> bool:
        """Return what a number, a word or a truth value says, and no where nothing is said. BadInput for others."""
        value = self.said(field)
        word = str(value).lower() if isinstance(value, str | int | float) else "no" if value is None else ""
        if word not in TRUE | FALSE:
            raise self.wrong(field, "0 or 1")
        return word in TRUE

    def text(self, field: str) -> str:
        """Return a text in one line; a whole number counts as its digits. Raises BadInput for anything else."""
        value = self.said(field)
        value = str(value) if type(value) is int and abs(value) < 10**18 else value
        if not isinstance(value, str) or CONTROL.search(value):
            raise self.wrong(field, "a text")
        return value

    def name(self, field: str) -> str:
        """Return the name of a class, in the one form (NFC) that Unicode composes its letters to."""
        return composed(self.text(field))

    def id(self, field: str) -> int | str:
        """Return what identifies an entry: a whole number, 3.0 counts as 3, or a text. Raises BadInput for others."""
        value = self.said(field)
        if type(value) is int or (isinstance(value, float) and value.is_integer()):
            return int(value)
        if isinstance(value, str):
            return value
        raise self.wrong(field, "a whole number or a text")

    def wrong(self, field: str, right: str) -> BadInput:
        """Say that a field holds something else than it should, or nothing."""
        value = self.said(field)
        found = f"it has no {field}" if value is None else f"{field} is {brief(value)}"
        return BadInput(f"{self.file}, {self.called}: {found}; {field} is {right}")
