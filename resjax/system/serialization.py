"""Validates and lists the fields of frozen dataclasses, such as experiments, and converts them to JSON."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from resjax.system.errors import BadInput, check, nearest

Value = TypeVar("Value")
IN_PYTHON = {"in_python": True}  # metadata of a field whose value JSON cannot represent
SMALLEST, LARGEST = 2.0**-126, 2.0**128 - 2.0**104  # of the normal numbers of float32


class Must(NamedTuple):
    """A condition on a field, used in `Annotated`. In messages, `text` follows "must"."""

    text: str
    holds: Callable[[Any], bool]


class Named:
    """A dataclass with keyword-only fields. An unknown keyword is reported like a wrong value."""

    def __new__(cls, *positional: Any, **values: Any) -> typing.Self:
        check(not positional, f"{cls.__name__}({brief(positional[:1])[1:-2]}): pass its fields by name, such as "
                              f"{next(iter(fields_of(cls)))}=...")
        for name in values:
            check(name in fields_of(cls), f"{cls.__name__} has no field {name!r}; {suggest_field(cls, name)}")
        return super().__new__(cls)


def fields_of(kind: Any) -> dict[str, tuple[Any, ...]]:
    """Map the fields of a dataclass to the dataclasses that may be their values."""
    hints = typing.get_type_hints(kind)
    return {f.name: tuple(arm for arm in (typing.get_args(hints[f.name]) or (hints[f.name],))
                          if dataclasses.is_dataclass(arm)) for f in dataclasses.fields(kind)}


def suggest_field(kind: type, name: str) -> str:
    """Suggest a field that is spelled similarly, or else list all fields."""
    known = fields_of(kind)
    for field, inner in known.items():
        for arm in inner:
            if name in fields_of(arm):
                return f"it is a field of {field}: {field}={arm.__name__}({name}=...)"
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else f"its fields are {', '.join(known)}"


def check_fields(value: Any, prefix: str = "") -> None:
    """Raise BadInput, naming the field as on the command line, if a value has the wrong type or violates a condition.

    A float field also accepts an int, but neither infinity, NaN, nor any number that float32 cannot represent.
    """
    for name, hint in typing.get_type_hints(type(value), include_extras=True).items():
        check_value(f"{prefix}{name}".replace("_", "-"), getattr(value, name), hint)


def check_value(name: str, value: Any, hint: Any) -> None:
    """Raise BadInput if a type hint does not allow a value."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        check_value(name, value, arguments[0])
        for must in (each for each in arguments[1:] if isinstance(each, Must)):
            check(must.holds(value), f"{name} is {brief(value)}; it must {must.text}")
    elif origin is typing.Literal:
        check(type(value) is str and value in arguments,
              f"{name} is {brief(value)}; it must be one of {', '.join(map(repr, arguments))}")
    elif origin in (types.UnionType, typing.Union):
        fitting = [kind for kind in arguments if not isinstance(kind, type) or isinstance(value, kind)]
        check(bool(fitting), f"{name} is {brief(value)}; its type must be {' or '.join(k.__name__ for k in arguments)}")
        if value is not None or types.NoneType not in arguments:
            check_value(name, value, fitting[0])
    elif origin is tuple:
        check(isinstance(value, tuple), f"{name} is {brief(value)}; it must be a list (in Python, a tuple)")
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        check(len(kinds) == len(value), f"{name} has {len(value)} values; it must have {len(kinds)}")
        for item, kind in zip(value, kinds, strict=True):
            check_value(name, item, kind)
    elif hint is float:
        check(type(value) in (int, float), f"{name} is {brief(value)}; it must be a number")
        check(abs(value) < math.inf, f"{name} is {brief(value)}; it must be finite")
        check(value == 0 or SMALLEST <= abs(value) <= LARGEST, f"{name} is {brief(value)}; it must fit in float32")
    else:
        check(isinstance(value, hint) and (hint is bool or type(value) is not bool),
              f"{name} is {brief(value)}; its type must be {hint.__name__}")


def brief(value: Any) -> str:
    """Format any value for a message, shortened if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of more than 4,300 digits
        text = "a number with thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]} ..."


def written_fields(value: Any) -> list[dataclasses.Field[Any]]:
    """List the fields of a dataclass that are values, not Python objects."""
    return [f for f in dataclasses.fields(value) if "in_python" not in f.metadata]


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """List a dataclass's values by dotted name, as on the command line."""
    flat: dict[str, Any] = {}
    for f in written_fields(value):
        item = getattr(value, f.name)
        flat |= flatten(item, f"{prefix}{f.name}.") if dataclasses.is_dataclass(item) else {prefix + f.name: item}
    return flat


