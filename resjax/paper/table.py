"""What a table of the paper is: what was published, which run makes it, what the paper claims of it."""

import math
from typing import Any, Literal, NamedTuple

from resjax.training.kinds import Measure

LEAST_STEPS = 1_000  # of a schedule: after fewer, noise decides which of two nets is ahead


class Claim(NamedTuple):
    """What the paper says of a row beside another: its first measure is lower or higher."""

    relation: Literal["<", ">"]
    other: str


class Row(NamedTuple):
    """One network: its experiment, and what is published of it, in the order of its table's measures.

    `experiment` is empty where nobody can train or measure it at home. `how` is a way of testing, see `training.kinds`;
    None is that of the run. `members` are the experiments and seeds of an ensemble, whose outputs are averaged.
    `deviation` is given where the paper has several runs. `sign` "~": the error was read off Figure 6; ">": the paper
    says only that it is above. `reruns` is what honest reruns by others reach with their last iteration.
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
        """The figure that the row is judged by; or NaN if the paper gives none."""
        return math.nan if self.published[0] is None else self.published[0]


class Table(NamedTuple):
    """A table of the paper: the file of its experiments, how is measured what, and its rows.

    `others` are networks of others that the table compares with, by title, and their published figures.
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
    """Write a table; its first row is the head. A bar within a cell is written so that it ends none."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], ["---"] * len(cells[0]), *cells[1:]])
