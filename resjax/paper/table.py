"""The types of the paper's tables: published numbers, the runs that reproduce them, and the paper's claims."""

import math
from typing import Any, Literal, NamedTuple

from resjax.training.kinds import Measure

LEAST_STEPS = 1_000  # steps; with fewer, noise decides which of two networks is ahead


class Claim(NamedTuple):
    """A claim of the paper that the main measure of a row is lower or higher than that of another row."""

    relation: Literal["<", ">"]
    other: str


class Row(NamedTuple):
    """One network, with its experiment and its published numbers, in the order of the table's measures.

    `experiment` is empty if resjax cannot train or measure the network. `how` is a testing protocol (see
    `training.kinds`), or None for the run's own protocol. `members` are the experiments and seeds of an ensemble, whose
    outputs are averaged. `deviation` is given if the paper has several runs. `sign` "~" marks an error that was read
    off Figure 6, and ">" marks an error for which the paper gives only a lower bound.
    """

    experiment: str
    title: str
    published: tuple[float | None, ...]
    layers: int = 0
    deviation: float | None = None
    sign: Literal["", "~", ">"] = ""
    claims: tuple[Claim, ...] = ()
    members: tuple[tuple[str, int], ...] = ()
    how: Any = None

    @property
    def error(self) -> float:
        """The paper's number for the main measure, by which the row is judged; NaN if the paper gives none."""
        return math.nan if self.published[0] is None else self.published[0]


class Table(NamedTuple):
    """A table of the paper, with its experiment file, its measures, and its rows.

    `others` are the titles and published numbers of other networks with which the table compares.
    """

    name: str
    title: str
    file: str
    protocol: str
    measures: tuple[Measure, ...]
    rows: tuple[Row, ...]
    seeds: int = 1
    figures: tuple[str, ...] = ()
    others: tuple[tuple[str, tuple[float | None, ...]], ...] = ()


def markdown(rows: list[list[str]]) -> str:
    """Format a Markdown table from rows, the first of which is the header. Bars in cells are escaped."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], ["---"] * len(cells[0]), *cells[1:]])
