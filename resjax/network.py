"""A trained network as a value, wherever its weights come from, and what others use it for."""

from collections.abc import Sequence
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

TOGETHER = 128  # images that are looked at together


class Classifier(NamedTuple):
    """A model with its weights. Its logits are `model.apply(variables, preprocessing.normalize(pixels))`.

    `pixels` are `[batch, height, width, channels]`, logits `[batch, classes]`.
    """

    model: nn.Module
    variables: Any
    preprocessing: Preprocessing

    def __repr__(self) -> str:
        return f"Classifier({shortly(self.model)}, {parameters_text(self.variables['params'])}, {self.preprocessing})"


class Network(NamedTuple):
    """A network with its weights, and with the way in which images are prepared for it.

    `network(pixels)` gives probabilities, `network.predict(images)` gives class names, and `network.knows` says which
    classes there are. `architecture` is None for a network of your own. `data` says where its test images are by
    default. `classes` is empty if their names are unknown. `outputs` is 0 if the last layer is missing: then there are
    no logits, but `features` and `embed` work.
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

        `pixels` are as for `features`. Raises BadInput for another shape, and where the network has no last layer.
        """
        check_last_layer(self)
        pixels = pixels if hasattr(pixels, "shape") else np.asarray(pixels)
        channels = self.preprocessing.image_shape[-1]
        check(len(pixels.shape) == 4 and pixels.shape[-1] == channels,
              f"pixels are {list(pixels.shape)}; they are [batch, height, width, {channels}], one image pixels[None]")
        if not len(pixels):
            return jnp.zeros((0, self.outputs))
        size = min(len(pixels), TOGETHER)
        parts = (jnp.asarray(pixels[start:start + size]) for start in range(0, len(pixels), size))
        filled = (jnp.pad(part, [(0, size - len(part)), *[(0, 0)] * 3]) for part in parts)  # so that one size compiles
        return jnp.concatenate([probabilities(self.model, self.variables, self.preprocessing, part)
                                for part in filled])[:len(pixels)]

    def predict(self, images: Any) -> list[str]:
        """Name the likeliest class of each image: pixels as for `features`, or image files and folders of them.

        Files of any size are resized to the network's size. Raises BadInput, naming the file, if one cannot be read or
        if the logits of an image are not numbers.
        """
        if isinstance(images, str | Path) or (isinstance(images, Sequence) and isinstance(images[0], str | Path)):
            files = find_pictures([images] if isinstance(images, str | Path) else images)
            return [class_name(self, classify(file, self, 1)[0][0]) for file in files]
        seen = np.asarray(self(images))
        broken = np.flatnonzero(np.isnan(seen).any(1))
        check(not broken.size, f"image {broken[:1]}: {self.name} gives logits that are not numbers")
        return [class_name(self, int(label)) for label in seen.argmax(1)]

    @property
    def knows(self) -> str:
        """Say which classes the network tells apart: "10 classes: airplane, automobile, ..."."""
        return named_classes([imagenet_classes().get(name, name).split(", ")[0] for name in self.classes], self.outputs)

    @property
    def title(self) -> str:
        """Name the network as the paper does, or a network of your own by its fields."""
        return self.architecture.title() if self.architecture else shortly(self.model)

    @property
    def outputs(self) -> int:
        """The number of classes that the network tells apart; 0 if it has no last layer."""
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
    """Say how many parameters there are."""
    return f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters"


def as_classifier(network: Network | Classifier) -> Classifier:
    """Return the model, its variables and its preprocessing."""
    return network.classifier if isinstance(network, Network) else network


@partial(jax.jit, static_argnums=0)
def probabilities(model: nn.Module, variables: Any, preprocessing: Preprocessing, pixels: jax.Array) -> jax.Array:
    """Compute the softmax outputs `[batch, classes]`; NaN for all classes where a logit is not finite."""
    logits: Any = model.apply(variables, preprocessing.normalize(pixels))
    return jax.nn.softmax(jnp.where(jnp.isfinite(logits).all(-1, keepdims=True), logits, jnp.nan))


def classify(file: Path, network: Network, most: int = 5) -> list[tuple[int, float]]:
    """Return the likeliest classes of a picture, with their probabilities.

    Raises BadInput where it cannot be read, or the network has no last layer or gives logits that are not numbers.
    """
    check_last_layer(network)
    pixels = network.preprocessing.prepare(read_picture(file), str(file))
    seen = np.asarray(network(pixels[None]))[0]
    check(not np.isnan(seen).any(), f"{file}: {network.name} gives logits that are not numbers")
    return [(int(label), float(seen[label])) for label in np.argsort(-seen, kind="stable")[:most]]


def label_of(network: Network, name: str) -> int:
    """Find a class by its name, its number where classes are unnamed. Raises BadInput where there is none."""
    if not network.classes:
        check(name.isdecimal() and int(name) < network.outputs, f"{name!r} is no class: the classes of {network.name} "
                                                                f"have no names, but numbers below {network.outputs}")
        return int(name)
    place = place_of(name, network.classes)
    words = {word: i for i, each in enumerate(network.classes)
             for word in reversed(imagenet_classes().get(each, each).split(", "))}
    found = words.get(name) if place is None else place
    if found is None:
        near = nearest(name, words)
        raise BadInput(f"{name!r} is no class of {network.name}, which knows {network.knows}"
                       + f"; did you mean {near!r}?" * bool(near))
    return found


def named_classes(names: Sequence[str], count: int, most: int = 20) -> str:
    """Say how many classes there are and name them; of many the first few and the last."""
    some = names if len(names) <= most else [*names[:5], "...", names[-1]]
    return f"{count:,} class{'es' * (count != 1)}{': ' if some else ''}{', '.join(some)}"


def check_last_layer(network: Network) -> None:
    """Raise BadInput for a network that has no last layer, and so no logits."""
    check(network.outputs > 0, f"{network.name} has no last layer and tells no classes apart; it gives features, "
                                     "and fine-tuning (--initialize-from) adds a layer")


def features(network: Network, pixels: Any) -> tuple[jax.Array, ...]:
    """Compute the outputs of the stages, C2 to C5 on ImageNet: each `[batch, height, width, channels]`; VGG has five.

    `pixels` are RGB of 0 to 255, `[batch, height, width, channels]`; if their size is not that of the mean image, the
    mean image is resized to theirs.
    """
    outputs: Any = network.model.apply(network.variables, network.preprocessing.normalize(pixels), features=True)
    return tuple(outputs)


def embed(network: Network, pixels: Any) -> jax.Array:
    """Compute the input of the last layer, `[batch, channels]`: the average over the last maps, or VGG's hidden layer.

    `pixels` are as for `features`.
    """
    seen: Any = network.model.clone(classes=0).apply(network.variables, network.preprocessing.normalize(pixels))
    return jnp.asarray(seen)


@cache
def imagenet_classes() -> dict[str, str]:
    """Map ImageNet's 1,000 classes, WordNet's ids in their usual order, to their names."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if not line.startswith("#"))


def class_name(network: Network, label: int) -> str:
    """Name a class for people: "tench (n01440764)"."""
    if not network.classes:
        return f"class {label}"
    return readable_class(network.classes[label])


def readable_class(name: str) -> str:
    """Tell what a class is called, also where its name is WordNet's id."""
    meaning = imagenet_classes().get(name)
    return f"{meaning.split(', ')[0]} ({name})" if meaning else name
