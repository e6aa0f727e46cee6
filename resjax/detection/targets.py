"""Assigns training targets to anchors and regions, and computes the losses.

Everything runs on the device with static shapes, and random choices depend only on the key. The objects of an image are
padded to a fixed number, and `valid` marks the real ones.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from resjax.detection.boxes import areas, box_deltas, inside, intersection_over_union, shared_areas
from resjax.detection.config import Sampling

PROPOSAL_LOSSES, REGION_LOSSES = ("anchor_class", "anchor_box"), ("region_class", "region_box")
LOSSES = PROPOSAL_LOSSES + REGION_LOSSES
IN_CROWD = 0.7  # a box is in a crowd if this share of its area is inside, as in Detectron
TIE = 1e-6  # anchors that contain a whole object overlap it equally, up to rounding; smaller overlaps do not count


class Objects(NamedTuple):
    """An image's objects: boxes `[most, 4]`, classes `[most]`, counted from 1, and a mask `[most]` of filled places.

    `crowd` `[most]` marks places that hold COCO's crowds instead. Nothing within a crowd counts as background.
    """

    boxes: Any  # NumPy on the host, JAX on the device
    labels: Any
    valid: Any
    crowd: Any


class AnchorTargets(NamedTuple):
    """Whether each anchor shows an object, its target deltas `[anchors, 4]`, and whether it is sampled."""

    positive: jax.Array
    deltas: jax.Array
    sampled: jax.Array


class RegionTargets(NamedTuple):
    """The sampled regions `[rois, 4]`, labels (0 is background), deltas `[rois, 4]`, and which places are filled."""

    boxes: jax.Array
    labels: jax.Array
    deltas: jax.Array
    valid: jax.Array


def valid_overlaps(boxes: jax.Array, objects: Objects) -> jax.Array:
    """Compute the overlaps of boxes `[n, 4]` with the objects, `[n, most]`; -1 for empty places."""
    return jnp.where(objects.valid, intersection_over_union(boxes, objects.boxes), -1)


def in_crowd(boxes: jax.Array, objects: Objects) -> jax.Array:
    """Return which boxes `[n, 4]` are within a crowd, that is, a region with objects at unknown positions."""
    within = shared_areas(boxes, objects.boxes) >= IN_CROWD * areas(boxes)[:, None]
    return jnp.any(within & objects.crowd, 1)


def target_boxes(objects: Objects, chosen: jax.Array, fallback: jax.Array) -> jax.Array:
    """Return the boxes of the chosen objects `[n]`, or `fallback` `[n, 4]` if there are no objects."""
    return jnp.where(objects.valid[chosen][:, None], objects.boxes[chosen], fallback)


def sample(key: jax.Array, candidates: jax.Array, count: int | jax.Array) -> jax.Array:
    """Return a mask of `count` random candidates `[n]`, or of all candidates if there are fewer."""
    order = jnp.argsort(jnp.where(candidates, jax.random.uniform(key, candidates.shape), 2))
    rank = jnp.zeros(candidates.shape, jnp.int32).at[order].set(jnp.arange(len(candidates), dtype=jnp.int32))
    return candidates & (rank < count)


def anchor_targets(key: jax.Array, anchors: jax.Array, objects: Objects, size: jax.Array,
                   rules: Sampling) -> AnchorTargets:
    """Assign anchors `[n, 4]` to the objects of an image of `size` (height, width), and sample some of them.

    An anchor is positive if it overlaps an object by at least `anchor_positive`, or overlaps an object more than all
    other anchors do. An anchor is negative if it overlaps every object by less than `anchor_negative` and is not within
    a crowd. Anchors that cross the border are ignored (Ren et al. 2015, section 3.1).
    """
    usable = inside(anchors, size)
    overlaps = jnp.where(usable[:, None], valid_overlaps(anchors, objects), -1)
    best = overlaps.max(1)
    most = overlaps.max(0)
    closest = jnp.any((overlaps >= most - TIE) & (most > TIE), 1)
    positive = usable & (closest | (best >= rules.anchor_positive))
    negative = usable & ~positive & (best < rules.anchor_negative) & ~in_crowd(anchors, objects)
    positive_key, negative_key = jax.random.split(key)
    chosen = sample(positive_key, positive, rules.anchors // 2)
    others = sample(negative_key, negative, rules.anchors - chosen.sum())
    deltas = box_deltas(target_boxes(objects, overlaps.argmax(1), anchors), anchors)
    return AnchorTargets(chosen, jnp.where(chosen[:, None], deltas, 0), chosen | others)


def region_targets(key: jax.Array, proposals: jax.Array, valid: jax.Array, objects: Objects,
                   rules: Sampling) -> RegionTargets:
    """Sample `rois` regions from the proposals `[n, 4]` and the objects themselves, with their targets.

    At most a quarter of the regions show an object, with an overlap of at least `foreground`. The others are
    background, outside of crowds and with overlaps in the range `background` [low, high).
    """
    boxes = jnp.concatenate([proposals, objects.boxes])
    usable = jnp.concatenate([valid, objects.valid])
    overlaps = valid_overlaps(boxes, objects)
    best, nearest = overlaps.max(1), overlaps.argmax(1)
    low, high = rules.background
    positive = usable & (best >= rules.foreground)
    negative = usable & ~positive & (best < high) & (jnp.maximum(best, 0) >= low) & ~in_crowd(boxes, objects)
    positive_key, negative_key = jax.random.split(key)
    chosen = sample(positive_key, positive, rules.rois // 4)
    others = sample(negative_key, negative, rules.rois - chosen.sum())
    places = jnp.argsort(jnp.where(chosen, 0, jnp.where(others, 1, 2)), stable=True)[:rules.rois]
    filled = (chosen | others)[places]
    regions = jnp.where(filled[:, None], boxes[places], jnp.array([0.0, 0, 1, 1]))
    labels = jnp.where(chosen[places], objects.labels[nearest[places]], 0)
    deltas = box_deltas(target_boxes(objects, nearest[places], regions), regions)
    return RegionTargets(regions, labels, jnp.where(chosen[places][:, None], deltas / jnp.array(rules.deviations), 0),
                         filled)


def smooth_l1(difference: jax.Array, beta: float) -> jax.Array:
    """Compute d^2 / (2 beta) if |d| < beta, else |d| - beta / 2 (Girshick 2015, equation 3, with beta = 1)."""
    size = jnp.abs(difference)
    return jnp.where(size < beta, difference**2 / (2 * beta), size - beta / 2)


def box_loss(predicted: jax.Array, wanted: jax.Array, weights: jax.Array, beta: float) -> jax.Array:
    """Sum the smooth L1 losses of boxes `[..., 4]`, weighted by `weights` `[...]`."""
    return (smooth_l1(predicted - wanted, beta).sum(-1) * weights).sum()


def objectness_loss(logits: jax.Array, positive: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum the logistic losses of anchors `[...]` (object or not), weighted by `weights` `[...]`."""
    losses: jax.Array = optax.sigmoid_binary_cross_entropy(logits, positive.astype(logits.dtype))
    return (losses * weights).sum()


def class_loss(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum the cross-entropies of `[..., classes + 1]` with labels `[...]`, weighted by `weights` `[...]`."""
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (losses * weights).sum()
