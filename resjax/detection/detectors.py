"""Implements `resjax.training.kinds.Kind` for runs that train detectors."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from resjax.detection.annotations import annotations_digest as digest_of
from resjax.detection.annotations import identity_of
from resjax.detection.config import Detection, Inference
from resjax.detection.draw import confident, draw_boxes
from resjax.detection.evaluate import TrainedDetector, find_in, measure_detector
from resjax.detection.images import open_annotated
from resjax.detection.phases import variables_of
from resjax.detection.pictures import draw_run
from resjax.detection.step import state_shapes
from resjax.detection.stored import FILE, load_detector, write_detector
from resjax.detection.train import train_detector
from resjax.network import named_classes
from resjax.system.errors import BadInput, check
from resjax.system.files import stamp, write_aside, write_csv
from resjax.system.serialization import flatten
from resjax.training.kinds import Asked, Exam, Measure, Seen, folder_of
from resjax.training.run_directory import read_experiment, read_result
from resjax.weights.card import Card, Precision, read_card

VALUE = Detection
NOUN = "detector"
MEASURES = (Measure("mAP %", "mean_average_precision", 1, True), Measure("mAP % (11 points)", "eleven_point", 1, True))
COLUMNS = ("class", "score", "x1", "y1", "x2", "y2")
CURVES = {"train": ("train", "error"), "test": ("detection", "mean_average_precision")}
CLASSES = {"voc": 20, "coco": 80, "scenes": 10}


def train(run: Detection, run_directory: Path, devices: Sequence[jax.Device] | None = None,
          tensorboard: Path | None = None) -> dict[str, Any]:
    """Train a detector or resume its training; return the contents of `result.json`."""
    return train_detector(run, run_directory, devices, tensorboard)


def draw(run_directory: Path) -> list[Path]:
    """Draw the curve of a finished run, and its detections in a few test images."""
    return list(draw_run(run_directory))


def open(target: str, unsaid: Any = None, model: Any = None) -> TrainedDetector:
    """Load a detector from its run, from an exported folder, or by the name of one that comes with resjax.

    Raises BadInput if `unsaid` has values, because only weights files need them.
    """
    names = [name for name, value in vars(unsaid).items() if value is not None] if unsaid is not None else []
    flag = names[0].replace("_", "-") if names else ""
    check(not names, f"{target} is a detector; omit --{flag}")
    return load_detector(target)


def title_of(opened: TrainedDetector) -> str:
    """Return the name of a trained detector."""
    return opened.detection.name


def measure(opened: Sequence[TrainedDetector], split: str, how: Inference | None, batch_size: int, source: str | None,
            directory: Path | None) -> dict[str, Any]:
    """Measure a detector's average precision, with the batch size of its run, because the padding depends on it."""
    check(len(opened) == 1, "detectors cannot be evaluated as an ensemble; give only one")
    check(split != "validation", "split is 'validation'; for a detector, it must be 'train' or 'test'")
    check(directory is None, "--directory is for TFDS data sets; for a detector, use --data voc:PATH "
                             "or --data coco:PATH")
    check(how is None or isinstance(how, Inference), f"views is {how!r}; for a detector, it must be 'single', "
                                                     "because its run defines the scales")
    (detector,) = opened
    run = replace(detector.detection, inference=how or detector.detection.inference)
    data = run.data if source is None else replace(run.data, source=source)
    run = replace(run, data=data)
    images = open_annotated(data, train=split == "train", classes=detector.classes)
    return measure_detector(detector._replace(detection=run), images, run.batch_size)


def examine(opened: Sequence[TrainedDetector], exam: Exam,
            out: Path) -> tuple[dict[str, Any], list[list[str]], list[Path]]:
    """Measure, write and list the average precision of each class, and list the file."""
    measured = measure(opened, *exam)
    rows = [["class", "average precision %", "by 11 points"], *(
        [name, *("-" if value is None else f"{value:.2f}" for value in (area, measured["eleven_points"][name]))]
        for name, area in measured["average_precision"].items())]
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "classes.csv", rows[0], rows[1:])
    return measured, rows, [out / "classes.csv"]


def protocol_of(run: Detection) -> Inference:
    """Return the testing protocol that the training uses."""
    return run.inference


def outcome(result: dict[str, Any]) -> dict[str, Any]:
    """Return the average precisions from a run's result."""
    return result


def name_of(how: Inference) -> str:
    """Return the name of a protocol, such as baseline, refined, or refined_200_400 with its scales."""
    return "_".join(["refined" if how.box_refinement else "baseline", *map(str, how.scales)])


