"""What the network learns: which anchors and regions, by NumPy one by one, and drawn as the key says."""

from dataclasses import replace
from functools import partial

import detection_references as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax.detection.config import Sampling
from resjax.detection.proposals import choose_detections, decode_predictions, propose
from resjax.detection.targets import Objects, anchor_targets, region_targets, sample

RULES = Sampling(anchors=40, rois=24)
SIZE = jnp.array([90.0, 110.0])


def scene(seed):
    random = np.random.default_rng(seed)
    anchors = reference.anchors(6, 7, 16, (24, 48), (0.5, 1, 2)).astype(np.float32)
    boxes = np.zeros((6, 4), np.float32)
    boxes[:4, :2] = random.uniform(0, 50, (4, 2))
    boxes[:4, 2:] = boxes[:4, :2] + random.uniform(12, 40, (4, 2))
    valid = np.arange(6) < 4
    labels, none = jnp.array([3, 1, 2, 2, 0, 0]), jnp.zeros(6, bool)
    return random, anchors, Objects(jnp.array(boxes), labels, jnp.array(valid), none)


@pytest.mark.parametrize("seed", range(4))
def test_anchors_are_assigned_as_one_by_one(seed):
    _, anchors, objects = scene(seed)
    everything = replace(RULES, anchors=2 * len(anchors))  # all count, so that the assignment itself is seen
    found = jax.jit(partial(anchor_targets, rules=everything))(jax.random.key(seed), anchors, objects, SIZE)
    boxes = np.asarray(objects.boxes)[:4]
    table = np.array([[reference.overlap(a, b) for b in boxes] for a in anchors])
    inside = (anchors.min(1) >= 0) & (anchors[:, 2] <= 110) & (anchors[:, 3] <= 90)
    table[~inside] = -1
    best = table.max(1)
    positive = (best >= 0.7) | np.any(np.isclose(table, table.max(0), atol=1e-6) & (table > 0), 1)
    negative = inside & ~positive & (best < 0.3)
    assert positive.any()
    assert np.array_equal(found.positive, positive)
    assert np.array_equal(found.sampled, positive | negative)
    for i in np.flatnonzero(positive):
        np.testing.assert_allclose(found.deltas[i], reference.encode(boxes[table[i].argmax()], anchors[i]), atol=1e-5)
    assert np.isfinite(found.deltas).all()


def test_half_of_the_anchors_at_most_are_positive():
    _, anchors, objects = scene(0)
    found = anchor_targets(jax.random.key(0), anchors, objects, SIZE, replace(RULES, anchors=4, anchor_positive=0.35))
    assert found.sampled.sum() == 4
    assert found.positive.sum() == 2
    assert not (found.positive & ~found.sampled).any()


def test_an_image_without_objects_has_only_background():
    _, anchors, objects = scene(0)
    empty = objects._replace(valid=jnp.zeros(6, bool))
    found = anchor_targets(jax.random.key(0), anchors, empty, SIZE, RULES)
    assert not found.positive.any()
    assert found.sampled.sum() == 40
    regions = region_targets(jax.random.key(0), anchors[:30], jnp.ones(30, bool), empty, RULES)
    assert not regions.labels.any()
    assert np.isfinite(regions.deltas).all()


def test_an_object_without_area_teaches_nothing():
    """Where it comes first, all anchors that overlap nothing are nearest to it: log 0 made the loss NaN."""
    _, anchors, objects = scene(0)
    flat = objects._replace(boxes=objects.boxes.at[0].set(jnp.array([0.0, 10, 0, 30])))
    found = anchor_targets(jax.random.key(0), anchors, flat, SIZE, RULES)
    assert found.positive.any()
    assert np.isfinite(found.deltas).all()
    others = region_targets(jax.random.key(0), anchors[:30], jnp.ones(30, bool), flat, RULES)
    assert np.isfinite(others.deltas).all()


def test_a_tiny_object_leaves_background():
    """If its largest overlap is below the tolerance of ties, anchors that overlap nothing are not nearest to it."""
    _, anchors, objects = scene(0)
    tiny = objects._replace(boxes=jnp.full((6, 4), 40.0).at[:, 2:].add(0.01), valid=jnp.arange(6) == 0)
    found = anchor_targets(jax.random.key(0), anchors, tiny, SIZE, RULES)
    assert (found.sampled & ~found.positive).sum() == RULES.anchors
    assert np.abs(found.deltas).max() < 5


def test_what_lies_within_a_crowd_is_no_background():
    _, anchors, objects = scene(0)
    crowd = np.array([0, 0, 60, 90], np.float32)
    crowded = objects._replace(boxes=objects.boxes.at[5].set(crowd), crowd=jnp.arange(6) == 5)
    within = np.array([reference.overlap(box, (*np.maximum(box[:2], crowd[:2]), *np.minimum(box[2:], crowd[2:])))
                       * (np.minimum(box[2:], crowd[2:]) > np.maximum(box[:2], crowd[:2])).all() for box in anchors])
    everything = replace(RULES, anchors=2 * len(anchors))
    before, now = (anchor_targets(jax.random.key(0), anchors, each, SIZE, everything) for each in (objects, crowded))
    assert np.array_equal(now.positive, before.positive)
    assert np.array_equal(now.sampled, before.sampled & (before.positive | (within < 0.7)))
    assert (before.sampled & ~now.sampled).sum() > 5
    valid = jnp.ones(len(anchors), bool)
    regions = region_targets(jax.random.key(0), anchors, valid, crowded, replace(RULES, rois=2 * len(anchors)))
    background = {tuple(box) for box in np.asarray(regions.boxes)[np.asarray(regions.valid & (regions.labels == 0))]}
    assert background
    assert not background & {tuple(box) for box, share in zip(anchors, within, strict=True) if share >= 0.7}


