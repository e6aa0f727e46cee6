"""Appendix B: voting, refinement, context and scales, one by one and together, against NumPy; all of Table 9."""


import json
from dataclasses import replace
from pathlib import Path

import detection_references as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_detection_parts import random_boxes

from resjax.console.tables import reproduce
from resjax.data import normalize
from resjax.detection import Detection, Detector, Sampling, Scenery, improvements, scenes
from resjax.detection.annotations import Drawn
from resjax.detection.config import Inference
from resjax.detection.evaluate import Pictures, TrainedDetector, detections, find_all
from resjax.detection.images import Level
from resjax.detection.improvements import (
    adjacent_scales,
    join_context,
    pool_two_scales,
    regressed_boxes,
    vote,
    vote_all,
)
from resjax.detection.initialize import Weights, mean_colour
from resjax.detection.networks import FasterRCNN
from resjax.detection.proposals import Predictions, choose_detections
from resjax.detection.scenes import SIDE, compose_scenes
from resjax.detection.step import draw_onto
from resjax.paper import TABLES
from resjax.paper import detection_tables as tables
from resjax.system.errors import BadInput

CLASSES = 3
SCALES = (0.5, 1.0, 1.5)
GAINS = {"scores": 0.04, "boxes": 0.004, "objectness": 0.01, "deltas": 0.002}  # others: He et al.'s
FAMILIAR = 40.0  # pixels, where objects are small
SIZES = np.array([[48, 64], [64, 96]])  # of the two images of a batch of 64x96


def test_a_vote_by_hand():
    box = jnp.array([0.0, 0, 10, 10])
    boxes = jnp.array([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 20, 10], [0, 0, 21, 10], [50, 50, 60, 60]])
    scores = jnp.array([0.6, 0.3, 0.1, 1.0, 1.0])  # the third overlaps by 1/2 and has a vote, the fourth by 10/21
    assert vote(box, boxes, scores).tolist() == pytest.approx([0, 0, 0.9 * 10 + 0.1 * 20, 0.7 * 10 + 0.3 * 8])
    nothing = jnp.array([3.0, 4, 3, 4])  # no area: it does not even overlap itself
    assert vote(nothing, boxes, scores).tolist() == nothing.tolist()


@pytest.mark.parametrize("seed", range(2))
def test_votes_of_a_class(seed):
    random, rules = np.random.default_rng(seed), Sampling(detections=30, lowest_score=0.1)
    boxes = np.stack([random_boxes(random, 50, side=60.0) for _ in range(CLASSES)], 1)
    scores = random.uniform(0, 1, (50, CLASSES)).astype(np.float32)
    predictions = Predictions(jnp.array(boxes), jnp.array(scores))
    found = jax.jit(lambda p: vote_all(choose_detections(p, rules), p))(predictions)
    wanted = reference.detect(boxes, scores, rules, voting=True)
    assert found.labels.tolist() == [label for _, label, _ in wanted]
    np.testing.assert_allclose(found.scores, [score for score, _, _ in wanted])
    np.testing.assert_allclose(found.boxes, [box for _, _, box in wanted], rtol=1e-5)


def test_a_region_moves_to_the_box_of_its_likeliest_class():
    boxes = jnp.arange(24.0).reshape(1, 2, 3, 4)
    moved = regressed_boxes(Predictions(boxes, jnp.array([[[0.1, 0.2, 0.7], [0.5, 0.4, 0.0]]])))
    assert moved.tolist() == [[[8, 9, 10, 11], [12, 13, 14, 15]]]


def test_the_papers_scales():
    sides = (200, 400, 600, 800, 1000)
    scales = tuple(side / 600 for side in sides)
    boxes = jnp.array([[0.0, 0, side, side] for side in (10, 134, 135, 168, 169, 223, 225, 335, 337, 672, 674, 5000)])
    pairs = [sides[i] for i in adjacent_scales(boxes, scales)]
    #                at 600 pixels, 134.4 is 224 at 1,000, and so on: 168 at 800, 224 at 600, 336 at 400, 672 at 200
    assert pairs == [800, 800, 800, 800, 600, 600, 400, 400, 200, 200, 200, 200]
    random = random_boxes(np.random.default_rng(0), 200, side=1000.0, least=5.0)
    assert adjacent_scales(random, scales).tolist() == [reference.two_scales(box, scales) for box in random]


