"""The losses of the proposals and of the detector, over examples of which some do not count."""

import jax
import jax.numpy as jnp
import optax

PROPOSAL_LOSSES, REGION_LOSSES = ("anchor_class", "anchor_box"), ("region_class", "region_box")
LOSSES = PROPOSAL_LOSSES + REGION_LOSSES


def smooth_l1(difference: jax.Array, beta: float) -> jax.Array:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2 (Girshick 2015, equation 3, where beta is 1)."""
    size = jnp.abs(difference)
    return jnp.where(size < beta, difference**2 / (2 * beta), size - beta / 2)


def box_loss(predicted: jax.Array, wanted: jax.Array, weights: jax.Array, beta: float) -> jax.Array:
    """Sum the smooth L1 losses of boxes `[..., 4]` with `weights` `[...]`."""
    return (smooth_l1(predicted - wanted, beta).sum(-1) * weights).sum()


def objectness_loss(logits: jax.Array, positive: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum the logistic losses of anchors `[...]`, object or not, with `weights` `[...]`."""
    losses: jax.Array = optax.sigmoid_binary_cross_entropy(logits, positive.astype(logits.dtype))
    return (losses * weights).sum()


def class_loss(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum the cross-entropies of `[..., classes + 1]` and labels `[...]` with `weights` `[...]`."""
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (losses * weights).sum()
