"""Matches class names between training images, test images and networks, always by the same rules."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC); macOS stores file names in another form."""
    return unicodedata.normalize("NFC", name)


def normalized_name(name: str) -> str:
    """Return a name in lower case, with single spaces instead of underscores."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())


def place_of(name: str, classes: Sequence[str]) -> int | None:
    """Return the index of a class by an exact match, or else by a unique match of normalized names; None if none
    matches.

    Names in a list that differ only by case, spaces or underscores stay distinct.
    """
    exact, by_folding = places_by_name(tuple(classes))
    place = exact.get(composed(name))
    return by_folding.get(normalized_name(name)) if place is None else place


@lru_cache(maxsize=8)
def places_by_name(classes: tuple[str, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Map exact names to indices, and unique normalized names to indices."""
    exact = {composed(name): place for place, name in enumerate(classes)}
    return exact, alone((normalized_name(name), place) for name, place in exact.items())


def alone(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Keep the names that refer to a single index."""
    places: dict[str, set[int]] = {}
    for word, place in pairs:
        places.setdefault(word, set()).add(place)
    return {word: min(where) for word, where in places.items() if len(where) == 1}
