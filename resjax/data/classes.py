"""Names of classes, compared in one way wherever two lists of them meet: data and networks, training and test."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache


def composed(name: str) -> str:
    """Write a name in the one form (NFC) that Unicode composes its letters to: a Mac's file names are in another."""
    return unicodedata.normalize("NFC", name)


def normalized_name(name: str) -> str:
    """Write a name in one way whatever its case, and with single spaces for underscores."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())


def place_of(name: str, classes: Sequence[str]) -> int | None:
    """Return the place of a class by its name, None where there is none: exactly, else by `normalized_name` where that
    is one's.

    Names that differ by case, spaces or underscores alone stay apart wherever a list has both.
    """
    exact, by_folding = class_places(tuple(classes))
    place = exact.get(composed(name))
    return by_folding.get(normalized_name(name)) if place is None else place


@lru_cache(maxsize=8)
def class_places(classes: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Map names to places: exact ones, and folded ones that stand for one class alone."""
    exact = {composed(name): place for place, name in enumerate(classes)}
    return exact, alone((normalized_name(name), place) for name, place in exact.items())


def alone(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Keep of words with places those that stand for one place."""
    found: dict[str, set[int]] = {}
    for word, place in pairs:
        found.setdefault(word, set()).add(place)
    return {word: min(where) for word, where in found.items() if len(where) == 1}
