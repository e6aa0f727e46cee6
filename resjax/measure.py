"""Trained networks on images: the errors of one or of several together by any protocol, and one picture looked at."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

import jax
import numpy as np

from resjax.data import Images, load, read_picture
from resjax.errors import BadInput
from resjax.evaluation import Errors, class_probabilities, errors_of, evaluate, image_probabilities, views_of
from resjax.experiment import Data, Photographs
from resjax.network import Network, check_last_layer
from resjax.photographs import centre_crop, decode, find_photographs, resize_shorter_side
from resjax.processes import batch_sharding, everywhere
from resjax.record import flatten
from resjax.training import read_experiment, read_metrics, read_result
from resjax.weights import Measured, class_name


def measure(networks: Sequence[Network], split: str, protocol: str, batch_size: int, source: str | None = None,
            directory: Path | None = None) -> Errors:
    """Measure the errors of one network, or of the mean of several networks' softmax outputs (an ensemble).

    `protocol` is "single", or for photographs "ten-crop" or "multi-scale". `source` and `directory` say where the
    images are, if not where the training found them. Raises BadInput for a split that holds no images, a protocol that
    the images do not allow, or networks of other classes or colours than the images.
    """
    first = networks[0]
    data = replace(first.data, directory=directory or first.data.directory, source=source or first.data.source)
    for network in networks[1:]:
        if type(network.data) is not type(first.data):
            raise BadInput(f"{network.name}, {network.architecture.title()}, looks at other images than {first.name}, "
                           f"{first.architecture.title()}")
    if isinstance(data, Photographs):
        return measure_photographs(networks, data, split, protocol, batch_size)
    if protocol != "single":
        raise BadInput(f"views is {protocol!r}; the images of {data.source} are looked at as they are: 'single'")
    if source and data.size is None:  # pictures of any size are brought to the one that the network knows
        data = replace(data, size=first.mean.shape[0])
    images = find_images(networks, data, split)
    if len(networks) == 1:
        return evaluate(first.model, first.variables, jax.device_put(first.mean), jax.device_put(images), batch_size)
    probabilities = (image_probabilities(network.model, network.variables, network.mean, images, batch_size)
                     for network in networks)
    return errors_of(reduce(np.add, probabilities) / len(networks), np.asarray(images.labels))


def find_images(networks: Sequence[Network], data: Data, split: str) -> Images:
    """Load a split. Raises BadInput where it holds nothing, or where classes or colours are others."""
    dataset = load(data)
    images = getattr(dataset, split)
    if not len(images.labels):
        raise BadInput(f"{networks[0].name} held out no {split} images")
    for network in networks:
        check_classes(network, dataset.classes, data.source)
        channels, wanted = images.pixels.shape[-1], network.mean.shape[-1]
        if channels != wanted:
            raise BadInput(f"{data.source} has images of {channels} channels, {network.name} is for {wanted}")
    return images


def measure_photographs(networks: Sequence[Network], data: Photographs, split: str, protocol: str,
                        batch_size: int) -> Errors:
    """Measure on photographs, on all devices; each network looks at them as it does."""
    views_of(protocol, data)  # an unknown one is an error before the images are looked for
    found = find_photographs(data)
    for network in networks:
        check_classes(network, found.classes, data.source)
    if split == "validation":
        raise BadInput("photographs are not held out for validation; the splits are train and test")
    photos, sharding = getattr(found, split), batch_sharding(jax.devices())

    def probabilities(network: Network) -> np.ndarray:
        here = jax.device_get((network.variables, network.mean))
        variables, mean = jax.device_put(here, everywhere(sharding))
        return class_probabilities(network.model, variables, mean, photos, views_of(protocol, network.data), batch_size,
                                   sharding, data.workers)

    total = reduce(np.add, map(probabilities, networks))
    return errors_of(total / len(networks), photos.labels)


def check_classes(network: Network, classes: tuple[str, ...], source: str) -> None:
    """Raise BadInput unless the images have the classes that the network was trained on; or as many, if unnamed."""
    check_last_layer(network)
    if len(classes) != network.model.classes or (network.classes and classes != network.classes):
        odd = sorted(set(classes) ^ set(network.classes))[:5] if network.classes else []
        raise BadInput(f"{source} has {len(classes)} classes, {network.name} was trained on {network.model.classes}"
                       + (f"; only one has: {', '.join(odd) or '(another order)'}" if network.classes else ""))


def recorded(workdir: Path) -> tuple[list[Measured], str]:
    """Read what was measured of a run, and its recipe, for a model card; nothing of what is no finished run."""
    if not (workdir / "experiment.json").is_file():
        return [], ""
    experiment, result = read_experiment(workdir), read_result(workdir)
    recipe = "\n".join(f"    {name} = {value!r}" for name, value in flatten(experiment).items())
    if result is None:
        return [], recipe
    source, lines = experiment.data.source, read_metrics(workdir, "test")
    errors = [Measured(f"{source}, test", "single", *(result[f"test_{key}_error"] for key in ("top1", "top5")),
                       lines[-1]["images"] if lines else None)]
    for file in sorted(workdir.glob("errors-*.json")):  # by the other views, where a table of the paper asked for them
        kept = json.loads(file.read_text())
        if kept["state_digests"] == [result["state_digest"]]:
            errors.append(Measured(f"{source}, test", file.stem.removeprefix("errors-"), kept["top1_error"],
                                   kept["top5_error"], kept["images"]))
    return errors, recipe


def classify(file: Path, network: Network, most: int = 5) -> list[tuple[str, float]]:
    """Name the likeliest classes of a picture, with their probabilities. Raises BadInput where it cannot be read."""
    check_last_layer(network)
    pixels = look_at(file, network)
    (probabilities,) = image_probabilities(network.model, network.variables, network.mean,
                                           Images(pixels[None], np.zeros(1, np.int32)), 1)
    best = np.argsort(-probabilities, kind="stable")[:most]
    return [(class_name(network, int(label)), float(probabilities[label])) for label in best]


def look_at(file: Path, network: Network) -> np.ndarray:
    """Read a picture of any size as a network sees its test images: uint8 `[height, width, channels]`."""
    data = network.data
    height, _, channels = network.mean.shape
    if not isinstance(data, Photographs):
        return read_picture(file, "L" if channels == 1 else "RGB", height)
    try:
        encoded = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    image = resize_shorter_side(decode(encoded, data.test_shorter_side, str(file)), data.test_shorter_side)
    return centre_crop(image, data.size, data.size)
