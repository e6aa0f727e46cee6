"""Reads numbers, flags, names and other values from annotation entries. Errors name the file, entry and field."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from resjax.data.classes import composed
from resjax.system.errors import BadInput
from resjax.system.serialization import brief

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # not allowed in names: not all file systems support them
TRUE, FALSE = {"1", "1.0", "true", "yes", "y", "t"}, {"0", "0.0", "false", "no", "n", "f", "unspecified"}


class AnnotationEntry(NamedTuple):
    """An entry of an annotation file, by field; for XML, its strings by tag path.

    A field that is repeated with different values becomes a list, which the methods for single values refuse. An empty
    string counts as missing.
    """

    file: Path
    called: str
    fields: Mapping[str, Any]

    def said(self, field: str) -> Any:
        """Return a field's value, or None if it is missing."""
        value = self.fields.get(field)
        return (value.strip() or None) if isinstance(value, str) else value

    def number(self, field: str) -> float:
        """Return a field's finite number, which may be given as text. Raises BadInput for anything else."""
        value = self.said(field)
        if type(value) in (int, float) or (isinstance(value, str) and NUMBER.fullmatch(value)):
            try:
                converted = float(value)
            except OverflowError:
                converted = math.inf
            if math.isfinite(converted):
                return converted
        raise self.wrong(field, "a finite number")

    def numbers(self, field: str, count: int) -> list[float]:
        """Return a list of finite numbers. Raises BadInput for anything else."""
        values = self.said(field)
        if not isinstance(values, list) or len(values) != count:
            raise self.wrong(field, f"{count} numbers")
        each = AnnotationEntry(self.file, self.called, {f"{field}[{i}]": value for i, value in enumerate(values)})
        return [each.number(name) for name in each.fields]

    def pixels(self, field: str) -> int:
        """Return a positive integer, or 0 if the field is missing. Raises BadInput for anything else."""
        if self.said(field) is None:
            return 0
        count = self.number(field)
        if count != int(count) or not 0 <= count < 2**31:
            raise self.wrong(field, "a whole number of pixels")
        return int(count)

    def truth(self, field: str) -> bool:
        """Return the value of a flag (number, word or boolean), by default False. Raises BadInput for anything else."""
        value = self.said(field)
        word = str(value).lower() if isinstance(value, str | int | float) else "no" if value is None else ""
        if word not in TRUE | FALSE:
            raise self.wrong(field, "0 or 1")
        return word in TRUE

    def text(self, field: str) -> str:
        """Return a one-line string; an integer becomes its digits. Raises BadInput for anything else."""
        value = self.said(field)
        value = str(value) if type(value) is int and abs(value) < 10**18 else value
        if not isinstance(value, str) or CONTROL.search(value):
            raise self.wrong(field, "a string")
        return value

    def name(self, field: str) -> str:
        """Return a class name in Unicode's composed form (NFC)."""
        return composed(self.text(field))

    def id(self, field: str) -> int | str:
        """Return an id: an integer (3.0 counts as 3) or a string. Raises BadInput for anything else."""
        value = self.said(field)
        if type(value) is int or (isinstance(value, float) and value.is_integer()):
            return int(value)
        if isinstance(value, str):
            return value
        raise self.wrong(field, "an integer or a string")

    def wrong(self, field: str, right: str) -> BadInput:
        """Return the error for a field that is missing or has an invalid value."""
        value = self.said(field)
        actual = f"it has no {field}" if value is None else f"{field} is {brief(value)}"
        return BadInput(f"{self.file}, {self.called}: {actual}; {field} must be {right}")
