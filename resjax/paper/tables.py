"""The paper's tables as data: what was published, which experiment makes it, what the paper claims of it."""

from typing import Literal, NamedTuple


class Claim(NamedTuple):
    """What the paper says of a row beside another: its test error is lower or higher."""

    relation: Literal["<", ">"]
    other: str


class Row(NamedTuple):
    """One network: its experiment, its depth, and its published test error in percent.

    `deviation` is given where the paper has several runs. `sign` "~": the error was read off Figure 6; ">": the paper
    says only that it is above. `reruns` is what honest reruns by others reach with their last iteration.
    """

    experiment: str
    title: str
    layers: int
    error: float
    deviation: float | None = None
    sign: Literal["", "~", ">"] = ""
    reruns: tuple[float, float] | None = None
    claims: tuple[Claim, ...] = ()


class Table(NamedTuple):
    """A table of the paper: the file of its experiments, its rows, how the errors are measured."""

    name: str
    title: str
    file: str
    protocol: str
    rows: tuple[Row, ...]


def plain(layers: int, error: float, reruns: float | None = None, sign: Literal["~", ">"] = "~") -> Row:
    """Describe a plain net: worse than every shallower one ("degradation", Figure 6 left)."""
    shallower = (depth for depth in (20, 32, 44, 56, 110) if depth < layers)
    return Row(f"plain{layers}", f"plain-{layers}", layers, error, sign=sign, reruns=reruns and (reruns, reruns),
               claims=tuple(Claim(">", f"plain{depth}") for depth in shallower))


def resnet(layers: int, error: float, reruns: tuple[float, float] | None = None,
           deviation: float | None = None) -> Row:
    """Describe a residual net: better than the plain net of its depth and every shallower residual one."""
    shallower = (depth for depth in (20, 32, 44, 56, 110) if depth < layers)
    return Row(f"resnet{layers}", f"ResNet-{layers}", layers, error, deviation, reruns=reruns,
               claims=(Claim("<", f"plain{layers}"), *(Claim("<", f"resnet{depth}") for depth in shallower)))


TABLE6 = Table(
    "table6", "Table 6: test error on CIFAR-10", "cifar10.py",
    "test error in percent after the last iteration, the single original view of all 10,000 test images",
    (
        plain(20, 9.5, 9.5), plain(32, 10.0, 9.9), plain(44, 12.0, 11.4), plain(56, 13.5, 12.8),
        plain(110, 60.0, sign=">"),
        resnet(20, 8.75, (8.2, 8.8)), resnet(32, 7.51, (7.4, 7.8)), resnet(44, 7.17, (7.1, 7.4)),
        resnet(56, 6.97, (6.9, 7.4)), resnet(110, 6.61, (6.6, 7.0), deviation=0.16),
        Row("resnet1202", "ResNet-1202", 1202, 7.93, claims=(Claim(">", "resnet110"),)),  # it overfits (section 4.2)
    ))

TABLES = {table.name: table for table in (TABLE6,)}
