"""A trained network as a value, wherever its weights come from, and what others use it for."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from resjax.data import subtract
from resjax.errors import check
from resjax.experiment import Architecture, Data, Photographs
from resjax.models import ResNet


class Network(NamedTuple):
    """`model.apply(variables, pixels - mean)` are logits, for pixels of 0 to 255 `[batch, height, width, channels]`.

    `mean` is the mean image `[height, width, channels]` of the size that it was trained on. `data` tells how it looks
    at test images, and where they are if nothing else is said. `classes` is empty where nobody told their names, and
    `model.classes` is 0 where the last layer is missing: then there are no logits, and `features` and `embed` work.
    """

    name: str
    architecture: Architecture
    data: Data | Photographs
    classes: tuple[str, ...]
    model: ResNet
    variables: Any
    mean: np.ndarray


def check_last_layer(network: Network) -> None:
    """Raise BadInput for a network that has no last layer, and so no logits."""
    check(network.model.classes > 0, f"{network.name} has no last layer and tells no classes apart; it gives features, "
                                     "and fine-tuning (--start) adds a layer")


def features(network: Network, pixels: Any) -> tuple[jax.Array, ...]:
    """Compute the outputs of the stages, C2 to C5 on ImageNet: each `[batch, height, width, channels]`.

    `pixels` are RGB of 0 to 255, `[batch, height, width, channels]`; where they are of another size than the mean image
    it is resized to theirs.
    """
    mean = jax.image.resize(network.mean, np.shape(pixels)[1:], "linear")
    return network.model.apply(network.variables, subtract(jnp.asarray(pixels), mean), features=True)


def embed(network: Network, pixels: Any) -> jax.Array:
    """Compute what the last layer sees: the average over the last maps, `[batch, channels]`. See `features`."""
    return features(network, pixels)[-1].astype(jnp.float32).mean((1, 2))
