"""Implements `kinds.Kind` for runs that train classifiers."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from resjax.analysis import saliency
from resjax.data import find_images, find_split, load_data
from resjax.data.pictures import read_picture
from resjax.evaluation import measure_networks as measure_networks
from resjax.experiment import Experiment, Photographs, image_shape
from resjax.models.counts import count_parameters, list_layers
from resjax.network import Network, class_name, classify, label_of
from resjax.system.files import read_json
from resjax.system.serialization import flatten
from resjax.system.terminal import aligned, room
from resjax.training.classification import train as train_classifier
from resjax.training.kinds import Asked, Exam, Measure, Seen, folder_of
from resjax.training.log import errors_in_words, read_metrics
from resjax.training.own import model_for
from resjax.training.python_objects import describe_objects
from resjax.training.restoration import load as load_network
from resjax.training.restoration import restore
from resjax.training.run_directory import read_experiment, read_result
from resjax.weights import Card, Format, Measured
from resjax.weights import export as export_network
from resjax.weights.card import read_card

VALUE = Experiment
NOUN = "classifier"
MEASURES = (Measure("test error %", "test_top1_error"), Measure("validation error %", "validation_top1_error"))
MOST_ROWS = 40  # number of classes in a terminal's table, the worst first
COLUMNS = ("class", "probability")
CURVES = {"train": ("train", "error"), "validation": ("validation", "top1_error"), "test": ("test", "top1_error")}


def train(run: Experiment, run_directory: Path, devices: Sequence[Any] | None = None,
          tensorboard: Path | None = None) -> dict[str, Any]:
    """Train a classifier or resume its training; return the contents of `result.json`."""
    return train_classifier(run, run_directory, devices, tensorboard=tensorboard)


def draw(run_directory: Path) -> list[Path]:
    """Draw nothing, since `resjax report` shows the curves."""
    return []


def open(target: str, unsaid: Any = None, model: Any = None) -> Network:
    """Load a network. `unsaid` (`console.networks.Unsaid`) describes it, and `model` is a run's custom network."""
    if model is not None:
        network = restore(target, model=model).network
    elif unsaid is None:
        network = load_network(target)
    else:
        network = load_network(target, stride_in=unsaid.stride_in, shortcut=unsaid.shortcut, key=unsaid.key)
    if unsaid is None or unsaid.resize is None:
        return network
    return network._replace(data=replace(network.data, resize=unsaid.resize),
                            preprocessing=network.preprocessing.replace(resize=unsaid.resize))


def title_of(opened: Network) -> str:
    """Return the name of a trained network."""
    return opened.name


def measure(opened: Sequence[Network], split: str, how: Any, batch_size: int, source: str | None,
            directory: Path | None) -> dict[str, Any]:
    """Measure the errors of an ensemble of networks; `how` is a protocol of `evaluation.views`."""
    return measure_networks(opened, split, how or "single", batch_size, source, directory).rates._asdict()


def examine(opened: Sequence[Network], exam: Exam, out: Path) -> tuple[dict[str, Any], list[list[str]], list[Path]]:
    """Measure errors, write tables and figures by class, and list the worst classes and the files."""
    outcome = measure_networks(opened, exam.split, exam.how or "single", *exam[2:])
    files = outcome.save(out)
    worst = sorted(outcome.class_errors, key=lambda one: -1 if one.error is None else one.error, reverse=True)
    rows = [["class", "images", "wrong", "error %", "most often mistaken for"],
            *([one.name, f"{one.images}", f"{one.wrong}", "-" if one.error is None else f"{one.error:.2f}",
               f"{one.taken_for} ({one.times})" if one.times else "-"] for one in worst[:MOST_ROWS])]
    return outcome.rates._asdict(), rows, files


def protocol_of(run: Experiment) -> str:
    """Return the protocol that the training uses."""
    return "single"


def outcome(result: dict[str, Any]) -> dict[str, Any]:
    """Return the test errors from a run's result."""
    return {key: result.get(f"test_{key}") for key in ("top1_error", "top5_error")}


def name_of(how: str) -> str:
    """Return the name of a protocol."""
    return how


def fingerprint(run: Experiment) -> str:
    """Identify the test images that a run's data currently refer to, small ones by pixels and others by files."""
    if isinstance(run.data, Photographs):
        return find_split(run.data, "test")[1].state()
    return str(identity(run)["digest"])