def fingerprint(run: Detection) -> str:
    """Identify the test images that a run's data currently refer to, by annotations and files."""
    images = open_annotated(run.data, train=False)
    return (digest_of(images) + stamp(getattr(images, "files", ()))).hex()


def identity(run: Detection) -> dict[str, Any]:
    """Describe the images that a run's data currently refer to, in the form of `experiment.json`."""
    images = open_annotated(run.data, train=True)
    return identity_of(images, open_annotated(run.data, train=False, classes=images.classes))


def say_measured(measured: dict[str, Any]) -> str:
    """Describe the average precisions in words."""
    if measured["mean_average_precision"] is None:
        return "no image has an object that counts; difficult objects and crowds do not count"
    classes = (f"{name} {value:.1f}" for name, value in measured["average_precision"].items() if value is not None)
    return (f"mean average precision {measured['mean_average_precision']:.2f} % at an overlap of 0.5 "
            f"({measured['eleven_point']:.2f} % by 11 points): {', '.join(classes)}")


def knows(opened: TrainedDetector) -> str:
    """Describe the classes of a detector."""
    return named_classes(opened.classes, len(opened.classes))


def look(opened: TrainedDetector, file: Path, asked: Asked) -> Seen:
    """Detect objects in an image file. If there is a folder `asked.out`, draw their boxes in a copy there."""
    pixels, everything = find_in(file, opened)
    detections, drawn = confident(everything, asked.score), ""
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        drawn = f", {asked.out / file.stem}.png"
        write_aside(asked.out / f"{file.stem}.png", draw_boxes(pixels, detections, opened.classes).save)
    objects = [(opened.classes[label - 1], float(value), *map(float, box))
               for box, value, label in zip(*detections, strict=True)]
    return Seen([f"{file}: {len(objects)} objects{drawn}",
                 *(f"  {name:16} {100 * value:5.1f} %  x {x1:.0f} to {x2:.0f}, y {y1:.0f} to {y2:.0f}"
                   for name, value, x1, y1, x2, y2 in objects)], objects)


def explain(opened: TrainedDetector, file: Path, of: str | None, out: Path) -> str:
    """Raise BadInput, because a detector has no single prediction to explain."""
    raise BadInput(f"{opened.detection.name} is a detector; saliency only works with classifiers")


def export(opened: TrainedDetector, form: str, out: Path, target: Path) -> Path:
    """Export a detector for resjax, with its measured precisions. Raises BadInput for other formats."""
    check(form == "resjax", f"{target} is a detector, which no other library can load; use --to resjax")
    return write_detector(opened, out, recorded(folder_of(str(target))))


def recorded(folder: Path) -> Card:
    """Read the facts for the model card of a run or an exported folder."""
    if (folder / FILE).is_file():
        return read_card(folder)
    run, result = read_experiment(folder), read_result(folder)
    images_of, precisions = f"{run.data.source}, {' and '.join(run.data.test)}", []
    if result is not None and result["mean_average_precision"] is not None:
        precisions = [Precision(images_of, "mean", result["mean_average_precision"], result["eleven_point"]), *(
            Precision(images_of, name, value, result["eleven_points"][name])
            for name, value in result["average_precision"].items() if value is not None)]
    return Card(precisions=tuple(precisions), source=run.data.source,
                recipe="\n".join(f"    {name} = {value!r}" for name, value in flatten(run).items()))


def parts(run: Detection) -> str:
    """List the parts of a detector with their parameters."""
    counts = parameters_by_part(run)
    table = "\n".join(f"{part:36} {count:12,} parameters" for part, count in counts.items())
    return (f"{table}\n\nFor {classes_of(run)} classes: {sum(counts.values()):,} parameters, "
            f"{len(run.detector.anchor_sizes)} x {len(run.detector.anchor_ratios)} anchors every "
            f"{run.detector.stride} pixels")


def classes_of(run: Detection) -> int:
    """Return the number of classes, if known without the images."""
    return len(run.data.classes) or CLASSES[run.data.source.partition(":")[0]]


def first_state(run: Detection) -> Any:
    """Return the shapes of the initial state of a run."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return state_shapes(here, run, classes_of(run))


def parameters_by_part(run: Detection) -> dict[str, int]:
    """Count the parameters of each part of the network, without those used only in training."""
    return {name: sum(leaf.size for leaf in jax.tree.leaves(part))
            for name, part in variables_of(first_state(run))["params"].items()}
