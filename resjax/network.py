"""A trained network as a value, wherever its weights come from, and what others use it for."""

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from resjax.data import Preprocessing
from resjax.experiment import Architecture, Data, Photographs
from resjax.system.errors import check
from resjax.system.serialization import shortly


class Classifier(NamedTuple):
    """What tells images apart: `model.apply(variables, preprocessing.normalize(pixels))` are logits."""

    model: nn.Module
    variables: Any
    preprocessing: Preprocessing

    def __repr__(self) -> str:
        return f"Classifier({shortly(self.model)}, {counted(self.variables['params'])}, {self.preprocessing})"


class Network(NamedTuple):
    """A network with its weights, and how images are prepared for it.

    `architecture` is None where the network is none of the paper's, but one's own. `data` tells where its test images
    are if nothing else is said. `classes` is empty where nobody told their names,
    and `outputs` is 0 where the last layer is missing: then there are no logits; `features` and `embed` work.
    """

    name: str
    architecture: Architecture | None
    data: Data | Photographs
    classes: tuple[str, ...]
    model: Any
    variables: Any
    preprocessing: Preprocessing

    def __repr__(self) -> str:
        return f"Network({self.name!r}: {self.title}, {counted(self.variables['params'])}, {self.preprocessing})"

    @property
    def title(self) -> str:
        """Name the network as the paper does, or one's own by its fields."""
        return self.architecture.title() if self.architecture else shortly(self.model)

    @property
    def outputs(self) -> int:
        """The number of classes that it tells apart: 0 without its last layer."""
        return int(getattr(self.model, "classes", len(self.classes)))

    @property
    def classifier(self) -> Classifier:
        """Return what it takes to tell images apart."""
        return Classifier(self.model, self.variables, self.preprocessing)

    @property
    def mean(self) -> np.ndarray:
        """Return the mean image `[height, width, channels]`, of the size that the network was trained on."""
        return np.asarray(self.preprocessing.mean)


def counted(params: Any) -> str:
    """Say how many parameters there are."""
    return f"{sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters"


def as_classifier(network: Network | Classifier) -> Classifier:
    """Return what it takes to tell images apart."""
    return network.classifier if isinstance(network, Network) else network


def check_last_layer(network: Network) -> None:
    """Raise BadInput for a network that has no last layer, and so no logits."""
    check(network.outputs > 0, f"{network.name} has no last layer and tells no classes apart; it gives features, "
                                     "and fine-tuning (--initialize-from) adds a layer")


def features(network: Network, pixels: Any) -> tuple[jax.Array, ...]:
    """Compute the outputs of the stages, C2 to C5 on ImageNet: each `[batch, height, width, channels]`; VGG has five.

    `pixels` are RGB of 0 to 255, `[batch, height, width, channels]`; where they are of another size than the mean image
    it is resized to theirs.
    """
    outputs: Any = network.model.apply(network.variables, network.preprocessing.normalize(pixels), features=True)
    return tuple(outputs)


def embed(network: Network, pixels: Any) -> jax.Array:
    """Compute what the last layer sees, `[batch, channels]`: the average over the last maps; VGG's hidden layer.

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
    name = network.classes[label]
    meaning = imagenet_classes().get(name)
    return f"{meaning.split(', ')[0]} ({name})" if meaning else name
