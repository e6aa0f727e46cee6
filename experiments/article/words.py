"""The article's texts in both languages, and the numbers inserted into them, which come from the paper, the models and
the measurements.
"""

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from experiments.article.figure3 import networks
from experiments.article.measurement import Measured
from resjax.paper.tables import TABLES

FOLDER = Path(__file__).parent
LANGUAGES = {"en": "en", "zh": "zh-Hans"}  # our codes, and those of the `lang` attribute
FAMILIES = ("dense", "conv")
WHEN = re.compile(r"<\?when ([\w.]+)\?>(.*?)<\?otherwise\?>(.*?)<\?end\?>", re.DOTALL)


class Statement(NamedTuple):
    """A claim in one language, its measurement, and whether it holds."""

    experiment: str
    claim: str
    measured: str
    holds: bool


@cache
def words() -> dict[str, Any]:
    """Read `words.toml`."""
    return tomllib.loads((FOLDER / "words.toml").read_text("utf-8"))


def speaker(language: str, part: str = "labels") -> Callable[[str], str]:
    """Return a function that looks up labels in a language."""
    return lambda name: str(words()[part][name][language])


@cache
def sections(language: str) -> dict[str, tuple[str, str]]:
    """Read the text in a language: the experiment that each section needs (or "") and its HTML, by section, in order.

    The part before the first section is called "header".
    """
    text = (FOLDER / f"{language}.html").read_text("utf-8")
    header, *rest = text.split("<section ")
    found = {"header": ("", header.strip())}
    for part in rest:
        matched = re.fullmatch(r'id="(\w+)"(?: needs="(\w+)")?>\n(.*)</section>\s*', part, re.DOTALL)
        assert matched, part[:40]
        found[matched[1]] = (matched[2] or "", matched[3])
    return found


def numbers(measurements: Sequence[Measured]) -> dict[str, Any]:
    """Collect all values that the text can use: rows of the paper's tables, networks, experiments, and totals."""
    paper = {table.name: {row.experiment: row for row in table.rows} for table in TABLES.values()}
    return {"paper": paper, "nets": {net.name: net for net in networks()}, "all": totals(measurements),
            **{one.name: {**one.found.values, **derived(one)} for one in measurements}}


def derived(measured: Measured) -> dict[str, Any]:
    """Compute further values of an experiment for the text, such as ratios and the prediction of a formula."""
    values = measured.found.values
    if measured.name == "gradients":  # half or twice He's variance: a factor of sqrt(2) per layer
        return {"predicted": (values["layers"] - 1) / 2 * math.log10(2)}
    if measured.name == "degradation":
        losses = {family: values[family]["loss"] for family in FAMILIES}
        return {family: {**values[family], "ratio": {
            "plain": loss["plain_deep"] / loss["plain_shallow"],
            "residual": loss["residual_deep"] / loss["plain_deep"]}} for family, loss in losses.items()}
    return {}


def totals(measurements: Sequence[Measured]) -> dict[str, Any]:
    """Count the claims of all experiments, and describe the machine."""
    holds = [held for one in measurements for held in one.found.claims.values()]
    machine = measurements[0].machine
    seconds = sum(one.seconds for one in measurements)
    return {"total": len(holds), "held": sum(holds), "failed": len(holds) - sum(holds), "seeds": measurements[0].seeds,
            "minutes": max(2, math.ceil(seconds / 60)),
            "platform": machine["kind"].replace("cpu", "CPU"),
            "jax": machine["jax"], "flax": machine["flax"]}


def statements(measured: Measured, language: str) -> Iterator[Statement]:
    """Yield an experiment's claims in a language."""
    values = {**measured.found.values, **derived(measured)}
    for name, holds in measured.found.claims.items():
        family, _, claim = name.partition(".")
        if family not in FAMILIES:
            family, claim = "", name
        filling = {**values, **values.get(family, {}), "family": speaker(language)(family) if family else ""}
        claimed, found = (speaker(language, part)(f"{measured.name}.{claim}") for part in ("claims", "measured"))
        yield Statement(measured.name, claimed.format_map(filling), found.format_map(filling), holds)


def claims_of(measurements: Sequence[Measured]) -> dict[str, bool]:
    """Return all claims by their full names."""
    return {f"{one.name}.{name}": holds for one in measurements for name, holds in one.found.claims.items()}


def filled(text: str, values: Mapping[str, Any], claims: Mapping[str, bool]) -> str:
    """Fill the placeholders of a text, and choose between variants by whether a claim holds."""
    return WHEN.sub(lambda found: found[2] if claims[found[1]] else found[3], text).format_map(values)


def conclusions(measurements: Sequence[Measured], language: str) -> list[tuple[str, bool]]:
    """Return the conclusions; their texts depend on whether the claims that they need hold."""
    claims, values = claims_of(measurements), numbers(measurements)
    drawn = []
    for one in words()["conclusions"]:
        if all(name in claims for name in one["needs"]):
            holds = all(claims[name] for name in one["needs"])
            drawn.append((str(one["holds" if holds else "fails"][language]).format_map(values), holds))
    return drawn
