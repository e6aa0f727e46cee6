"""Exact error rates of networks, alone or together, by any protocol: every image counts once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from resjax.data import Images, find_images, load
from resjax.distributed import batch_sharding, replicated
from resjax.errors import BadInput
from resjax.evaluation.probabilities import log_probabilities, log_probabilities_of_views
from resjax.evaluation.views import Protocol, views_of
from resjax.experiment import Data, Photographs
from resjax.network import Classifier, Network, as_classifier


class ErrorRates(NamedTuple):
    """Top-1 and top-5 errors in percent, the mean cross-entropy, and the images that were counted."""

    top1_error: float
    top5_error: float
    loss: float
    images: int


def evaluate(network: Network | Classifier, images: Images, batch_size: int = 128) -> ErrorRates:
    """Measure the errors on images in memory, seen once each; `batch_size` changes the speed and nothing else."""
    return error_rates(log_probabilities(as_classifier(network), images, batch_size), np.asarray(images.labels))


def error_rates(log_probabilities: np.ndarray, labels: np.ndarray) -> ErrorRates:
    """Measure the errors of `[images, classes]` against `[images]`.

    An image is right within the first k where fewer than k classes are likelier; of equal ones the earlier is. With
    fewer than five classes "top 5" is all of them. An image whose probabilities are not numbers is wrong.
    """
    images, classes = log_probabilities.shape
    true = log_probabilities[np.arange(images), labels][:, None]
    earlier = np.arange(classes) < labels[:, None]
    likelier = ((log_probabilities > true) | ((log_probabilities == true) & earlier)).sum(1)
    likelier = np.where(np.isnan(log_probabilities).any(1), max(5, classes), likelier)
    return ErrorRates(100 * float((likelier >= 1).mean()), 100 * float((likelier >= 5).mean()),
                      float(-true.astype(np.float64).mean()), images)


def ensemble(members: list[np.ndarray]) -> np.ndarray:
    """Average the softmax outputs of several networks, `[images, classes]` each, as logarithms."""
    return np.asarray(np.logaddexp.reduce(members) - np.log(len(members)))


def measure(networks: Sequence[Network], split: str, protocol: Protocol, batch_size: int, source: str | None = None,
            directory: Path | None = None) -> ErrorRates:
    """Measure the errors of one network, or of the mean of several networks' softmax outputs (an ensemble).

    `source` and `directory` say where the images are, if not where the training found them. Raises BadInput for a split
    that holds no images, a protocol that the images do not allow, or networks of other classes or colours than the
    images.
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
        data = replace(data, size=first.preprocessing.image_shape[0])
    images = load_split(networks, data, split)
    members = [log_probabilities(network.classifier, images, batch_size) for network in networks]
    return error_rates(ensemble(members), np.asarray(images.labels))


def load_split(networks: Sequence[Network], data: Data, split: str) -> Images:
    """Load a split. Raises BadInput where it holds nothing, or where classes or colours are others."""
    dataset = load(data)
    images: Images = getattr(dataset, split)
    if not len(images.labels):
        raise BadInput(f"{networks[0].name} held out no {split} images")
    for network in networks:
        check_classes(network, dataset.classes, data.source)
        channels, wanted = images.pixels.shape[-1], network.preprocessing.image_shape[-1]
        if channels != wanted:
            raise BadInput(f"{data.source} has images of {channels} channels, {network.name} is for {wanted}")
    return images


def measure_photographs(networks: Sequence[Network], data: Photographs, split: str, protocol: Protocol,
                        batch_size: int) -> ErrorRates:
    """Measure on photographs, on all devices; each network looks at them as it does."""
    views = [views_of(protocol, network.preprocessing) for network in networks]
    found = find_images(data)
    for network in networks:
        check_classes(network, found.classes, data.source)
    if split == "validation":
        raise BadInput("photographs are not held out for validation; the splits are train and test")
    files, sharding = getattr(found, split), batch_sharding(jax.devices())

    def on_devices(network: Network) -> Classifier:
        here = jax.device_get((network.variables, network.preprocessing))
        return Classifier(network.model, *jax.device_put(here, replicated(sharding)))

    members = [log_probabilities_of_views(on_devices(network), files, seen, batch_size, sharding, data.workers)
               for network, seen in zip(networks, views, strict=True)]
    return error_rates(ensemble(members), files.labels)


def check_classes(network: Network, classes: tuple[str, ...], source: str) -> None:
    """Raise BadInput unless the images have the classes that the network was trained on; or as many, if unnamed."""
    if len(classes) != network.model.classes or (network.classes and classes != network.classes):
        odd = sorted(set(classes) ^ set(network.classes))[:5] if network.classes else []
        raise BadInput(f"{source} has {len(classes)} classes, {network.name} was trained on {network.model.classes}"
                       + (f"; only one has: {', '.join(odd) or '(another order)'}" if network.classes else ""))


def classify(file: Path, network: Network, most: int = 5) -> list[tuple[int, float]]:
    """Return the likeliest classes of a picture, with their probabilities. Raises BadInput where it cannot be read."""
    try:
        encoded = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    pixels = network.preprocessing.prepare(encoded, str(file))
    (seen,) = log_probabilities(network.classifier, Images(pixels[None], np.zeros(1, np.int32)), 1)
    best = np.argsort(-seen, kind="stable")[:most]
    return [(int(label), float(np.exp(seen[label]))) for label in best]
