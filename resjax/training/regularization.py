"""Losses and augmentations from the literature, for `resjax.train(loss=..., augment=...)`.

An augmentation takes a key, images `[batch, height, width, channels]` and class indices `[batch]`. It returns images
and labels, which are class indices `[batch]` or probabilities `[batch, classes]`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from jax import random

from resjax.system.errors import check


@dataclass(frozen=True)
class LabelSmoothing:
    """Cross-entropy with smoothed labels (Szegedy et al. 2016, arXiv 1512.00567).

    The target distribution is (1 - amount) times the one-hot label, plus amount / classes for every class. An instance
    is a loss function. It takes logits `[batch, classes]` and labels, as indices `[batch]` or as probabilities `[batch,
    classes]`, and returns the losses `[batch]`.

        resjax.train(run, "runs/smooth", loss=resjax.LabelSmoothing(0.1))
    """

    amount: float = 0.1

    def __post_init__(self) -> None:
        check(0 <= self.amount < 1, f"LabelSmoothing: amount is {self.amount}; it must be in [0, 1)")

    def __call__(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        classes = logits.shape[-1]
        targets = (1 - self.amount) * as_probabilities(labels, classes) + self.amount / classes
        losses: jax.Array = optax.softmax_cross_entropy(logits, targets)
        return losses


@dataclass(frozen=True)
class Mixup:
    """Replace each image x by weight * x + (1 - weight) * x', where x' is another image of the batch.

    Labels are blended in the same way. The weight is drawn from Beta(alpha, alpha), once per batch as in the authors'
    code (Zhang et al. 2018, arXiv 1710.09412). Images are `[batch, height, width, channels]`. Labels `[batch]` become
    probabilities `[batch, classes]`.

        resjax.train(run, "runs/mixup", augment=resjax.Mixup(0.2, classes=10))
    """

    alpha: float = 0.2
    classes: int = 10

    def __post_init__(self) -> None:
        check(self.alpha > 0, f"Mixup: alpha is {self.alpha}; it must be above 0")

    def __call__(self, key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        weight_key, order_key = random.split(key)
        weight = random.beta(weight_key, self.alpha, self.alpha)
        order = random.permutation(order_key, len(images))
        targets = as_probabilities(labels, self.classes)
        return mix(weight, images, images[order]), mix(weight, targets, targets[order])


@dataclass(frozen=True)
class CutMix:
    """Replace a rectangle of each image by the same rectangle of another image, and mix the labels by area.

    The other image is from the same batch. Once per batch, a weight is drawn from Beta(alpha, alpha). A rectangle that
    covers a fraction 1 - weight of the image is placed at random and clipped at the border (Yun et al. 2019, arXiv
    1905.04899). Images are `[batch, height, width, channels]`. Labels `[batch]` become probabilities `[batch,
    classes]`.

        resjax.train(run, "runs/cutmix", augment=resjax.CutMix(1.0, classes=10))
    """

    alpha: float = 1.0
    classes: int = 10

    def __post_init__(self) -> None:
        check(self.alpha > 0, f"CutMix: alpha is {self.alpha}; it must be above 0")

    def __call__(self, key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        weight_key, centre_key, order_key = random.split(key, 3)
        height, width = images.shape[1:3]
        share = jnp.sqrt(1 - random.beta(weight_key, self.alpha, self.alpha))
        centre = random.uniform(centre_key, (2,)) * jnp.array([height, width])
        inside = rectangle(centre, share * jnp.array([height, width]), (height, width))
        order = random.permutation(order_key, len(images))
        targets = as_probabilities(labels, self.classes)
        return (jnp.where(inside[..., None], images[order], images),
                mix(1 - inside.mean(), targets, targets[order]))


@dataclass(frozen=True)
class Cutout:
    """Set a square around a random pixel of each image to 0 (DeVries and Taylor 2017, arXiv 1708.04552).

    Images are `[batch, height, width, channels]`. The mean image has been subtracted from them, so 0 is the mean. The
    sides of the square have `size` pixels, and the square is clipped at the border. On CIFAR-10, the authors use 16
    pixels.

        resjax.train(run, "runs/cutout", augment=resjax.Cutout(16))
    """

    size: int = 16

    def __post_init__(self) -> None:
        check(self.size >= 1, f"Cutout: size is {self.size}; it must be at least 1")

    def __call__(self, key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        height, width = images.shape[1:3]
        centres = random.randint(key, (len(images), 2), 0, jnp.array([height, width])) + (0.5 if self.size % 2 else 0.0)
        sides = jnp.full(2, self.size, jnp.float32)
        inside = jax.vmap(lambda centre: rectangle(centre, sides, (height, width)))(centres)
        return jnp.where(inside[..., None], 0, images), labels


def as_probabilities(labels: jax.Array, classes: int) -> jax.Array:
    """Convert class indices `[batch]` to probabilities `[batch, classes]`; probabilities are returned unchanged."""
    return labels if labels.ndim == 2 else jax.nn.one_hot(labels, classes)


def mix(weight: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
    """Return weight x + (1 - weight) x'."""
    return weight * one + (1 - weight) * other


def rectangle(centre: jax.Array, sides: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Mark the pixels `[height, width]` whose centres are in a rectangle; `centre` and `sides` are in pixels."""
    within = [jnp.abs(jnp.arange(length) + 0.5 - centre[axis]) < sides[axis] / 2 for axis, length in enumerate(shape)]
    return within[0][:, None] & within[1]