def test_pooling_from_two_scales():
    random = np.random.default_rng(1)
    boxes = random_boxes(random, 40, side=900.0)[None]
    values = random.normal(size=(3, 40, 2, 2, 5)).astype(np.float32)
    lower, upper = pool_two_scales([lambda boxes, of=of: jnp.array(of)[None] for of in values], SCALES, boxes)
    first = [reference.two_scales(box, SCALES) for box in boxes[0]]
    assert set(first) == {0, 1}
    np.testing.assert_array_equal(lower[0], values[first, range(40)])
    np.testing.assert_array_equal(upper[0], values[np.array(first) + 1, range(40)])


def test_context_is_joined():
    joined = join_context(jnp.arange(12.0).reshape(2, 3, 2))
    assert joined.tolist() == [[[0, 1, 4, 5], [2, 3, 4, 5]], [[6, 7, 10, 11], [8, 9, 10, 11]]]


def detector_of(inference, context):
    """Make a small detector whose heads say something."""
    run = Detection(name="x", initialize_from="weights",
                    detector=Detector(backbone="tiny", anchor_sizes=(16.0, 40.0), rpn_channels=16,
                                      global_context=context),
                    sampling=Sampling(test_candidates=150, test_proposals=12, smallest=4.0, detections=15,
                                      lowest_score=0.1),
                    data=Scenery(shorter_side=64, longer_side=96), inference=inference)
    model, random = FasterRCNN(run.detector, CLASSES), np.random.default_rng(0)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    mean = np.full((1, 1, 3), 128, np.float32)
    shapes = jax.eval_shape(lambda: draw_onto(place, run, CLASSES, mean))  # compiling it takes long

    def draw(path, leaf):
        names, inside = jax.tree_util.keystr(path), np.prod(leaf.shape[:-1])
        gain = next((gain for part, gain in GAINS.items() if part in names), 1.4)
        return jnp.float32(random.normal(0, gain / np.sqrt(inside), leaf.shape) if "kernel" in names else
                           np.full(leaf.shape, "scale" in names or "var" in names))

    return TrainedDetector(run, ("a", "b", "c"), model, jax.tree_util.tree_map_with_path(draw, shapes.variables), mean)


def look(trained, maps, boxes, size):
    """Pool boxes one by one, describe and score them; return boxes [n, classes, 4] and scores [n, classes]."""
    run, params = trained.detection, trained.variables["params"]
    regions = [*boxes, np.array([0, 0, size[1], size[0]])]

    def describe(pooled):
        maps = jnp.array([pooled])
        return np.asarray(trained.model.apply(trained.variables, maps, train=False, method="describe"))[0]

    first = [reference.two_scales(box, run.pyramid, FAMILIAR) if len(maps) > 1 else 0 for box in regions]
    x = np.maximum(*(describe([reference.roi_max_pool(maps[i], [np.float32(box * run.pyramid[i])], 8, 1 / 8)[0]
                               for i, box in zip(levels, regions, strict=True)])
                     for levels in (first, [min(i + 1, len(maps) - 1) for i in first])))
    x = np.concatenate([x[:-1], np.tile(x[-1], (len(boxes), 1))], 1) if run.detector.global_context else x[:-1]
    scores, deltas = (x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])
                      for name in ("scores", "boxes"))
    exponentials = np.exp(scores - scores.max(1, keepdims=True))
    boxes = np.array([[reference.clip(reference.decode(each * run.sampling.deviations, box), *size)
                       for each in row.reshape(CLASSES, 4)] for row, box in zip(deltas, boxes, strict=True)])
    return boxes, (exponentials / exponentials.sum(1, keepdims=True))[:, 1:]


