"""Boxes, anchors, suppression, pooling, losses against NumPy, one by one."""

import detection_references as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax.detection.boxes import (
    anchor_grid,
    anchor_shapes,
    apply_deltas,
    box_deltas,
    clip,
    inside,
    intersection_over_union,
)
from resjax.detection.boxes import suppress as unjitted
from resjax.detection.pooling import roi_align, roi_max_pool
from resjax.detection.targets import box_loss, class_loss, objectness_loss, smooth_l1


def random_boxes(random, count, side=100.0, least=1.0):
    corners = random.uniform(0, side - least, (count, 2))
    return np.concatenate([corners, corners + random.uniform(least, side / 2, (count, 2))], 1).astype(np.float32)


def test_overlaps():
    random = np.random.default_rng(0)
    a, b = random_boxes(random, 20), random_boxes(random, 30)
    b[0], b[1] = a[0], (5, 5, 5, 5)
    wanted = [[reference.overlap(x, y) for y in b] for x in a]
    np.testing.assert_allclose(intersection_over_union(a, b), wanted, atol=1e-5)
    assert intersection_over_union(a, b)[0, 0] == 1
    ours = np.asarray(jax.jit(intersection_over_union)(a, a))
    assert np.array_equal(ours, ours.T)


def test_known_overlaps():
    boxes = jnp.array([[0.0, 0, 10, 10]])
    others = jnp.array([[0.0, 0, 10, 5], [5, 5, 15, 15], [10, 0, 20, 10], [20, 20, 10, 10]])
    np.testing.assert_allclose(intersection_over_union(boxes, others)[0], [0.5, 25 / 175, 0, 0], rtol=1e-6)


