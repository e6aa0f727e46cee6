"""Initialises a detector from a classifier, from another detector, or without pretrained weights."""

from typing import Any, NamedTuple

import jax
import numpy as np

from resjax.detection.annotations import AnnotatedImages
from resjax.detection.backbones import RESNETS
from resjax.detection.config import Detection
from resjax.detection.evaluate import TrainedDetector
from resjax.detection.phases import PROPOSER
from resjax.detection.stored import load_detector
from resjax.models import VGG, ResNet
from resjax.network import Network
from resjax.system.errors import BadInput, check
from resjax.system.serialization import flatten
from resjax.training.kinds import kind_at
from resjax.training.restoration import load
from resjax.training.step import TrainState

TRAINING = ("frozen_batch_norm", "frozen_stages", "ghost_batch_size", "precision", "pooling")  # fields that may differ
MEASURED = 100  # number of images from which the mean colour is computed


class Weights(NamedTuple):
    """The mean colour `[1, 1, 3]`, and the pretrained parameters and batch statistics, by module."""

    mean: np.ndarray
    params: dict[str, Any]
    batch_stats: dict[str, Any]


def initial_weights(detection: Detection, images: AnnotatedImages) -> Weights:
    """Load the weights that `initialize_from` names. Without a name, only measure the mean colour.

    Raises BadInput if the weights are of another network, or of one for images without colours.
    """
    source, detector = detection.initialize_from, detection.detector
    if not source:
        return Weights(mean_colour(images), {}, {})
    if kind_at(source).VALUE is Detection:
        return detector_weights(load_detector(source), detection, images.classes)
    network = load(source, stride_in=detector.stride_in, shortcut="A")
    channels = network.preprocessing.image_shape[-1]
    check(channels == 3,
          f"initialize-from: {network.name} needs images with {channels} channels, but a detector's have 3")
    return vgg_weights(network, detection) if detector.backbone == "vgg16" else resnet_weights(network, detection)


def mean_colour(images: AnnotatedImages) -> np.ndarray:
    """Average the pixels of the first hundred images: `[1, 1, 3]`."""
    count = min(MEASURED, len(images.records))
    colours = np.array([images.pixels(index).mean((0, 1)) for index in range(count)])
    mean: np.ndarray = colours.mean(0).reshape(1, 1, 3).astype(np.float32)
    return mean


def resnet_weights(network: Network, detection: Detection) -> Weights:
    """Split a classifier into shared stages and a last stage for regions, without its last layer."""
    detector, model, std = detection.detector, network.model, network.preprocessing.std
    backbone = RESNETS[detector.backbone]
    same = isinstance(model, ResNet) and (model.blocks, model.filters, model.block, model.stem) == (
        backbone.blocks, backbone.filters, backbone.block, "7x7")
    strides = backbone.block == "basic" or not same or model.stride_in == detector.stride_in
    if not (same and strides and model.shortcut == "B" and np.allclose(std or 1.0, detection.data.std or 1.0)):
        raise BadInput(f"initialize-from: {detection.initialize_from} contains {network.title} with std "
                       f"{std}, but the detector needs {detector.backbone} B with strides in the {detector.stride_in} "
                       f"and std {detection.data.std}")
    last = f"stage{len(backbone.blocks)}"

    def divide(tree: Any) -> dict[str, Any]:
        shared = {name: leaves for name, leaves in tree.items() if name not in (last, "fc")}
        return {"shared": shared, "regional": {last: tree[last]}}

    mean = network.mean.mean((0, 1)).reshape(1, 1, -1)
    return Weights(mean, divide(network.variables["params"]), divide(network.variables["batch_stats"]))


def vgg_weights(network: Network, detection: Detection) -> Weights:
    """Split VGG-16 into shared convolutions and two hidden layers for regions, without its last layer."""
    model, std = network.model, network.preprocessing.std
    wanted = VGG(16, 0, units=detection.detector.hidden)
    same = isinstance(model, VGG) and model.clone(classes=0) == wanted
    if not (same and np.allclose(std or 1.0, detection.data.std or 1.0)):
        raise BadInput(f"initialize-from: {detection.initialize_from} contains {network.model} with std {std}, but the "
                       f"detector needs {wanted} with std {detection.data.std}")
    params = network.variables["params"]
    return Weights(network.mean.mean((0, 1)).reshape(1, 1, -1),
                   {"shared": params["convolutions"], "regional": params["hidden"]}, {})


def detector_weights(trained: TrainedDetector, detection: Detection, classes: tuple[str, ...]) -> Weights:
    """Take the weights of a trained detector. If its classes differ, the two last layers are initialised at random.

    In this way, "baseline+++" of Tables 10 and 11 is fine-tuned on VOC from a COCO run.
    """
    before = trained.detection
    differences = differing(before.detector, detection.detector)
    if before.data.std != detection.data.std:
        differences.append(f"data.std: {before.data.std} -> {detection.data.std}")
    check(not differences, f"initialize-from: {detection.initialize_from} contains another detector "
                           f"({'; '.join(differences)})")
    params = trained.variables["params"]
    if trained.classes != classes:
        params = {name: leaves for name, leaves in params.items() if name not in ("scores", "boxes")}
    return Weights(trained.mean.reshape(1, 1, -1), params, trained.variables["batch_stats"])


def differing(before: Any, now: Any) -> list[str]:
    """List the fields, with both values, that differ and affect the meaning of the weights."""
    here = flatten(now)
    return [f"detector.{name}: {value!r} -> {here[name]!r}" for name, value in flatten(before).items()
            if value != here[name] and name not in TRAINING]


def start_from(weights: Weights, first: TrainState) -> TrainState:
    """Copy the mean colour and weights to an initial state, on its devices.

    Parameters without weights keep their initial values.
    """

    def merge(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
        return dict(old) | {name: jax.tree.map(place, new[name], old[name]) for name in new}

    def place(new: Any, old: jax.Array) -> jax.Array:
        placed: jax.Array = jax.device_put(np.array(jax.device_get(new), old.dtype), old.sharding)
        return placed

    params = merge(weights.params, first.params)
    if PROPOSER in params:  # the proposal network starts with the same weights
        own = {name: leaves for name, leaves in weights.params.items() if name == "shared"}
        params[PROPOSER] = merge(own, first.params[PROPOSER])
    started: TrainState = first.replace(mean=place(weights.mean, first.mean), params=params,
                                        batch_stats=merge(weights.batch_stats, first.batch_stats))
    return started
