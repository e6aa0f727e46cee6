"""Frozen dataclasses such as an experiment, as JSON and back, and their values by dotted name."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, Literal

from resjax.errors import BadInput, check


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """List a dataclass's values by dotted name, as on the command line."""
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        item = getattr(value, f.name)
        flat |= flatten(item, f"{prefix}{f.name}.") if dataclasses.is_dataclass(item) else {prefix + f.name: item}
    return flat


def to_json(value: Any) -> dict[str, Any]:
    """Turn a dataclass into nested dictionaries that JSON can hold."""
    return dataclasses.asdict(value, dict_factory=lambda items: {
        key: str(item) if isinstance(item, Path) else item for key, item in items})


def from_json(values: Any, kind: type) -> Any:
    """Read back what `to_json` wrote. Raises BadInput where a field is missing, unknown or ill-typed.

    A field that has come since has its default, by which the earlier version worked.
    """
    check(isinstance(values, dict), f"{kind.__name__} is {values!r}; it is an object of fields")
    hints = typing.get_type_hints(kind)
    needed = {f.name for f in dataclasses.fields(kind)
              if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    if wrong := sorted((values.keys() - hints.keys()) | (needed - values.keys())):
        raise BadInput(f"{kind.__name__}: unknown or missing field: {', '.join(wrong)}")
    return kind(**{name: _read(f"{kind.__name__}.{name}", value, hints[name]) for name, value in values.items()})


def _read(name: str, value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(value, typing.cast(type, hint))
    if isinstance(hint, types.UnionType):  # X | None, or Data | Photographs, told apart by their fields
        kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
        known = (kind for kind in kinds if dataclasses.is_dataclass(kind) and isinstance(value, dict)
                 and value.keys() <= typing.get_type_hints(kind).keys())
        return None if value is None else _read(name, value, next(known, kinds[0]))
    if hint is Path:
        return Path(value)
    if typing.get_origin(hint) is tuple:
        check(isinstance(value, list | tuple), f"{name} is {value!r}; it is a list")
        kinds = typing.get_args(hint)
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        check(len(kinds) == len(value), f"{name} has {len(value)} values; it has {len(kinds)}")
        return tuple(_read(name, item, kind) for item, kind in zip(value, kinds, strict=True))
    if typing.get_origin(hint) is Literal:
        check(value in typing.get_args(hint), f"{name} is {value!r}; it is one of {typing.get_args(hint)}")
        return value
    check(type(value) is hint or (hint is float and type(value) is int), f"{name} is {value!r}; its type is {hint}")
    return hint(value)
