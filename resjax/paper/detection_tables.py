"""Tables 7 to 9 as data, and what it takes to reproduce them: train what is missing, set ours beside the paper's."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from resjax.detection.config import Detection, Inference
from resjax.detection.evaluate import measure, restore_detector
from resjax.detection.images import open_annotated
from resjax.detection.train import train_detector
from resjax.experiment_files import load_file
from resjax.system.errors import BadInput, check
from resjax.system.files import read_json, write_json
from resjax.system.serialization import to_json


class Row(NamedTuple):
    """A detector and its published figures in percent, one for each of its table's measures.

    `experiment` is empty where nobody can train or measure it at home; `inference` is how it is tested.
    """

    title: str
    training: str
    experiment: str
    published: tuple[float, ...]
    inference: Inference = Inference()


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
REFINED = Inference(box_refinement=True)
MULTI_SCALE = Inference(box_refinement=True, scales=(200, 400, 600, 800, 1000))
TABLE9 = Table(
    "table9", "Table 9: COCO, improvements of the detector", TABLE8.measures, (
        Row("VGG-16", "train 2014, val 2014", "vgg16_coco", (41.5, 21.2)),
        Row("ResNet-101", "train 2014, val 2014", "resnet101_coco", (48.4, 27.2)),
        Row("+ box refinement", "train 2014, val 2014", "resnet101_coco", (49.9, 29.9), REFINED),
        Row("+ global context", "train 2014, val 2014", "resnet101_coco_context", (51.1, 30.0), REFINED),
        Row("+ multi-scale testing", "train 2014, val 2014", "resnet101_coco_context", (53.8, 32.5), MULTI_SCALE),
    ), "mAP in percent on COCO's validation images, by pycocotools. Each row has what the rows above it have; box "
       "refinement and multi-scale testing are the same network, tested otherwise.")
TABLES = {table.name: table for table in (TABLE7, TABLE8, TABLE9)}


def reproduce(table: Table, experiments: Path, runs: Path, seeds: int, only: Sequence[str] = (),
              source: str | None = None) -> str:
    """Train and test a table's detectors where that is not done, and return the table in Markdown.

    `only` names some experiments, and `source` what to read in place of what they say. Raises BadInput for one that the
    table does not have, or a wrong number.
    """
    check(1 <= seeds <= 1_000, f"seeds is {seeds}; it lies in 1 ... 1000")
    known = load_detections(experiments / "detection.py")
    names = list(dict.fromkeys(row.experiment for row in table.rows if row.experiment))
    for name in only:
        check(name in names, f"{table.name} has no row {name!r}; there are: {', '.join(names)}")

    def results(row: Row) -> list[dict[str, Any]]:
        if not row.experiment or (only and row.experiment not in only):
            return []
        run = known[row.experiment]
        run = run if source is None else replace(run, data=replace(run.data, source=source))
        return [result_of(replace(run, seed=seed), runs / row.experiment / f"seed{seed}", row.inference)
                for seed in range(seeds)]

    return markdown(table, [results(row) for row in table.rows])


def result_of(run: Detection, folder: Path, inference: Inference) -> dict[str, Any]:
    """Train a detector and measure it as `inference` says, each where that is not done; return what was measured.

    What is measured beside the run's own result is kept in its folder, in `result_INFERENCE.json`.
    """
    trained = train_detector(run, folder)
    if inference == run.inference:
        return trained
    file = folder / f"result_{title_of(inference)}.json"
    if file.exists() and (kept := read_json(file, "state_digest"))["state_digest"] == trained["state_digest"]:
        return kept
    detector = restore_detector(folder)
    detector = detector._replace(detection=replace(run, inference=inference))
    test = open_annotated(run.data, train=False, classes=detector.classes)
    measured = {"inference": to_json(inference), "state_digest": trained["state_digest"],
                **measure(detector, test, run.batch_size)}
    write_json(file, measured)
    return measured


def title_of(inference: Inference) -> str:
    """Name a way of testing: baseline, refined, or refined_200_400 with its scales."""
    return "_".join(["refined" if inference.box_refinement else "baseline", *map(str, inference.scales)])


def load_detections(file: Path) -> dict[str, Detection]:
    """Return the `EXPERIMENTS` of a file of detectors. Raises BadInput where there are none."""
    found = getattr(load_file(file), "EXPERIMENTS", None)
    if not isinstance(found, dict) or not all(isinstance(run, Detection) for run in found.values()):
        raise BadInput(f"{file}: it defines no EXPERIMENTS: dict[str, Detection]")
    return found


def markdown(table: Table, results: Sequence[list[dict[str, Any]]]) -> str:
    """Set each row's results beside the paper's figures: mean and, of several seeds, standard deviation."""
    columns = [f"{part} {measure}" for measure in table.measures for part in ("paper:", "ours:")]
    lines = [f"# {table.title}", "", table.note, "", "| network | trained on | " + " | ".join([*columns, "n"]) + " |",
             "|" + "---|" * (len(columns) + 3)]
    for row, runs in zip(table.rows, results, strict=True):
        cells = [cell for paper, field in zip(row.published, table.measures.values(), strict=True)
                 for cell in (f"{paper:.1f}", summary([run[field] for run in runs]))]
        lines.append(f"| {row.title} | {row.training} | " + " | ".join([*cells, str(len(runs))]) + " |")
    return "\n".join(lines) + "\n"


def summary(values: Sequence[float | None]) -> str:
    """Write a mean, with the deviation of several values; a dash for none."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    mean = f"{statistics.mean(numbers):.1f}"
    return mean if len(numbers) == 1 else f"{mean} ± {statistics.stdev(numbers):.1f}"