def test_boxes_as_deltas():
    random = np.random.default_rng(1)
    boxes, anchors = random_boxes(random, 50), random_boxes(random, 50)
    deltas = box_deltas(boxes, anchors)
    np.testing.assert_allclose(deltas, [reference.encode(*pair) for pair in zip(boxes, anchors, strict=True)],
                               rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(apply_deltas(deltas, anchors), boxes, rtol=1e-4, atol=1e-4)
    wild = random.normal(0, 3, (50, 4)).astype(np.float32)
    wild[0, 2] = 1e4
    np.testing.assert_allclose(apply_deltas(wild, anchors),
                               [reference.decode(*pair) for pair in zip(wild, anchors, strict=True)], rtol=1e-4)


def test_borders():
    boxes = jnp.array([[-1.0, 2, 5, 30], [0, 0, 40, 20], [39, 19, 41, 21]])
    size = jnp.array([20.0, 40.0])  # height, width
    assert clip(boxes, size).tolist() == [[0, 2, 5, 20], [0, 0, 40, 20], [39, 19, 40, 20]]
    assert inside(boxes, size).tolist() == [False, True, False]


def test_anchors():
    shapes = anchor_shapes((128.0, 256.0, 512.0), (0.5, 1.0, 2.0))
    np.testing.assert_allclose(shapes.prod(1), np.repeat([128.0**2, 256.0**2, 512.0**2], 3), rtol=1e-5)
    np.testing.assert_allclose(anchor_grid(3, 5, 16, shapes),
                               reference.anchors(3, 5, 16, (128, 256, 512), (0.5, 1, 2)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_suppression_is_that_of_one_by_one(seed):
    random = np.random.default_rng(seed)
    boxes, scores = random_boxes(random, 150), random.normal(size=150).astype(np.float32)
    scores[random.integers(150, size=20)] = scores[0]  # ties: the earlier first
    scores[random.integers(150, size=10)] = -np.inf
    suppress = jax.jit(unjitted, static_argnums=(2, 3))
    for threshold in (0.3, 0.7):
        wanted = reference.suppress(boxes, scores, threshold)
        kept, filled = suppress(jnp.array(boxes), jnp.array(scores), threshold, 200)
        assert kept[filled].tolist() == wanted
        kept, filled = suppress(jnp.array(boxes), jnp.array(scores), threshold, 12)
        assert kept.tolist() == wanted[:12]
        assert filled.all()


def test_a_chain_is_settled_link_by_link():
    boxes = jnp.stack([jnp.array([10.0 * i, 0, 10 * i + 30, 10]) for i in range(40)])  # each too close to the next
    kept, filled = unjitted(boxes, -jnp.arange(40.0), 0.45, 40)
    assert kept[filled].tolist() == list(range(0, 40, 2))


def test_nothing_to_suppress():
    _, filled = unjitted(jnp.zeros((3, 4)), jnp.full(3, -jnp.inf), 0.5, 3)
    assert not filled.any()


@pytest.mark.parametrize(("height", "width", "size", "scale"), [(9, 14, 7, 1 / 16), (5, 30, 2, 1 / 4),
                                                                (4, 4, 7, 1 / 16), (20, 20, 1, 1 / 8)])
def test_max_pooling(height, width, size, scale):
    random = np.random.default_rng(height)
    limits = np.array([width, height, width, height]) / scale
    boxes = np.sort(random.uniform(0, 1, (25, 2, 2)), 1).reshape(25, 4) * limits
    boxes = np.concatenate([boxes, [[0, 0, *limits[:2]], [3, 3, 4, 4], [*limits[:2] - 1, *limits[:2]]]])
    boxes, pool = boxes.astype(np.float32), jax.jit(roi_max_pool, static_argnums=(2, 3))
    features = random.normal(size=(height, width, 3)).astype(np.float32)
    for maps in (features, np.maximum(np.round(features), 0)):  # the second has many equal values
        np.testing.assert_array_equal(pool(maps, boxes, size, scale),
                                      reference.roi_max_pool(maps, boxes, size, scale))


@pytest.mark.parametrize("pool", [roi_max_pool, roi_align])
def test_gradient_of_pooling_by_finite_differences(pool):
    random = np.random.default_rng(3)
    features = random.permutation(7 * 9 * 2).reshape(7, 9, 2).astype(np.float32) / 10  # far apart: no change of maximum
    boxes = jnp.array([[0, 0, 140, 110], [20, 30, 90, 60], [130, 100, 144, 112]], jnp.float32)
    weights = random.normal(size=(3, 4, 4, 2)).astype(np.float32)

    def total(features):
        return (pool(features, boxes, 4, 1 / 16) * weights).sum()

    step = 0.03
    moves = step * np.eye(features.size, dtype=np.float32).reshape(-1, *features.shape)
    differences = jax.jit(jax.vmap(lambda move: (total(features + move) - total(features - move)) / (2 * step)))(moves)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(features).reshape(-1), differences, atol=2e-3)


def test_the_first_of_equal_maxima_has_the_gradient():
    boxes = jnp.array([[0.0, 0, 3, 3]])
    gradient = jax.jit(jax.grad(lambda x: roi_max_pool(x, boxes, 2, 1.0).sum()))(jnp.zeros((4, 4, 1)))
    assert gradient[..., 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_align():
    random = np.random.default_rng(4)
    features = random.normal(size=(9, 12, 3)).astype(np.float32)
    boxes = np.sort(random.uniform(0, 1, (20, 2, 2)), 1).reshape(20, 4).astype(np.float32) * [192, 144, 192, 144]
    np.testing.assert_allclose(roi_align(features, boxes.astype(np.float32), 5, 1 / 16),
                               reference.roi_align(features, boxes, 5, 1 / 16), atol=1e-5)


def test_losses():
    d = np.linspace(-3, 3, 41).astype(np.float32)
    for beta in (1.0, 1 / 9):
        np.testing.assert_allclose(smooth_l1(d, beta), [reference.smooth_l1(x, beta) for x in d], rtol=1e-5, atol=1e-6)
    weights = jnp.array([1.0, 0.0, 0.5])
    boxes = jnp.array([[2.0, 0, 0, 0], [9, 9, 9, 9], [0.5, 0, 0, 0]])
    assert float(box_loss(boxes, jnp.zeros((3, 4)), weights, 1.0)) == pytest.approx(1.5 + 0.5 * 0.125)
    logits = np.array([[1.0, 2, -1], [0, 0, 0], [3, -3, 0.5]], np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = -np.log(probabilities[0, 2]) - 0.5 * np.log(probabilities[2, 0])
    assert float(class_loss(jnp.array(logits), jnp.array([2, 1, 0]), weights)) == pytest.approx(wanted, rel=1e-5)
    sigmoid = 1 / (1 + np.exp(-logits[:, 0]))
    wanted = -np.log(sigmoid[0]) - 0.5 * np.log(1 - sigmoid[2])
    assert float(objectness_loss(jnp.array(logits[:, 0]), jnp.array([True, True, False]), weights)) == pytest.approx(
        wanted, rel=1e-5)
