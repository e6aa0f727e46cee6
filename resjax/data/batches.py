"""Computes each training batch as a function of a random key and the step.

Each epoch uses a new permutation of the training images. The device stores all images as uint8 and computes crops and
flips itself, so the host does nothing between steps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random

from resjax.data.images import Images
from resjax.data.preprocessing import Preprocessing


class Batch(NamedTuple):
    """A batch: `images` float32 `[batch, height, width, channels]`, `labels` int32 `[batch]`."""

    images: jax.Array
    labels: jax.Array


class Permutation(NamedTuple):
    """The order in which several consecutive epochs visit the images: `indices` int32 `[epochs * images]`."""

    first_epoch: jax.Array
    indices: jax.Array


class Batching(NamedTuple):
    """The batches of section 4.2: `size` images, padded by `pad` zeros, cropped at random, half of them mirrored."""

    size: int
    pad: int
    flip: bool


def epochs_spanned(steps: int, batch_size: int, images: int) -> int:
    """Return the largest number of epochs that this many consecutive steps can overlap; a batch may span two epochs."""
    return (steps * batch_size - 1 + images - 1) // images + 1


def permute(key: jax.Array, first_epoch: int | jax.Array, epochs: int, images: int) -> Permutation:
    """Draw a permutation of the images for each of `epochs` epochs, starting with `first_epoch`."""
    first_epoch = jnp.asarray(first_epoch, jnp.int32)
    orders: Any = jax.vmap(lambda epoch: random.permutation(random.fold_in(random.fold_in(key, 0), epoch), images))
    return Permutation(first_epoch, orders(first_epoch + jnp.arange(epochs)).reshape(-1))


def batch_at(step: jax.Array, key: jax.Array, permutation: Permutation, images: Images, preprocessing: Preprocessing,
             batching: Batching) -> Batch:
    """Compute the training batch of a step from the next images of the permutation, augmented as in section 4.2."""
    start = step * batching.size - permutation.first_epoch * len(images.labels)
    chosen = lax.dynamic_slice(permutation.indices, (start,), (batching.size,))
    pixels = preprocessing.normalize(images.pixels[chosen])
    step_key = random.fold_in(random.fold_in(key, 1), step)
    return Batch(augment(step_key, pixels, batching.pad, batching.flip), images.labels[chosen])


def augment(key: jax.Array, images: jax.Array, pad: int, flip: bool) -> jax.Array:
    """Pad with zeros, crop at random to the original size, and mirror half of the images."""
    crop_key, flip_key = random.split(key)
    shape = images.shape
    if pad:
        corners = random.randint(crop_key, (shape[0], 2), 0, 2 * pad + 1)
        padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        crop: Any = jax.vmap(lambda image, corner: lax.dynamic_slice(image, (corner[0], corner[1], 0), shape[1:]))
        images = crop(padded, corners)
    if flip:
        mirrored = random.bernoulli(flip_key, 0.5, (shape[0], 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images


def add_colour_noise(key: jax.Array, images: jax.Array, colours: jax.Array, deviation: float) -> jax.Array:
    """Add Gaussian noise to each image's colour along the principal components, the columns of `colours` `[3, 3]`.

    Section 3.4 adopts this augmentation from Krizhevsky et al. 2012, where `deviation` is 0.1.
    """
    shifts = deviation * random.normal(key, (len(images), 3)) @ colours.T
    return images + shifts[:, None, None]
