"""Average precision: sets whose answer is known by hand, and COCO's own code."""

import contextlib
import io
import json

import numpy as np
import pytest
from detection_references import THRESHOLDS, coco_average

from resjax.detection.annotations import Annotated
from resjax.detection.average_precision import Detected, average_precisions, coco_precision, mean_average_precision

A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
NOWHERE = (60, 60, 70, 70)


def image(*objects, difficult=(), crowd=()):
    """Annotate boxes, or boxes with their class."""
    objects = [(box, 1) if np.ndim(box[0]) == 0 else box for box in objects]
    boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
    flags = [np.isin(np.arange(len(objects)), part) for part in (difficult, crowd)]
    return Annotated("image", 100, 100, boxes, np.array([label for _, label in objects], np.int32), *flags,
                     (boxes[:, 2:] - boxes[:, :2]).prod(1))


def found(*detections):
    """Detect (box, score), or (box, score, class)."""
    full = [(*detection, 1)[:3] for detection in detections]
    return Detected(np.array([box for box, *_ in full], np.float32).reshape(-1, 4),
                    np.array([score for _, score, _ in full]), np.array([label for *_, label in full], int))


def precisions(record, detected, classes=1):
    return [average_precisions([record], [detected], classes, rule).tolist() for rule in ("area", "11-point")]


@pytest.mark.parametrize(("detected", "area", "eleven"), [
    ([], 0, 0),
    ([(A, 0.9), (B, 0.8)], 100, 100),
    ([(A, 0.9)], 50, 100 * 6 / 11),  # recall 0 to 0.5 at precision 1
    ([(NOWHERE, 0.9), (A, 0.8), (B, 0.7)], 100 * 2 / 3, 100 * 2 / 3),
    ([(A, 0.9), (NOWHERE, 0.8), (B, 0.7)], 100 * (0.5 + 0.5 * 2 / 3), 100 * (6 + 5 * 2 / 3) / 11),
    ([(A, 0.9), (A, 0.8), (B, 0.7)], 100 * (0.5 + 0.5 * 2 / 3), 100 * (6 + 5 * 2 / 3) / 11),  # a duplicate is wrong
    ([(NOWHERE, 0.5), (A, 0.5)], 25, 100 * 6 / 22),  # of equal scores, the first comes first
    ([((0, 0, 10, 5), 0.9)], 50, 100 * 6 / 11),  # an overlap of just 0.5 is enough
    ([((0, 0, 10, 4.9), 0.9)], 0, 0),
])
def test_two_objects(detected, area, eleven):
    (by_area,), (by_points,) = precisions(image(A, B), found(*detected))
    assert by_area == pytest.approx(area)
    assert by_points == pytest.approx(eleven)


def test_difficult_objects_count_neither_way():
    record = image(A, B, difficult=[1])
    for detected in ([(A, 0.8)], [(B, 0.9), (A, 0.8)], [(B, 0.9), (B, 0.85), (A, 0.8)]):
        assert precisions(record, found(*detected)) == [[100], [100]]
    assert np.isnan(average_precisions([image(A, difficult=[0])], [found((A, 0.5))], 1)).all()


def test_crowds_swallow_detections():
    record = image(A, (20, 0, 60, 40), crowd=[1])
    assert precisions(record, found((A, 0.8), ((20, 0, 60, 39), 0.9))) == [[100], [100]]


def test_a_detection_is_judged_by_the_object_that_it_overlaps_most():
    near = (3, 0, 13, 10)  # A's neighbour
    (by_area,), _ = precisions(image(A, near), found((A, 0.9), ((1, 0, 11, 10), 0.8), (near, 0.7)))
    assert by_area == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))  # the second is A's again


def test_every_class_has_its_own_precision():
    record = image((A, 1), (B, 2))
    by_area, _ = precisions(record, found((A, 0.9, 1), (B, 0.8, 1), (B, 0.7, 2), (C, 0.6, 3)), classes=4)
    assert by_area[:2] == [100, 100]
    assert np.isnan(by_area[2:]).all()
    assert mean_average_precision(np.array(by_area)) == 100
    assert np.isnan(mean_average_precision(np.array([np.nan])))


def test_images_are_ranked_together():
    records, detected = [image(A), image(A)], [found((NOWHERE, 0.9), (A, 0.6)), found((A, 0.8))]
    (by_area,) = average_precisions(records, detected, 1)
    assert by_area == pytest.approx(100 * 2 / 3)


