"""The article's words in both languages, and the numbers that fill them: the paper's, the models' and the measured."""

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
LANGUAGES = {"en": "en", "zh": "zh-Hans"}  # our names, and those of the page's `lang`
FAMILIES = ("dense", "conv")
WHEN = re.compile(r"<\?when ([\w.]+)\?>(.*?)<\?otherwise\?>(.*?)<\?end\?>", re.DOTALL)


class Statement(NamedTuple):
    """A claim in a language, what was measured of it, and whether it holds."""

    experiment: str
    claim: str
    measured: str
    holds: bool


@cache
def words() -> dict[str, Any]:
    """Read `words.toml`."""
    return tomllib.loads((FOLDER / "words.toml").read_text("utf-8"))


def speaker(language: str, part: str = "labels") -> Callable[[str], str]:
    """Return what looks a label up in a language."""
    return lambda name: str(words()[part][name][language])


@cache
def sections(language: str) -> dict[str, tuple[str, str]]:
    """Read a language's text: for each section, in order, the experiment that it needs (or "") and its HTML.

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
    """Gather all that braces in the text can name: the paper's rows, the networks, each experiment, and all of them."""
    paper = {table.name: {row.experiment: row for row in table.rows} for table in TABLES.values()}
    return {"paper": paper, "nets": {net.name: net for net in networks()}, "all": totals(measurements),
            **{one.name: {**one.found.values, **derived(one)} for one in measurements}}


def derived(measured: Measured) -> dict[str, Any]:
    """Compute what the text says of an experiment beside what it returned: ratios, and what a formula predicts."""
    values = measured.found.values
    if measured.name == "gradients":  # half or twice He's variance changes the norm by the root of 2 in every layer
        return {"predicted": (values["layers"] - 1) / 2 * math.log10(2)}
    if measured.name == "degradation":
        losses = {family: values[family]["loss"] for family in FAMILIES}
        return {family: {**values[family], "ratio": {
            "plain": loss["plain_deep"] / loss["plain_shallow"],
            "residual": loss["residual_deep"] / loss["plain_deep"]}} for family, loss in losses.items()}
    return {}


def totals(measurements: Sequence[Measured]) -> dict[str, Any]:
    """Count claims over all experiments, and say what they ran on."""
    holds = [held for one in measurements for held in one.found.claims.values()]
    machine = measurements[0].machine
    seconds = sum(one.seconds for one in measurements)
    return {"total": len(holds), "held": sum(holds), "failed": len(holds) - sum(holds), "seeds": measurements[0].seeds,
            "minutes": max(2, math.ceil(seconds / 60)),
            "platform": machine["kind"].replace("cpu", "CPU"),
            "jax": machine["jax"], "flax": machine["flax"]}


def statements(measured: Measured, language: str) -> Iterator[Statement]:
    """Write an experiment's claims."""
    values = {**measured.found.values, **derived(measured)}
    for name, holds in measured.found.claims.items():
        family, _, claim = name.partition(".")
        if family not in FAMILIES:
            family, claim = "", name
        filling = {**values, **values.get(family, {}), "family": speaker(language)(family) if family else ""}
        claimed, found = (speaker(language, part)(f"{measured.name}.{claim}") for part in ("claims", "measured"))
        yield Statement(measured.name, claimed.format_map(filling), found.format_map(filling), holds)


def claims_of(measurements: Sequence[Measured]) -> dict[str, bool]:
    """Return all claims by their whole names."""
    return {f"{one.name}.{name}": holds for one in measurements for name, holds in one.found.claims.items()}


def filled(text: str, values: Mapping[str, Any], claims: Mapping[str, bool]) -> str:
    """Fill the braces of a text, and choose between what it says when a claim holds and otherwise."""
    return WHEN.sub(lambda found: found[2] if claims[found[1]] else found[3], text).format_map(values)


def conclusions(measurements: Sequence[Measured], language: str) -> list[tuple[str, bool]]:
    """Write what follows from the claims, in words that depend on whether those that are needed hold."""
    claims, values = claims_of(measurements), numbers(measurements)
    drawn = []
    for one in words()["conclusions"]:
        if all(name in claims for name in one["needs"]):
            holds = all(claims[name] for name in one["needs"])
            drawn.append((str(one["holds" if holds else "fails"][language]).format_map(values), holds))
    return drawn
