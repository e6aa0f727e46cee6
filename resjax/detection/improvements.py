"""Box refinement, global context and multi-scale testing: the improvements of Table 9 (appendix B of the paper)."""

from collections.abc import Callable, Sequence
from functools import reduce

import jax
import jax.numpy as jnp

from resjax.detection.boxes import areas, intersection_over_union
from resjax.detection.proposals import Detections, Predictions

VOTING = 0.5  # boxes vote if they overlap the detected box by at least this value
FAMILIAR = 224.0  # pixels; the image side in pretraining, near which regions are processed


# Box refinement: pool and score the regressed box again, merge both sets of predictions, and let boxes vote.

def regressed_boxes(predictions: Predictions) -> jax.Array:
    """Return the regressed box of each region's most likely class, `[..., n, 4]`."""
    likeliest = predictions.scores.argmax(-1)
    return jnp.take_along_axis(predictions.boxes, likeliest[..., None, None], -2)[..., 0, :]


def unite(first: Predictions, second: Predictions) -> Predictions:
    """Concatenate two sets of predictions with a leading axis of images, such as 300 and 300 to 600."""
    return Predictions(*(jnp.concatenate(parts, 1) for parts in zip(first, second, strict=True)))


def vote(box: jax.Array, boxes: jax.Array, scores: jax.Array) -> jax.Array:
    """Average the boxes `[n, 4]` that overlap a detected `box` `[4]` by at least 0.5, weighted by their scores `[n]`.

    The result is sum_j s_j B_j / sum_j s_j (Gidaris & Komodakis 2015, section 5, "bounding box voting").
    """
    weights = jnp.where(intersection_over_union(box[None], boxes)[0] >= VOTING, scores, 0)
    total = weights.sum()
    mean = (weights[:, None] * boxes).sum(0) / jnp.where(total > 0, total, 1)  # a matmul would be less precise
    return jnp.where(total > 0, mean, box)


def vote_all(detections: Detections, predictions: Predictions) -> Detections:
    """Refine each detection's box by a vote of the predictions of its class. The score stays unchanged."""
    def vote_one(box: jax.Array, label: jax.Array) -> jax.Array:
        return vote(box, predictions.boxes[:, label - 1], predictions.scores[:, label - 1])

    return detections._replace(boxes=jax.vmap(vote_one)(detections.boxes, detections.labels))


# Global context: the whole image is one more region, whose features are concatenated with those of all others.

def with_whole_image(boxes: jax.Array, sizes: jax.Array) -> jax.Array:
    """Append the box of the whole image (of `sizes` `[batch, 2]`): `[batch, n, 4]` to `[batch, n + 1, 4]`."""
    corner = jnp.zeros_like(sizes)
    return jnp.concatenate([boxes, jnp.concatenate([corner, sizes[:, ::-1]], -1)[:, None]], 1)


def join_context(features: jax.Array) -> jax.Array:
    """Concatenate the last region's features (the whole image's) with the others': `[b, n + 1, c]` to `[b, n, 2 c]`."""
    regions, image = features[:, :-1], features[:, -1:]
    return jnp.concatenate([regions, jnp.broadcast_to(image, regions.shape)], -1)


# Multi-scale testing: each region is pooled from two adjacent scales of an image pyramid, merged by maxout.

def adjacent_scales(boxes: jax.Array, scales: Sequence[float]) -> jax.Array:
    """For boxes `[..., 4]`, choose the first of the two adjacent scales between which their areas reach 224^2.

    If no such pair exists, the two lowest or the two highest scales are used. `scales` are ascending and relative to
    the boxes' own scale. The rule is from "Object Detection Networks on Convolutional Feature Maps" (Ren et al. 2015).
    """
    sides = jnp.sqrt(areas(boxes))[..., None] * jnp.array(scales)
    below = (sides <= FAMILIAR).sum(-1)
    return jnp.clip(below - 1, 0, len(scales) - 2)


def pool_two_scales(pools: Sequence[Callable[[jax.Array], jax.Array]], scales: Sequence[float],
                    boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pool boxes `[batch, n, 4]` at two adjacent scales each; `pools[i]` pools all boxes at scale i."""
    lower = adjacent_scales(boxes, scales)[..., None, None, None]
    pooled = [pool(boxes) for pool in pools]

    def at(level: jax.Array) -> jax.Array:
        return jnp.select([level == i for i in range(len(pooled))], pooled)

    return at(lower), at(lower + 1)


def maxout(features: Sequence[jax.Array]) -> jax.Array:
    """Merge the features of a region at several scales by the element-wise maximum."""
    return reduce(jnp.maximum, features)
