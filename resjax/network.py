"""A trained network with weights from any source. It computes probabilities, predictions, features and embeddings."""

import inspect
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from resjax.data import Preprocessing
from resjax.data.classes import place_of
from resjax.data.pictures import find_pictures, read_picture
from resjax.experiment import Architecture, Data, Photographs
from resjax.system.errors import BadInput, check, nearest
from resjax.system.serialization import shortly

TOGETHER = 128  # images per batch


class Classifier(NamedTuple):
    """A model with its weights and preprocessing.

    The logits are `model.apply(variables, preprocessing.normalize(pixels))`. `pixels` are `[batch, height, width,
    channels]`, and the logits are `[batch, classes]`.
    """

    model: nn.Module
    variables: Any
    preprocessing: Preprocessing

    def __repr__(self) -> str:
        return f"Classifier({shortly(self.model)}, {parameters_text(self.variables['params'])}, {self.preprocessing})"


class Network(NamedTuple):
    """A network with its weights and its image preprocessing.

    `network(pixels)` returns probabilities, `network.predict(images)` returns class names, and `network.knows`
    describes the classes. `architecture` is None for a custom network. `data` describes the data set that the command
    `resjax evaluate` uses by default. `classes` is empty if the class names are unknown. `outputs` is the number of
    classes. It is 0 if the network has no last layer. Such a network has no logits, but `features` and `embed` work.
    """

    name: str
    architecture: Architecture | None
    data: Data | Photographs
    classes: tuple[str, ...]
    model: Any
    variables: Any
    preprocessing: Preprocessing

    def __repr__(self) -> str:
        return (f"Network({self.name!r}: {self.title}, {parameters_text(self.variables['params'])}, "
                f"{self.preprocessing}, {self.knows})")

    def __call__(self, pixels: Any) -> jax.Array:
        """Compute the probabilities of the classes, float32 `[batch, classes]`.

        `pixels` are RGB values from 0 to 255, `[batch, height, width, channels]`. Raises BadInput for another shape, or
        if the network has no last layer.
        """
        check_last_layer(self)
        pixels = checked_pixels(pixels, self.preprocessing)
        if not len(pixels):
            return jnp.zeros((0, self.outputs))
        size = min(len(pixels), TOGETHER)
        parts = (jnp.asarray(pixels[start:start + size]) for start in range(0, len(pixels), size))
        filled = (jnp.pad(part, [(0, size - len(part)), *[(0, 0)] * 3]) for part in parts)  # only one size compiles
        return jnp.concatenate([probabilities(self.model, self.variables, self.preprocessing, part)
                                for part in filled])[:len(pixels)]

    def predict(self, images: Any) -> list[str]:
        """Return the name of each image's most likely class. Images are pixels as in `features`, or files and folders.

        Files are resized to the network's size. Raises BadInput, naming the file, if a file cannot be read or its
        logits are not finite.
        """
        images = [images] if isinstance(images, str | Path) else images
        images = list(images) if isinstance(images, Iterator) else images
        if not len(images):
            return []
        if isinstance(images, Sequence) and isinstance(images[0], str | Path):
            files = find_pictures(images)
            return [class_name(self, classify(file, self, 1)[0][0]) for file in files]
        seen = np.asarray(self(images))
        broken = np.flatnonzero(np.isnan(seen).any(1))
        check(not broken.size, f"image {broken[:1]}: {self.name} computes logits that are NaN or infinite")
        return [class_name(self, int(label)) for label in seen.argmax(1)]

    @property
    def knows(self) -> str:
        """Describe the classes, as in "10 classes: airplane, automobile, ..."."""
        return named_classes([imagenet_classes().get(name, name).split(", ")[0] for name in self.classes], self.outputs)

    @property
    def title(self) -> str:
        """Return the network's name: as in the paper or, for a custom network, its class and fields."""
        return self.architecture.title() if self.architecture else shortly(self.model)

    @property
    def outputs(self) -> int:
        """The number of classes; 0 if the network has no last layer."""
        return int(getattr(self.model, "classes", len(self.classes)))

    @property
    def classifier(self) -> Classifier:
        """Return the model, its variables and its preprocessing."""
        return Classifier(self.model, self.variables, self.preprocessing)

    @property
    def mean(self) -> np.ndarray:
        """Return the mean image `[height, width, channels]`, in the size that the network was trained on."""
        return np.asarray(self.preprocessing.mean)


def parameters_text(params: Any) -> str:
    """Return the number of parameters as text."""
    return f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters"


def as_classifier(network: Network | Classifier) -> Classifier:
    """Return the model, its variables and its preprocessing."""
    return network.classifier if isinstance(network, Network) else network


