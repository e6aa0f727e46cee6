"""From what the network says of anchors to proposals, and of proposals to detections."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from resjax.detection.boxes import clip, decode
from resjax.detection.config import Sampling
from resjax.detection.suppression import suppress


class Detections(NamedTuple):
    """Boxes `[most, 4]`, scores and classes from 1 on `[most]`, best first, and which places are filled."""

    boxes: jax.Array
    scores: jax.Array
    labels: jax.Array
    valid: jax.Array


def propose(objectness: jax.Array, deltas: jax.Array, anchors: jax.Array, size: jax.Array, rules: Sampling,
            *, train: bool) -> tuple[jax.Array, jax.Array]:
    """Turn logits `[anchors]` and deltas `[anchors, 4]` into proposals `[count, 4]`, and say which places are filled.

    The best so many boxes, cut off at the borders of an image of `size` (height, width), without those that are smaller
    than `smallest`, go through non-maximum suppression. An empty place holds a box of one pixel.
    """
    before, after = ((rules.train_candidates, rules.train_proposals) if train else
                     (rules.test_candidates, rules.test_proposals))
    scores, best = lax.top_k(objectness, min(before, len(objectness)))
    boxes = clip(decode(deltas[best], anchors[best]), size)
    large = jnp.all(boxes[:, 2:] - boxes[:, :2] >= rules.smallest, -1)
    kept, valid = suppress(boxes, jnp.where(large, scores, -jnp.inf), rules.suppression, after)
    return jnp.where(valid[:, None], boxes[kept], jnp.array([0.0, 0, 1, 1])), valid


def detect(logits: jax.Array, deltas: jax.Array, proposals: jax.Array, valid: jax.Array, size: jax.Array,
           rules: Sampling) -> Detections:
    """Turn what is said of proposals `[n, 4]` into detections in an image of `size` (height, width).

    `logits` `[n, classes + 1]`, `deltas` `[n, classes, 4]`. Every class has its own boxes and its own suppression; the
    best `detections` of all are returned.
    """
    scores = jax.nn.softmax(logits)[:, 1:]
    boxes = clip(decode(deltas * jnp.array(rules.deviations), proposals[:, None]), size)
    scores = jnp.where(valid[:, None] & (scores > rules.lowest_score), scores, -jnp.inf)

    def one_class(boxes: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
        kept, filled = suppress(boxes, scores, rules.class_suppression, len(boxes))
        return boxes[kept], jnp.where(filled, scores[kept], -jnp.inf)

    kept_boxes, kept_scores = jax.vmap(one_class, in_axes=(1, 1))(boxes, scores)
    best, places = lax.top_k(kept_scores.reshape(-1), min(rules.detections, kept_scores.size))
    labels = 1 + places // len(proposals)
    return Detections(kept_boxes.reshape(-1, 4)[places], best, labels, best > -jnp.inf)
