"""Computes saliency maps, which show the pixels of an image that a network's prediction depends on."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from resjax.data import Preprocessing
from resjax.network import Classifier, Network, as_classifier, checked_pixels
from resjax.system.errors import check


def saliency(network: Network | Classifier, pixels: Any, labels: Any = None) -> jax.Array:
    """Compute maps `[batch, height, width]` of how strongly each pixel affects a class's logit (Simonyan et al. 2014).

    Each value is the largest absolute derivative of the logit with respect to the channels of a pixel. `pixels` are RGB
    values from 0 to 255, `[batch, height, width, channels]`. `labels` are class numbers `[batch]`; by default, each
    image's most likely class is used. Raises BadInput for classes that do not exist.
    """
    model, variables, preprocessing = as_classifier(network)
    pixels = jnp.asarray(checked_pixels(pixels, preprocessing), jnp.float32)
    image = jax.ShapeDtypeStruct(pixels.shape, jnp.float32)
    outputs = jax.eval_shape(lambda x: model.apply(variables, preprocessing.normalize(x)), image).shape[-1]
    if labels is not None:
        labels = np.asarray(labels)
        check(labels.shape == pixels.shape[:1] and labels.dtype.kind in "iu" and bool(
            ((labels >= 0) & (labels < outputs)).all()),
              f"labels are {labels.tolist()}; they must be class numbers below {outputs}, one per image")
    maps: jax.Array = gradient(model, variables, preprocessing, pixels, labels)
    return maps


@partial(jax.jit, static_argnums=0)
def gradient(model: nn.Module, variables: Any, preprocessing: Preprocessing, pixels: jax.Array,
             labels: jax.Array | None) -> jax.Array:
    """Compute the absolute gradient, maximised over the channels."""
    def chosen(pixels: jax.Array) -> jax.Array:
        logits: Any = model.apply(variables, preprocessing.normalize(pixels))
        classes = logits.argmax(-1) if labels is None else labels
        return jnp.take_along_axis(logits, classes[:, None], -1).sum()  # images are independent in testing

    return jnp.abs(jax.grad(chosen)(pixels)).max(-1)