@partial(jax.jit, static_argnums=0)
def probabilities(model: nn.Module, variables: Any, preprocessing: Preprocessing, pixels: jax.Array) -> jax.Array:
    """Compute the softmax outputs `[batch, classes]`; NaN for all classes of an image if any logit is not finite."""
    outputs: Any = model.apply(variables, preprocessing.normalize(pixels))
    logits = outputs.astype(jnp.float32)
    return jax.nn.softmax(jnp.where(jnp.isfinite(logits).all(-1, keepdims=True), logits, jnp.nan))


def classify(file: Path, network: Network, most: int = 5) -> list[tuple[int, float]]:
    """Return the most likely classes of an image file, with their probabilities.

    Raises BadInput if the file cannot be read, the network has no last layer, or a logit is not finite.
    """
    check_last_layer(network)
    pixels = network.preprocessing.prepare(read_picture(file), str(file))
    seen = np.asarray(network(pixels[None]))[0]
    check(not np.isnan(seen).any(), f"{file}: {network.name} computes logits that are NaN or infinite")
    return [(int(label), float(seen[label])) for label in np.argsort(-seen, kind="stable")[:most]]


def label_of(network: Network, name: str) -> int:
    """Find a class by its name, or by its number if classes are unnamed. Raises BadInput if there is none."""
    if not network.classes:
        check(name.isdecimal() and int(name) < network.outputs, f"{name!r} is not a class; {network.name} has no class "
                                                                f"names, so use a number below {network.outputs}")
        return int(name)
    place = place_of(name, network.classes)
    words = {word: i for i, each in enumerate(network.classes)
             for word in reversed(imagenet_classes().get(each, each).split(", "))}
    found = words.get(name) if place is None else place
    if found is None:
        near = nearest(name, words)
        raise BadInput(f"{name!r} is not a class of {network.name}, which recognises {network.knows}"
                       + f"; did you mean {near!r}?" * bool(near))
    return found


def named_classes(names: Sequence[str], count: int, most: int = 20) -> str:
    """Return the number of classes and their names, or only the first few names and the last one if there are many."""
    some = names if len(names) <= most else [*names[:5], "...", names[-1]]
    return f"{count:,} class{'es' * (count != 1)}{': ' if some else ''}{', '.join(some)}"


def check_last_layer(network: Network) -> None:
    """Raise BadInput if a network has no last layer, because it then has no logits."""
    check(network.outputs > 0, f"{network.name} has no last layer, so it cannot classify; compute features, or "
                                     "fine-tune it (--initialize-from), which adds a layer")


def checked_pixels(pixels: Any, preprocessing: Preprocessing) -> Any:
    """Return pixels as an array. Raises BadInput unless they are `[batch, height, width, channels]`."""
    pixels = pixels if hasattr(pixels, "shape") else np.asarray(pixels)
    channels = preprocessing.image_shape[-1]
    check(len(pixels.shape) == 4 and pixels.shape[-1] == channels,
          f"pixels are {list(pixels.shape)}; they must be [batch, height, width, {channels}]; for one image, use "
          "pixels[None]")
    return pixels


def input_of(network: Network, pixels: Any) -> Any:
    """Return the model's input for pixels. Raises BadInput if the model is not like a ResNet or a VGG."""
    pixels = checked_pixels(pixels, network.preprocessing)
    call = inspect.signature(type(network.model).__call__)
    check("features" in call.parameters and hasattr(network.model, "classes"),
          f"{network.name} is a {type(network.model).__name__}; only a ResNet or a VGG has features and embeddings")
    return network.preprocessing.normalize(pixels)


def features(network: Network, pixels: Any) -> tuple[jax.Array, ...]:
    """Compute the outputs of all stages, each `[batch, height, width, channels]`.

    CIFAR networks have three stages, ImageNet ResNets have four (C2 to C5), and VGG networks have five.

    `pixels` are RGB values from 0 to 255, `[batch, height, width, channels]`. If the images differ in size from
    the network's mean image, the mean image is resized.
    """
    outputs: Any = network.model.apply(network.variables, input_of(network, pixels), features=True)
    return tuple(outputs)


def embed(network: Network, pixels: Any) -> jax.Array:
    """Compute the last layer's input `[batch, channels]`.

    For a ResNet, this input is the average of the last maps. For VGG, it is the output of the last hidden layer.

    `pixels` are RGB values from 0 to 255, `[batch, height, width, channels]`.
    """
    images = input_of(network, pixels)
    seen: Any = network.model.clone(classes=0).apply(network.variables, images)
    return jnp.asarray(seen)


@cache
def imagenet_classes() -> dict[str, str]:
    """Map the WordNet ids of ImageNet's 1,000 classes, in their usual order, to their names."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if not line.startswith("#"))


def class_name(network: Network, label: int) -> str:
    """Return the readable name of a class, such as "tench (n01440764)"."""
    if not network.classes:
        return f"class {label}"
    return readable_class(network.classes[label])


def readable_class(name: str) -> str:
    """Return the readable name of a class; for a WordNet id, its meaning with the id."""
    meaning = imagenet_classes().get(name)
    return f"{meaning.split(', ')[0]} ({name})" if meaning else name
