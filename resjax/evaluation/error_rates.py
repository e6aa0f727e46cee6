"""Measures error rates of networks and ensembles under any testing protocol. Every image counts exactly once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resjax.data import Images, find_images, find_split, load_data, load_split
from resjax.data.classes import alone, composed, normalized_name, place_of
from resjax.data.images import pair_of
from resjax.evaluation.outcomes import Evaluation, evaluation
from resjax.evaluation.probabilities import log_probabilities, log_probabilities_of_views
from resjax.evaluation.views import views_of
from resjax.experiment import Data, Photographs
from resjax.experiment.fields import TestProtocol
from resjax.network import (
    Classifier,
    Network,
    as_classifier,
    check_last_layer,
    checked_pixels,
    imagenet_classes,
    readable_class,
)
from resjax.system.distributed import batch_sharding, replicated
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded
from resjax.system.terminal import tell


def evaluate(network: Network | Classifier, images: Images | tuple[Any, Any], batch_size: int = 128) -> Evaluation:
    """Measure a network's errors on images in memory, without averaging over several crops of an image.

    `images` are a split of a data set, such as `data.test`, or a pair `(pixels, labels)`. `batch_size` affects only
    speed and memory use. Pixels are uint8 `[images, height, width, channels]`, and labels `[images]`. The result
    holds `top1_error` and `top5_error` in percent, `class_errors` and the `confusion` matrix. Its method `mistakes`
    returns the misclassified images, and its method `save(folder)` writes tables and figures.
    """
    check(isinstance(images, tuple) and len(images) == 2,
          f"images is of type {type(images).__name__}; it must be a split of a data set, such as data.test, or a pair "
          "(pixels, labels)")
    images = images if isinstance(images, Images) else pair_of("images", images)
    classifier, labels = as_classifier(network), np.asarray(images.labels)
    check(len(labels) > 0, "images contains no image")
    check(batch_size > 0, f"batch_size is {batch_size}; it must be at least 1")
    checked_pixels(images.pixels, classifier.preprocessing)
    if isinstance(network, Network):
        check_last_layer(network)
        outputs, name = network.outputs, network.name
    else:
        shapes = jax.eval_shape(classifier.model.apply, classifier.variables,
                                jax.ShapeDtypeStruct((1, *np.shape(images.pixels)[1:]), jnp.float32))
        outputs, name = shapes.shape[-1], type(classifier.model).__name__
    check(labels.min() >= 0 and labels.max() < outputs,
          f"labels are in {labels.min()} ... {labels.max()}; they must be in 0 ... {outputs - 1}, because {name} has "
          f"{outputs} classes")
    seen = log_probabilities(classifier, images, batch_size)
    named = network.classes if isinstance(network, Network) else ()
    classes = [readable_class(name) for name in named] or [f"class {label}" for label in range(seen.shape[1])]
    return evaluation(seen, images.labels, classes, lambda index: np.asarray(images.pixels[index]))


def ensemble(members: list[np.ndarray]) -> np.ndarray:
    """Average the softmax outputs of several networks, given and returned as log probabilities `[images, classes]`."""
    return np.asarray(np.logaddexp.reduce(members) - np.log(len(members)))


def measure_networks(networks: Sequence[Network], split: str, protocol: TestProtocol, batch_size: int,
                     source: str | None = None, directory: Path | None = None) -> Evaluation:
    """Measure the errors of one network, or of the mean of several networks' softmax outputs (an ensemble).

    `source` and `directory` locate the images if they are not those of the run. The `source` need not contain the other
    splits. Classes are matched by name. Raises BadInput for a split without images, a protocol that does not suit the
    images, or networks with other classes or another number of colour channels.
    """
    first = networks[0]
    data = replace(first.data, directory=directory or first.data.directory, source=source or first.data.source)
    for network in networks[1:]:
        check(type(network.data) is type(first.data), f"{network.name}, {network.title}, preprocesses images "
                                                      f"differently from {first.name}, {first.title}")
        sizes = [each.preprocessing.image_shape for each in (network, first)]
        check(isinstance(data, Photographs) or sizes[0] == sizes[1],
              f"{network.name} takes images {sizes[0]}, but {first.name} takes {sizes[1]}; evaluate them separately")
    if isinstance(data, Photographs):
        return measure_photographs(networks, data, split, protocol, batch_size)
    if protocol != "single":
        raise BadInput(f"views is {protocol!r}; for small images such as {data.source}, it must be 'single'")
    classes, images = load_images(first, data, split)
    places = [class_places(network, classes, data.source) for network in networks]
    for network in networks:
        channels, wanted = images.pixels.shape[-1], network.preprocessing.image_shape[-1]
        check(channels == wanted, f"{data.source} has images with {channels} channels, but {network.name} needs "
                                  f"{wanted}")
    members = [log_probabilities(network.classifier, images, batch_size)[:, place]
               for network, place in zip(networks, places, strict=True)]
    return evaluation(ensemble(members), images.labels, [readable_class(name) for name in classes],
                      lambda index: np.asarray(images.pixels[index]))


def same_source(one: str, other: str) -> bool:
    """Return whether two sources are the same, also if their paths are written differently."""
    pairs = [source.partition(":") for source in (one, other)]
    kinds, paths = {kind for kind, _, _ in pairs}, {expanded(path).resolve() for _, _, path in pairs}
    return one == other or (len(kinds) == 1 and kinds <= {"folder", "tars"} and len(paths) == 1)


def load_images(network: Network, data: Data, split: str) -> tuple[tuple[str, ...], Images]:
    """Load a split and its classes. Images from a source other than the network's are resized to its size.

    Raises BadInput if the split is empty.
    """
    if not same_source(data.source, network.data.source) and data.source != "digits" and split != "validation":
        classes, images, remark = load_split(data, split, network.preprocessing)
    else:
        dataset = load_data(data)
        classes, images, remark = dataset.classes, getattr(dataset, split), dataset.remark
    tell(remark)
    check(len(images.labels) > 0, f"{network.name} has no {split} images")
    return classes, images


def measure_photographs(networks: Sequence[Network], data: Photographs, split: str, protocol: TestProtocol,
                        batch_size: int) -> Evaluation:
    """Measure on images of any size, on all devices. Each network uses its own preprocessing."""
    views = [views_of(protocol, network.preprocessing) for network in networks]
    check(split != "validation", "no images are held out for validation; split must be train or test")
    if not same_source(data.source, networks[0].data.source):
        classes, files, remark = find_split(data, split)
    else:
        opened = find_images(data)
        classes, files, remark = opened.classes, getattr(opened, split), opened.remark
    tell(remark)
    sharding = batch_sharding(jax.devices())
    places = [class_places(network, classes, data.source) for network in networks]

    def on_devices(network: Network) -> Classifier:
        here = jax.device_get((network.variables, network.preprocessing))
        return Classifier(network.model, *jax.device_put(here, replicated(sharding)))

    seen = [log_probabilities_of_views(on_devices(network), files, view, batch_size, sharding, data.workers)
            for network, view in zip(networks, views, strict=True)]
    return evaluation(ensemble([each[:, place] for each, place in zip(seen, places, strict=True)]), files.labels,
                      [readable_class(name) for name in classes],
                      lambda index: networks[0].preprocessing.prepare(files.read(index), files.name(index)))


def class_places(network: Network, classes: tuple[str, ...], source: str) -> np.ndarray:
    """Match the classes of some images to a network's outputs by name; the other outputs are left out.

    A class may have any of its alternative names in ImageNet. Prints a note unless all classes match in order. Raises
    BadInput if the network lacks a class, or if the network's classes are unnamed and their number differs.
    """
    check_last_layer(network)
    if not network.classes:
        check(len(classes) == network.outputs, f"{source} has {len(classes)} classes, but {network.name} has "
                                                     f"{network.outputs} without names")
        return np.arange(len(classes))
    words = aliases(network.classes)
    outputs = [words.get(normalized_name(name)) if (place := place_of(name, network.classes)) is None else place
             for name in classes]
    times = Counter(outputs)
    unknown = [name for name, place in zip(classes, outputs, strict=True) if place is None
               or (times[place] > 1 and composed(name) != composed(network.classes[place]))]
    if unknown:
        odd = sorted({*unknown, *(set(network.classes) - set(classes) if len(network.classes) < 20 else ())})[:5]
        raise BadInput(f"{source} has {len(classes)} classes, but {network.name} has {network.outputs}; "
                       f"only one has {', '.join(odd)}")
    places = np.array(outputs)
    if not np.array_equal(places, np.arange(network.outputs)):
        tell(f"{source}: matched its {len(classes)} classes by name to the {network.outputs} of {network.name}; "
             f"predictions are chosen among these {len(classes)}")
    return places


def aliases(classes: tuple[str, ...]) -> dict[str, int]:
    """Map ImageNet's alternative class names, case-folded, to a network's outputs. Ambiguous names are left out."""
    return alone((normalized_name(word), place) for place, name in enumerate(classes)
                 for word in imagenet_classes().get(name, "").split(", ") if word)