def test_no_image_at_all():
    assert np.isnan(average_precisions([], [], 2)).all()


def test_cocos_measure_of_known_sets():
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    record = image(A, B)
    assert coco_precision([record], [found((A, 0.9), (B, 0.8))], ("x",))[:2] == pytest.approx((100, 100))
    third = coco_precision([record], [found(((0, 0, 10, 7), 0.9), ((20, 0, 30, 7), 0.8))], ("x",))  # 0.7: five of ten
    assert third[:3] == pytest.approx((50, 100, 0))
    assert coco_precision([record], [found()], ("x",)).average == 0
    swallowed = image(A, (20, 0, 60, 40), crowd=[1])
    detected = found((A, 0.8), ((21, 1, 29, 9), 0.9), ((40, 20, 50, 30), 0.9))
    assert coco_precision([swallowed], [detected], ("x",)).average == pytest.approx(100)


@pytest.mark.parametrize(("objects", "detections"), [
    ([A, B, (0, 0, 50, 50)], []), ([], [(A, 0.9)]), ([], []), ([(0, 0, 97, 97)], []), ([A], [(B, 0.5)])])
def test_no_objects_and_no_detections_as_pycocotools_has_it(tmp_path, objects, detections):
    """Of the same files: what it gives as -1 is no number, and what no detection meets is 0."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    entries = [{"id": i, "image_id": 1, "category_id": 1, "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]],
                "area": (box[2] - box[0]) * (box[3] - box[1]), "iscrowd": 0} for i, box in enumerate(objects, 1)]
    (tmp_path / "truth.json").write_text(json.dumps({
        "info": {}, "images": [{"id": 1}], "categories": [{"id": 1, "name": "x"}], "annotations": entries}))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "truth.json"))
        rows = [[1, *box[:2], box[2] - box[0], box[3] - box[1], score, 1] for box, score in detections]
        results = truth.loadRes(np.array(rows or [[1, 0, 0, 1, 1, 0, 1]], float))
        if not rows:  # it cannot load none
            results.dataset["annotations"] = []
            results.createIndex()
        judge = COCOeval(truth, results, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    wanted = [np.nan if value == -1 else 100 * value for value in judge.stats[:6]]
    assert coco_precision([image(*objects)], [found(*detections)], ("x",)) == pytest.approx(wanted, nan_ok=True)
    assert np.isnan(wanted[0]) == (not objects)


def random_set(seed, crowd=0.0, side=40):
    random = np.random.default_rng(seed)

    def boxes(count):
        corners = random.uniform(0, 2 * side, (count, 2))
        return np.concatenate([corners, corners + random.uniform(8, side, (count, 2))], 1)

    records, detections = [], []
    for _ in range(6):
        mine = boxes(random.integers(1, 6))
        labels = random.integers(1, 4, len(mine))
        crowds, difficult = (np.flatnonzero(random.random(len(mine)) < share) for share in (crowd, crowd / 2))
        records.append(image(*zip(mine, labels, strict=True), crowd=crowds, difficult=difficult))
        near = mine + random.uniform(-3, 3, mine.shape)
        every = np.concatenate([near, boxes(3)])
        names = np.concatenate([labels, random.integers(1, 4, 3)])
        detections.append(found(*zip(every, random.permutation(len(every)) / 10 + random.random(len(every)) / 50, names,
                                     strict=True)))
    return records, detections


@pytest.mark.parametrize("seed", range(50))
def test_cocos_measure_of_random_sets(seed):
    """Crowds, difficult objects, and boxes of the three sizes; by its own code, and written once more in NumPy."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    records, detections = random_set(seed, crowd=0.2, side=140)
    wanted = [coco_average(records, detections, 3, *which) for which in
              [("all", THRESHOLDS), ("all", [0.5]), ("all", [0.75]),
               *((size, THRESHOLDS) for size in ("small", "medium", "large"))]]
    assert coco_precision(records, detections, ("x", "y", "z")) == pytest.approx(wanted, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("seed", range(10))
def test_cocos_measure_at_one_half_is_near_that_by_area(seed):
    """The two differ in how recall is sampled (101 points) and in which object a detection is matched with."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    records, detections = random_set(seed)
    ours = mean_average_precision(average_precisions(records, detections, 3))
    assert coco_precision(records, detections, ("x", "y", "z")).at_half == pytest.approx(ours, abs=3)