@pytest.mark.parametrize(("inference", "context"), [
    (Inference(box_refinement=True), False), (Inference(box_refinement=True, scales=(32, 64, 96)), True)])
def test_the_whole_is_that_of_its_parts_one_by_one(inference, context, monkeypatch):
    monkeypatch.setattr(improvements, "FAMILIAR", FAMILIAR)
    trained = detector_of(inference, context)
    random, run = np.random.default_rng(2), trained.detection
    pyramid = []
    for scale in run.pyramid:
        height, width = int(64 * scale), int(96 * scale)
        images = random.integers(0, 255, (2, height, width, 3)).astype(np.uint8)
        images[0, int(48 * scale):] = images[0, :, int(64 * scale):] = 128
        pyramid.append(Level(images, jnp.float32(SIZES * scale)))
    found = detections(trained.model, run, trained.variables, trained.mean, tuple(pyramid))
    features = jax.jit(lambda variables, x: trained.model.apply(variables, x, method="features"))
    maps = [np.asarray(features(trained.variables, normalize(level.images, trained.mean, ()))) for level in pyramid]
    proposals = proposals_of(trained, maps[run.pyramid.index(1.0)])
    for i, size in enumerate(SIZES):
        boxes, scores = look(trained, [each[i] for each in maps], proposals[i], size)
        moved = boxes[range(len(boxes)), scores.argmax(1)]
        again = look(trained, [each[i] for each in maps], moved, size)
        wanted = reference.detect(*(np.concatenate(pair) for pair in zip((boxes, scores), again, strict=True)),
                                  run.sampling, voting=True)
        valid = np.asarray(found.valid[i])
        assert valid.sum() == len(wanted) > 3
        assert found.labels[i][valid].tolist() == [label for _, label, _ in wanted]
        np.testing.assert_allclose(found.scores[i][valid], [score for score, _, _ in wanted], rtol=1e-3)
        np.testing.assert_allclose(found.boxes[i][valid], [box for _, _, box in wanted], atol=2e-2)


def proposals_of(trained, maps):
    """Propose in both images, box after box."""
    rules, detector = trained.detection.sampling, trained.detection.detector
    rpn = trained.model.bind(trained.variables).rpn
    objectness, deltas = map(np.asarray, rpn(jnp.array(maps)))
    anchors = reference.anchors(8, 12, 8, detector.anchor_sizes, detector.anchor_ratios)
    chosen = []
    for i, size in enumerate(SIZES):
        best = np.argsort(-objectness[i], kind="stable")[:rules.test_candidates]
        boxes = np.array([reference.clip(reference.decode(deltas[i, j], anchors[j]), *size) for j in best])
        large = (boxes[:, 2:] - boxes[:, :2]).min(1) >= rules.smallest
        kept = reference.suppress(boxes, np.where(large, objectness[i][best], -np.inf), rules.suppression)
        chosen.append(boxes[kept[:rules.test_proposals]])
    return chosen


def test_pictures_of_many_sizes_compile_once():
    trained = detector_of(Inference(box_refinement=True, scales=(64, 80)), context=True)
    shapes = [(70, 99), (64, 96), (50, 77), (31, 46)]
    images = tuple(np.full((*shape, 3), 90, np.uint8) for shape in shapes)
    pictures = Pictures(trained.classes, tuple(Drawn("x", *shape).record() for shape in shapes), images)
    detections.clear_cache()
    found = find_all(trained, pictures, 2)
    assert detections._cache_size() == 1
    for each, (height, width) in zip(found, shapes, strict=True):
        assert len(each.boxes)
        assert (each.boxes <= np.array([width, height, width, height]) + 1e-3).all()
        assert (each.boxes >= 0).all()