def identity(run: Experiment) -> dict[str, Any]:
    """Describe the images that a run's data currently refer to, in the form of `experiment.json`."""
    if isinstance(run.data, Photographs):
        return find_images(run.data).identity()
    return load_data(run.data).identity()


def say_measured(measured: dict[str, Any]) -> str:
    """Describe the errors in words."""
    return ", ".join([*errors_in_words(measured), f"loss {measured['loss']:.4f}", f"{measured['images']} images"])


def knows(opened: Network) -> str:
    """Describe the classes of a network."""
    return opened.knows


def look(opened: Network, file: Path, asked: Asked) -> Seen:
    """Return the most likely classes of an image file."""
    classes = [(class_name(opened, label), part) for label, part in classify(file, opened, asked.top)]
    return Seen([f"{file}: {', '.join(f'{name} {100 * part:.1f} %' for name, part in classes)}"], [*classes])


def explain(opened: Network, file: Path, of: str | None, out: Path) -> str:
    """Draw an image beside its saliency map, the magnitude of a logit's gradient with respect to the pixels."""
    from resjax.evaluation.drawings import draw_saliency  # imported here, since Matplotlib is slow to import

    label = classify(file, opened, 1)[0][0] if of is None else label_of(opened, of)
    pixels = opened.preprocessing.prepare(read_picture(file), str(file))
    (magnitudes,) = np.asarray(saliency(opened, pixels[None], [label]))
    part = float(opened(pixels[None])[0, label])
    out.mkdir(parents=True, exist_ok=True)
    said = f"{class_name(opened, label)} {100 * part:.1f} %"
    draw_saliency(pixels, magnitudes, f"{file.name}: {said}", out / f"{file.stem}.png")
    return f"{file}: {said}, {out / f'{file.stem}.png'}"


def export(opened: Network, form: Format, out: Path, target: Path) -> Path:
    """Export a network in another library's format, with the facts for its model card."""
    return export_network(opened, form, out, recorded(target))


def recorded(target: Path) -> Card:
    """Read the facts for the model card of a run or an exported folder. For other weights, the card is empty."""
    target = folder_of(target)
    if not (target / "experiment.json").is_file():
        return read_card(target)
    experiment, result = read_experiment(target), read_result(target)
    known = Card(recipe="\n".join(f"    {name} = {value!r}" for name, value in flatten(experiment).items()),
                 source=experiment.data.source)
    if result is None or "test_top1_error" not in result:
        return known
    images_of, lines = f"{experiment.data.source}, test", read_metrics(target, "test")
    errors = [Measured(images_of, "single", result["test_top1_error"], result["test_top5_error"],
                       lines[-1]["images"] if lines else None)]
    for file in sorted(target.glob("measured-*.json")):  # errors under other testing protocols, as some tables require
        stored = read_json(file, "state_digests", "top1_error", "top5_error", "images")
        if stored["state_digests"] == [result["state_digest"]]:
            views = file.stem.removeprefix("measured-")
            errors.append(Measured(images_of, views, stored["top1_error"], stored["top5_error"], stored["images"]))
    return replace(known, errors=tuple(errors))


def parts(run: Experiment) -> str:
    """List the layers with their multiply-adds, and the run's custom parts."""
    image, classes = image_shape(run.data), 10 if run.architecture.family == "cifar" else 1000
    model = model_for(run, classes)
    layers = list_layers(model, image)
    rows = [["layer", "kernel", "output", "times", "mul-adds"],
            *([layer.name, shape_text(layer.kernel), shape_text(layer.output), str(layer.repeats), f"{layer.macs:,}"]
              for layer in layers)]
    table = "\n".join(aligned(rows, room(sys.stdout), 3))
    own = "".join(f"own.{part:32} {value}\n" for part, value in describe_objects(run, classes).items())
    return (f"{own}{table}\n\nFor images of {shape_text(image)} and {classes} classes: "
            f"{count_parameters(model, image):,} parameters, {sum(layer.macs for layer in layers):,} multiply-adds")


def shape_text(shape: Sequence[int]) -> str:
    """Format a shape, such as 3x3x16."""
    return "x".join(map(str, shape))
