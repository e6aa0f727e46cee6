"""Tables of the paper: published numbers, the runs that reproduce them, and the paper's claims."""

import math
from typing import Any, Literal, NamedTuple

from resjax.training.kinds import Measure

LEAST_STEPS = 1_000  # steps; with fewer, noise decides which of two nets is ahead


class Claim(NamedTuple):
    """A claim of the paper about two rows: the main measure of one is lower or higher."""

    relation: Literal["<", ">"]
    other: str


class Row(NamedTuple):
    """One network: its experiment and its published numbers, in the order of the table's measures.

    `experiment` is empty if resjax cannot train or measure it. `how` is a testing protocol (see `training.kinds`);
    None is the run's own. `members` are the experiments and seeds of an ensemble, whose outputs are averaged.
    `deviation` is given if the paper has several runs. `sign` "~" marks an error read off Figure 6, ">" one that the
    paper only bounds from below. `reruns` is the range of reruns by others that report their last iteration.
    """

    experiment: str
    title: str
    published: tuple[float | None, ...]
    layers: int = 0
    deviation: float | None = None
    sign: Literal["", "~", ">"] = ""
    reruns: tuple[float, float] | None = None
    claims: tuple[Claim, ...] = ()
    members: tuple[tuple[str, int], ...] = ()
    how: Any = None

    @property
    def error(self) -> float:
        """The number by which the row is judged; NaN if the paper gives none."""
        return math.nan if self.published[0] is None else self.published[0]


class Table(NamedTuple):
    """A table of the paper: its experiment file, its measures, and its rows.

    `others` are other networks that the table compares with, by title, and their published numbers.
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
    """Format a Markdown table from rows, the first of which is the header; bars in cells are escaped."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], ["---"] * len(cells[0]), *cells[1:]])