MAY_CHANGE = {"data.directory", "data.workers", "log_steps", "evaluate_steps", "evaluate_test", "checkpoint_steps"}
BY_CONTENT = ({"folder", "tars"}, {"voc"}, {"coco"})  # sources whose images are compared by their contents


def list_differences(before: Any, now: Any, fixed: str = "") -> list[str]:
    """List the fields, with both values, that make the results of two runs differ.

    The location of the images and the intervals for logging, evaluation and checkpoints do not count. More steps `now`
    do not count either, because the first run is then resumed, unless `fixed` says why it cannot be.
    """
    mine, theirs = flatten(before), flatten(now)
    same = MAY_CHANGE | ({"steps"} if not fixed and now.steps > before.steps else set())
    sources = {run.data.source.partition(":")[0] for run in (before, now)}
    if any(sources <= alike for alike in BY_CONTENT):
        same |= {"data.source"}
    why = f", but {fixed}" if fixed and now.steps > before.steps else ""
    return [f"{key}: {mine.get(key)!r} -> {theirs.get(key)!r}{why if key == 'steps' else ''}"
            for key in mine | theirs if key not in same and mine.get(key) != theirs.get(key)]


def to_json(value: Any) -> dict[str, Any]:
    """Turn a dataclass into nested dictionaries that JSON can hold."""
    items = {f.name: getattr(value, f.name) for f in written_fields(value)}
    return {name: to_json(item) if dataclasses.is_dataclass(item) else str(item) if isinstance(item, Path) else item
            for name, item in items.items()}


def from_json(values: Any, kind: type[Value]) -> Value:
    """Read back what `to_json` wrote. Raises BadInput if a field is missing, unknown or has the wrong type.

    A field that was added after the values were written gets its default, which keeps the earlier behaviour.
    """
    check(isinstance(values, dict), f"{kind.__name__} is {brief(values)}; it must be an object with fields")
    hints, fields = typing.get_type_hints(kind), written_fields(kind)
    needed = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    if wrong := sorted((values.keys() - {f.name for f in fields}) | (needed - values.keys())):
        raise BadInput(f"{kind.__name__}: unknown or missing field: {', '.join(wrong)}")
    return kind(**{name: convert(value, hints[name]) for name, value in values.items()})


def convert(value: Any, hint: Any) -> Any:
    """Convert a JSON value to a field's type if the value's form matches. The dataclass checks everything else."""
    arguments = typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_json(value, typing.cast(type, hint))
    if isinstance(hint, types.UnionType):  # X | None, or Data | Photographs, distinguished by their fields
        kinds = [kind for kind in arguments if kind is not types.NoneType]
        known = (kind for kind in kinds if dataclasses.is_dataclass(kind) and isinstance(value, dict)
                 and value.keys() <= typing.get_type_hints(kind).keys())
        return None if value is None else convert(value, next(known, kinds[0]))
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        each = arguments if len(arguments) == len(value) and Ellipsis not in arguments else arguments[:1] * len(value)
        return tuple(convert(item, kind) for item, kind in zip(value, each, strict=True))
    return value


def shortly(value: Any) -> str:
    """Format a dataclass or a Flax module in one line: its name and its non-default fields."""
    arguments = []
    for f in dataclasses.fields(value):
        usual = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        item = getattr(value, f.name)
        if f.init and f.repr and (usual is dataclasses.MISSING or (item is not usual and item != usual)):
            text = getattr(item, "__qualname__", None) or re.sub(" at 0x[0-9a-f]+", "", repr(item))
            arguments.append(f"{f.name}={text}")
    return f"{type(value).__name__}({', '.join(arguments)})"


def check_ghosts(batch_size: int, ghosts: int, name: str) -> None:
    """Raise BadInput, with valid values, unless `ghost_batch_size` divides the batch."""
    if batch_size % ghosts:
        fitting = [size for size in range(1, min(batch_size, 2 * ghosts) + 1) if batch_size % size == 0]
        near = " or ".join(map(str, sorted(sorted(fitting, key=lambda size: abs(size - ghosts))[:2])))
        batches = " or ".join(str(size * ghosts) for size in (batch_size // ghosts, batch_size // ghosts + 1) if size)
        raise BadInput(f"batch-size {batch_size} is not a multiple of {name} {ghosts}; use --{name} {near} or "
                       f"--batch-size {batches}")


def check_source(source: str, *forms: str) -> None:
    """Raise BadInput unless a source has one of the forms `KIND` or `KIND:WHAT`."""
    kind, _, what = source.partition(":")
    form = next((form for form in forms if form.partition(":")[0] == kind), None)
    check(form is not None, f"data.source is {source!r}; it must be {', '.join(map(repr, forms[:-1]))} or "
                            f"{forms[-1]!r}")
    check((":" in (form or "")) == bool(what),
          f"data.source is {source!r}; a name or path must follow the colon: {form!r}")
