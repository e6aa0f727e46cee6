"""Trained networks on images: the errors of one or of several together by any protocol, and one picture looked at."""

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
from resjax.photographs import centre_crop, decode, find_photographs, resize_shorter_side
from resjax.processes import batch_sharding, everywhere
from resjax.training import Trained


def measure(networks: Sequence[Trained], split: str, protocol: str, batch_size: int, source: str | None = None,
            directory: Path | None = None) -> Errors:
    """Measure the errors of one network, or of the mean of several networks' softmax outputs (an ensemble).

    `protocol` is "single", or for photographs "ten-crop" or "multi-scale". `source` and `directory` say where the
    images are, if not where the training found them. Raises BadInput for a split that holds no images, a protocol that
    the images do not allow, or networks of other classes than the images.
    """
    first = networks[0]
    data = replace(first.experiment.data, directory=directory or first.experiment.data.directory,
                   source=source or first.experiment.data.source)
    for network in networks[1:]:
        if network.classes != first.classes:
            raise BadInput(f"{network.experiment.name} was trained on other classes than {first.experiment.name}")
    if isinstance(data, Photographs):
        return measure_photographs(networks, data, split, protocol, batch_size)
    if protocol != "single":
        raise BadInput(f"views is {protocol!r}; the images of {data.source} are looked at as they are: 'single'")
    images = find_images(networks, data, split)
    if len(networks) == 1:
        return evaluate(first.model, first.state.variables, first.state.mean, jax.device_put(images), batch_size)
    probabilities = (image_probabilities(network.model, network.state.variables, network.state.mean, images, batch_size)
                     for network in networks)
    return errors_of(reduce(np.add, probabilities) / len(networks), np.asarray(images.labels))


def find_images(networks: Sequence[Trained], data: Data, split: str) -> Images:
    """Load a split. Raises BadInput where it holds nothing, or where the classes are others."""
    dataset = load(data)
    check_classes(networks[0], dataset.classes, data.source)
    images = getattr(dataset, split)
    if not len(images.labels):
        raise BadInput(f"{networks[0].experiment.name} held out no {split} images")
    return images


def measure_photographs(networks: Sequence[Trained], data: Photographs, split: str, protocol: str,
                        batch_size: int) -> Errors:
    """Measure on photographs, on all devices."""
    views, found = views_of(protocol, data), find_photographs(data)
    check_classes(networks[0], found.classes, data.source)
    if split == "validation":
        raise BadInput("photographs are not held out for validation; the splits are train and test")
    photos, sharding = getattr(found, split), batch_sharding(jax.devices())

    def probabilities(network: Trained) -> np.ndarray:
        here = jax.device_get((network.state.variables, network.state.mean))
        variables, mean = jax.device_put(here, everywhere(sharding))
        return class_probabilities(network.model, variables, mean, photos, views, batch_size, sharding, data.workers)

    total = reduce(np.add, map(probabilities, networks))
    return errors_of(total / len(networks), photos.labels)


def check_classes(network: Trained, classes: tuple[str, ...], source: str) -> None:
    """Raise BadInput unless the images have the classes that the network was trained on."""
    if classes != network.classes:
        odd = sorted(set(classes) ^ set(network.classes))[:5]
        raise BadInput(f"{source} has {len(classes)} classes, {network.experiment.name} was trained on "
                       f"{len(network.classes)}; only one has: {', '.join(odd) or '(another order)'}")


def look_at(file: Path, network: Trained) -> np.ndarray:
    """Read a picture of any size as a network sees its test images: uint8 `[height, width, channels]`."""
    data = network.experiment.data
    height, _, channels = network.state.mean.shape
    if not isinstance(data, Photographs):
        return read_picture(file, "L" if channels == 1 else "RGB", height)
    try:
        encoded = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    image = resize_shorter_side(decode(encoded, data.test_shorter_side, str(file)), data.test_shorter_side)
    return centre_crop(image, data.size, data.size)