def test_wrong_scales():
    with pytest.raises(BadInput, match="it must be empty, or have several sides"):
        Inference(scales=(600,))
    with pytest.raises(BadInput, match="it must be empty, or have several sides"):
        Inference(scales=(600, 400))
    with pytest.raises(BadInput, match=r"they must include data\.shorter-side 600"):
        Detection(name="x", initialize_from="weights", inference=Inference(scales=(400, 800)))
    assert Detection(name="x", initialize_from="weights", inference=Inference(scales=(300, 600))).pyramid == (0.5, 1.0)


RUNS = """
from resjax.detection import Detection, Detector, Inference, Sampling, Scenery
from resjax.detection.initialize import Weights, mean_colour
from resjax.experiment import Optimizer

EXPERIMENTS = {"resnet101_coco_context": Detection(
    name="tiny", detector=Detector(backbone="tiny", anchor_sizes=(24.0,), anchor_ratios=(1.0,), rpn_channels=8,
                                   pooling="align", global_context=True),
    inference=Inference(box_refinement=True),
    sampling=Sampling(anchors=16, smallest=4.0, train_candidates=30, train_proposals=10, test_candidates=30,
                      test_proposals=8, rois=8, detections=10),
    data=Scenery(source="coco:PATH", train=("train",), test=("val",), shorter_side=64, longer_side=64, flip=False),
    optimizer=Optimizer(learning_rate=0.001, decay_steps=(100,)), steps=2, batch_size=1, log_steps=1,
    evaluate_steps=2, initialize_from="weights")}
"""


def write_coco(root):
    """Write the scenes of each split in COCO's layout."""
    (root / "annotations").mkdir(parents=True)
    for split, name in (("train", "train"), ("test", "val")):
        (root / name).mkdir()
        digits = compose_scenes(split)
        objects = [{"image_id": i, "bbox": [x, y, right - x, below - y], "category_id": int(label), "iscrowd": 0,
                    "area": (right - x) * (below - y)}
                   for i, record in enumerate(digits.records)
                   for (x, y, right, below), label in zip(record.boxes.tolist(), record.labels, strict=True)]
        for i, pixels in enumerate(digits.images):
            Image.fromarray(pixels).save(root / name / f"{i}.png")
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps({
            "images": [{"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE}
                       for i in range(len(digits.images))],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(digits.classes)],
            "annotations": [{"id": i, **each} for i, each in enumerate(objects)]}))


@pytest.mark.usefixtures("one_device")
def test_table_9_of_three_scenes(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    monkeypatch.setattr(scenes, "SCENES", {"train": 3, "test": 3})
    monkeypatch.setattr("resjax.detection.train.initial_weights", lambda run, images: Weights(
        mean_colour(images), {}, {}))  # those drawn, as if they had been loaded
    monkeypatch.chdir(tmp_path)
    Path("weights").touch()
    write_coco(tmp_path / "coco")
    rows = tuple(row._replace(how=replace(row.how, scales=row.how.scales and (48, 64)) if row.how else None)
                 for row in tables.TABLE9.rows)
    monkeypatch.setitem(TABLES, "table9", tables.TABLE9._replace(rows=rows))
    (tmp_path / "detection.py").write_text(RUNS)
    again = {"only": "resnet101_coco_context", "data": f"coco:{tmp_path / 'coco'}", "runs": tmp_path / "runs",
             "experiments": tmp_path}
    reproduce("table9", **again)
    text = (tmp_path / "runs" / "table9.md").read_text()
    assert text in capsys.readouterr().out
    for row, file in {"+ global context": "result", "+ multi-scale testing": "measured-refined_48_64"}.items():
        found = json.loads((tmp_path / "runs" / "resnet101_coco_context" / "seed0" / f"{file}.json").read_text())
        half, average = (found[measure.key] for measure in tables.COCO)
        paper = next(each.published for each in rows if each.title == row)
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[4:6] == [f"{paper[0]:.1f}", f"{half:.1f}"]
        assert cells[9:11] == [f"{paper[1]:.1f}", f"{average:.1f}"]
    assert "| + box refinement |" not in text  # it is another experiment's
    monkeypatch.setattr("resjax.detection.detectors.measure_detector", None)  # nothing is measured again
    reproduce("table9", **again)
