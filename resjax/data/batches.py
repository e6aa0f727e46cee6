"""A batch is a function of (key, step): a fresh permutation every epoch, crops and flips included, on the device.

The images lie on the device as uint8; the host does nothing between steps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax, random

from resjax.data.dataset import Images


class Batch(NamedTuple):
    """`images` float32 `[batch, height, width, channels]`, `labels` int32 `[batch]`."""

    images: jax.Array
    labels: jax.Array


class Order(NamedTuple):
    """The order in which some consecutive epochs visit the images: `indices` int32 `[epochs * images]`."""

    first_epoch: jax.Array
    indices: jax.Array


def epochs_spanned(steps: int, batch_size: int, images: int) -> int:
    """Count the epochs that so many consecutive steps can touch; a batch may lie across two."""
    return (steps * batch_size - 1 + images - 1) // images + 1


def shuffled(key: jax.Array, first_epoch: int | jax.Array, epochs: int, images: int) -> Order:
    """Permute the images anew for each of `epochs` epochs from `first_epoch` on."""
    first_epoch = jnp.asarray(first_epoch, jnp.int32)
    orders = jax.vmap(lambda epoch: random.permutation(random.fold_in(random.fold_in(key, 0), epoch), images))
    return Order(first_epoch, orders(first_epoch + jnp.arange(epochs)).reshape(-1))


def batch_at(step: jax.Array, order: Order, key: jax.Array, data: Images, mean: jax.Array, *, size: int, pad: int,
             flip: bool) -> Batch:
    """Make the training batch of a step: the next `size` images of the order, augmented as in section 4.2."""
    start = step * size - order.first_epoch * len(data.labels)
    chosen = lax.dynamic_slice(order.indices, (start,), (size,))
    images = augment(random.fold_in(random.fold_in(key, 1), step), subtract(data.pixels[chosen], mean), pad, flip)
    return Batch(images, data.labels[chosen])


def subtract(pixels: jax.Array, mean: jax.Array) -> jax.Array:
    """Subtract the per-pixel mean; there is no division, as batch norm makes up for any scale."""
    return pixels.astype(jnp.float32) - mean


def augment(key: jax.Array, images: jax.Array, pad: int, flip: bool) -> jax.Array:
    """Pad with zeros, crop at random to the old size, and mirror half of the images."""
    crop_key, flip_key = random.split(key)
    shape = images.shape
    if pad:
        corners = random.randint(crop_key, (shape[0], 2), 0, 2 * pad + 1)
        padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        crop = jax.vmap(lambda image, corner: lax.dynamic_slice(image, (corner[0], corner[1], 0), shape[1:]))
        images = crop(padded, corners)
    if flip:
        mirrored = random.bernoulli(flip_key, 0.5, (shape[0], 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return images


def add_colour_noise(key: jax.Array, images: jax.Array, colours: jax.Array, deviation: float) -> jax.Array:
    """Shift the colour of every image along the principal components, columns of `colours` `[3, 3]`, by Gaussian noise.

    Section 3.4 takes this from Krizhevsky et al. 2012, where `deviation` is 0.1.
    """
    shifts = deviation * random.normal(key, (len(images), 3)) @ colours.T
    return images + shifts[:, None, None]
