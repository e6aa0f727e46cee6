"""Tables 7 and 8 as data, and what it takes to reproduce them: train what is missing, set ours beside the paper's."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from resjax.detection.config import Detection
from resjax.detection.train import train_detector
from resjax.errors import BadInput, check
from resjax.experiment_files import load_file


class Row(NamedTuple):
    """A detector and its published figures in percent, one for each of its table's measures.

    `experiment` is empty where nobody can train or measure it at home.
    """

    title: str
    training: str
    experiment: str
    published: tuple[float, ...]


class Table(NamedTuple):
    """A table of the paper; `measures` are its columns, and the fields of `result.json` that they are read from."""

    name: str
    title: str
    measures: dict[str, str]
    rows: tuple[Row, ...]
    note: str = ""


TABLE7 = Table(
    "table7", "Table 7: PASCAL VOC, mean average precision", {"mAP": "eleven_point"}, (
        Row("VGG-16", "07+12, test 2007", "vgg16_0712", (73.2,)),
        Row("ResNet-101", "07+12, test 2007", "resnet101_0712", (76.4,)),
        Row("VGG-16", "07++12, test 2012", "", (70.4,)),
        Row("ResNet-101", "07++12, test 2012", "", (73.8,)),
    ), "mAP in percent on VOC 2007's test images by its rule of 11 points. The labels of 2012's test images are not "
       "public: VOC's own server measures them, so ours are not given.")
TABLE8 = Table(
    "table8", "Table 8: COCO, mean average precision", {"mAP@.5": "coco_at_half", "mAP@[.5, .95]": "coco_average"}, (
        Row("VGG-16", "train 2014, val 2014", "vgg16_coco", (41.5, 21.2)),
        Row("ResNet-101", "train 2014, val 2014", "resnet101_coco", (48.4, 27.2)),
    ), "mAP in percent on COCO's validation images, by pycocotools.")
TABLES = {table.name: table for table in (TABLE7, TABLE8)}


def reproduce(table: Table, experiments: Path, runs: Path, seeds: int, only: Sequence[str] = (),
              source: str | None = None) -> str:
    """Train a table's detectors where they are not finished, and return the table in Markdown.

    `only` names some rows, and `source` what to read in place of what the experiments say. Raises BadInput for a row
    that does not exist, or a wrong number.
    """
    check(1 <= seeds <= 1_000, f"seeds is {seeds}; it lies in 1 ... 1000")
    known = load_detections(experiments / "detection.py")
    names = [row.experiment for row in table.rows if row.experiment]
    for name in only:
        check(name in names, f"{table.name} has no row {name!r}; there are: {', '.join(names)}")
    results: dict[str, list[dict[str, Any]]] = {}
    for name in (name for name in names if not only or name in only):
        chosen = known[name] if source is None else replace(known[name], data=replace(known[name].data, source=source))
        results[name] = [train_detector(replace(chosen, seed=seed), runs / name / f"seed{seed}")
                         for seed in range(seeds)]
    return markdown(table, results)


def load_detections(file: Path) -> dict[str, Detection]:
    """Return the `EXPERIMENTS` of a file of detectors. Raises BadInput where there are none."""
    found = getattr(load_file(file), "EXPERIMENTS", None)
    if not isinstance(found, dict) or not all(isinstance(run, Detection) for run in found.values()):
        raise BadInput(f"{file}: it defines no EXPERIMENTS: dict[str, Detection]")
    return found


def markdown(table: Table, results: dict[str, list[dict[str, Any]]]) -> str:
    """Set measured figures beside the paper's: mean and, of several seeds, standard deviation."""
    columns = [f"{part} {measure}" for measure in table.measures for part in ("paper:", "ours:")]
    lines = [f"# {table.title}", "", table.note, "", "| network | trained on | " + " | ".join([*columns, "n"]) + " |",
             "|" + "---|" * (len(columns) + 3)]
    for row in table.rows:
        runs = results.get(row.experiment, [])
        cells = [cell for paper, field in zip(row.published, table.measures.values(), strict=True)
                 for cell in (f"{paper:.1f}", summary([run[field] for run in runs]))]
        lines.append(f"| {row.title} | {row.training} | " + " | ".join([*cells, str(len(runs))]) + " |")
    return "\n".join(lines) + "\n"


def summary(values: Sequence[float]) -> str:
    """Write a mean, with the deviation of several values; a dash for none."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1f}"
