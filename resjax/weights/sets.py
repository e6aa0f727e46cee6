"""Finds the sets of weights in a checkpoint (such as trained and averaged weights), and chooses one by a key."""

from collections.abc import Iterable, Iterator
from typing import Any

from resjax.system.errors import BadInput
from resjax.weights.locate import COUNTERS, find_prefixes, unwrapped
from resjax.weights.plain_pickle import Inert
from resjax.weights.reading import shown

DEEPEST = 4  # deepest nesting of dictionaries
LISTED = 10


def choose_set(content: Any, kind: type[Any], key: str | None) -> dict[str, Any]:
    """Choose a set of weights, that is, a dictionary from names to tensors of type `kind`.

    `key` chooses between several sets. Raises BadInput if there is no set, if the key is unknown, if there are several
    sets and no key, or if the chosen set contains anything other than tensors and counters.
    """
    sets = dict(find_sets(content, kind))
    if key is not None and key not in sets:
        raise BadInput(f"contains no set of weights {shown(key)}; {list_keys(sets, 'it contains')}")
    networks = [path for path, values in sets.items() if find_prefixes(map(unwrapped, values))]
    with_kernels = [path for path, values in sets.items()
                    if any(isinstance(value, kind) and len(value.shape) == 4 for value in values.values())]
    paths = [key] if key is not None else networks or with_kernels or list(sets)
    if not paths:
        raise BadInput(nothing(content))
    if len(paths) > 1:
        raise BadInput(f"contains {len(paths)} sets of weights; {list_keys(paths, 'choose one with --key:')}")
    return {name: value for name, value in sets[paths[0]].items() if is_weight(name, value, kind)}


def find_sets(content: Any, kind: type[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """List the sets of weights by path. A set is a dictionary with a tensor and no nested dictionary, and is listed
    once.
    """
    seen: set[int] = set()
    level = [("", content)]
    for _ in range(DEEPEST):
        inner: list[tuple[str, Any]] = []
        for path, value in level:
            if not isinstance(value, dict) or id(value) in seen:
                continue
            seen.add(id(value))
            if any(isinstance(item, dict) for item in value.values()):
                inner += [(f"{path}.{name}" if path else name, item) for name, item in value.items()
                          if isinstance(item, dict) and len(path) + len(name) < 200]
            elif any(isinstance(item, kind) for item in value.values()):
                yield path, value
        level = inner


def is_weight(name: str, value: Any, kind: type[Any]) -> bool:
    """Return whether a value is a tensor rather than a counter. Raises BadInput, describing it, for anything else."""
    if isinstance(value, kind):
        return True
    if value is None or (isinstance(value, (int, float)) and name in COUNTERS):
        return False
    maker = value.maker if isinstance(value, Inert) else type(value).__name__
    if "rebuild_qtensor" in maker or "packed_params" in name:
        raise BadInput(f"{shown(name)} is quantised; resjax reads only floating-point networks")
    raise BadInput(f"{shown(name)} is not a tensor, but {shown(maker, 200)}")


def nothing(content: Any) -> str:
    """Describe the contents of a file without weights."""
    objects = content if isinstance(content, dict) else {"": content}
    for name, value in objects.items():
        if isinstance(value, Inert) and value.network:
            return (f"{f'{shown(name)} is ' if name else ''}a whole pickled network, {shown(value.maker)}, which only "
                    "its own code can open; save its state_dict() instead")
        if isinstance(value, Inert) and " " in value.maker:  # described by our own reader, not named by the file
            return f"{shown(name)} is {shown(value.maker, 200)}"
    keys = ", ".join(map(shown, list(objects)[:LISTED])) if isinstance(content, dict) and content else ""
    return f"it contains no dictionary of tensors{f', but {keys}' if keys else ''}; save a network's state_dict()"


def list_keys(paths: Iterable[str], what: str) -> str:
    """List some keys."""
    known = list(paths)
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"{what} {', '.join(map(shown, known[:LISTED])) or 'none'}{more}"