def test_drawing_is_uniform_and_decided_by_the_key():
    candidates = jnp.arange(20) % 2 == 0
    keys = jax.random.split(jax.random.key(0), 2_000)
    drawn = jax.vmap(lambda key: sample(key, candidates, 3))(keys)
    assert (drawn.sum(1) == 3).all()
    share = np.asarray(drawn.mean(0))
    assert not share[1::2].any()
    assert np.abs(share[::2] - 0.3).max() < 0.05
    assert np.array_equal(sample(keys[0], candidates, 3), drawn[0])
    assert np.array_equal(sample(keys[0], candidates, 99), candidates)


@pytest.mark.parametrize("seed", range(4))
def test_regions_are_drawn_by_the_rules(seed):
    random, _, objects = scene(seed)
    boxes = np.asarray(objects.boxes)[:4]
    near = boxes[random.integers(4, size=40)] + random.uniform(-6, 6, (40, 4))
    corners = random.uniform(0, 60, (60, 2))
    far = np.concatenate([corners, corners + random.uniform(5, 40, (60, 2))], 1)
    proposals, valid = np.concatenate([near, far]).astype(np.float32), random.random(100) < 0.9
    found = jax.jit(partial(region_targets, rules=RULES))(jax.random.key(seed), proposals, valid, objects)
    known = {tuple(box) for box in np.concatenate([proposals[valid], boxes])}
    assert found.valid.all()
    assert (found.labels > 0).sum() == 6  # a quarter
    for box, label, deltas in zip(np.asarray(found.boxes), found.labels, found.deltas, strict=True):
        assert tuple(box) in known
        overlaps = [reference.overlap(box, other) for other in boxes]
        assert label == (objects.labels[int(np.argmax(overlaps))] if max(overlaps) >= 0.5 else 0)
        wanted = np.array(reference.encode(boxes[int(np.argmax(overlaps))], box)) / RULES.deviations
        np.testing.assert_allclose(deltas, wanted if label else np.zeros(4), atol=2e-4)


def test_places_without_a_region_do_not_count():
    _, _, objects = scene(0)
    found = region_targets(jax.random.key(0), jnp.zeros((3, 4)), jnp.zeros(3, bool), objects, replace(RULES, rois=16))
    assert found.valid.sum() == 4  # the objects themselves, which are a quarter
    assert np.isfinite(found.deltas).all()
    hard = replace(RULES, background=(0.1, 0.5))  # the first form: nothing that overlaps no object
    far = jnp.array([[95.0, 80, 105, 88]])
    assert region_targets(jax.random.key(0), far, jnp.ones(1, bool), objects, RULES).valid.sum() == 5
    assert region_targets(jax.random.key(0), far, jnp.ones(1, bool), objects, hard).valid.sum() == 4


@pytest.mark.parametrize("train", [False, True])
def test_proposals_are_those_of_one_by_one(train):
    random, anchors, _ = scene(5)
    rules = replace(RULES, train_candidates=120, test_candidates=80, train_proposals=50, test_proposals=20)
    scores, deltas = random.normal(size=len(anchors)), random.normal(0, 0.5, (len(anchors), 4))
    boxes, valid = jax.jit(partial(propose, rules=rules, train=train))(
        jnp.float32(scores), jnp.float32(deltas), anchors, SIZE)
    best = np.argsort(-scores)[:120 if train else 80]
    candidates = np.array([reference.clip(reference.decode(deltas[i], anchors[i]), 90, 110) for i in best])
    large = (candidates[:, 2:] - candidates[:, :2]).min(1) >= 16
    kept = reference.suppress(candidates, np.where(large, scores[best], -np.inf), 0.7)[:50 if train else 20]
    assert valid.sum() == len(kept)
    np.testing.assert_allclose(boxes[:len(kept)], candidates[kept], atol=1e-3)


def test_empty_boxes_are_no_proposals():
    beyond = jnp.array([[200.0, 10, 260, 60]])  # clipped to a line at the image's edge
    _, valid = propose(jnp.ones(1), jnp.zeros((1, 4)), beyond, SIZE, replace(RULES, smallest=0.0), train=True)
    assert not valid.any()


def test_detections_are_those_of_one_by_one():
    random = np.random.default_rng(0)
    proposals = random.uniform(0, 60, (30, 4)).astype(np.float32)
    proposals[:, 2:] = proposals[:, :2] + random.uniform(10, 40, (30, 2))
    logits, deltas = random.normal(0, 2, (30, 4)), random.normal(0, 1, (30, 3, 4))
    valid = np.arange(30) < 27
    rules = replace(RULES, detections=15)
    found = jax.jit(lambda *said: choose_detections(decode_predictions(*said, rules), rules))(
        jnp.float32(logits), jnp.float32(deltas), proposals, valid, SIZE)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = []
    for label in (1, 2, 3):
        moved = (reference.decode(deltas[i, label - 1] * RULES.deviations, proposals[i]) for i in range(30))
        boxes = np.array([reference.clip(box, 90, 110) for box in moved])
        scores = np.where(valid & (probabilities[:, label] > 0.01), probabilities[:, label], -np.inf)
        wanted += [(scores[i], label, *boxes[i]) for i in reference.suppress(boxes, scores, 0.3)]
    wanted = np.array(sorted(wanted, reverse=True)[:15])
    assert found.valid.all()
    np.testing.assert_allclose(found.scores, wanted[:, 0], rtol=1e-5)
    assert np.array_equal(found.labels, wanted[:, 1])
    np.testing.assert_allclose(found.boxes, wanted[:, 2:], atol=1e-3)
