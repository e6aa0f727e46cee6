"""Converts predictions for anchors to proposals, and predictions for regions to detections."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from resjax.detection.boxes import apply_deltas, clip, suppress
from resjax.detection.config import Sampling


class Predictions(NamedTuple):
    """Predictions for regions and classes: boxes `[n, classes, 4]` in pixels, and scores `[n, classes]` from 0 to 1."""

    boxes: jax.Array
    scores: jax.Array


class Detections(NamedTuple):
    """Boxes `[most, 4]`, scores and classes (counted from 1) `[most]`, best first, and which places are filled."""

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    valid: jax.Array


def propose(objectness: jax.Array, deltas: jax.Array, anchors: jax.Array, size: jax.Array, rules: Sampling,
            *, train: bool) -> tuple[jax.Array, jax.Array]:
    """Convert logits `[anchors]` and deltas `[anchors, 4]` to proposals `[count, 4]` and a mask of filled places.

    The best boxes are clipped to an image of `size` (height, width). Those that are not empty and whose sides are at
    least `smallest` go through non-maximum suppression. An empty place holds a box of one pixel.
    """
    before, after = ((rules.train_candidates, rules.train_proposals) if train else
                     (rules.test_candidates, rules.test_proposals))
    scores, best = lax.top_k(objectness, min(before, len(objectness)))
    boxes = clip(apply_deltas(deltas[best], anchors[best]), size)
    sides = boxes[:, 2:] - boxes[:, :2]
    large = jnp.all((sides > 0) & (sides >= rules.smallest), -1)
    selected, valid = suppress(boxes, jnp.where(large, scores, -jnp.inf), rules.suppression, after)
    return jnp.where(valid[:, None], boxes[selected], jnp.array([0.0, 0, 1, 1])), valid


def decode_predictions(logits: jax.Array, deltas: jax.Array, regions: jax.Array, valid: jax.Array, size: jax.Array,
                       rules: Sampling) -> Predictions:
    """Convert logits `[n, classes + 1]` and deltas `[n, classes, 4]` of regions `[n, 4]` to boxes and scores.

    Boxes are clipped to an image of `size` (height, width). The scores of empty places are 0.
    """
    boxes = clip(apply_deltas(deltas * jnp.array(rules.deviations), regions[:, None]), size)
    return Predictions(boxes, jnp.where(valid[:, None], jax.nn.softmax(logits)[:, 1:], 0))


def choose_detections(predictions: Predictions, rules: Sampling) -> Detections:
    """Choose the detections among the predictions, with separate non-maximum suppression for every class.

    Returns the best detections of all classes, at most `rules.detections`.
    """
    boxes, scores = predictions
    scores = jnp.where(scores > rules.lowest_score, scores, -jnp.inf)

    def one_class(boxes: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        selected, filled = suppress(boxes, scores, rules.class_suppression, len(boxes))
        return boxes[selected], jnp.where(filled, scores[selected], -jnp.inf)

    boxes_by_class, scores_by_class = jax.vmap(one_class, in_axes=(1, 1))(boxes, scores)
    best, places = lax.top_k(scores_by_class.reshape(-1), min(rules.detections, scores_by_class.size))
    labels = 1 + places // len(boxes)
    return Detections(boxes_by_class.reshape(-1, 4)[places], best, labels, best > -jnp.inf)
