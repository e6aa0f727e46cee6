"""Detections as COCO's results, with the numbers of the file that they answer to, and as a table."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from resjax import BadInput
from resjax.detection.average_precision import Found
from resjax.detection.detections import write_detections

IMAGES, CLASSES = (Path("val/000007.jpg"), Path("val/b.jpg")), ("cat", "dog")
FOUND = (Found(np.array([[1.0, 2.0, 11.5, 22.0]]), np.array([0.9]), np.array([2])),
         Found(np.array([[0.0, 0.0, 5.0, 6.0], [3.0, 4.0, 8.0, 9.0]]), np.array([0.8, 0.25]), np.array([1, 2])))


def annotations(folder, **changes):
    content = {"images": [{"id": 41, "file_name": "b.jpg", "height": 9, "width": 9},
                          {"id": 7, "file_name": "000007.jpg", "height": 30, "width": 20}],
               "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
               "annotations": [{"image_id": 7, "category_id": 18, "bbox": [1, 2, 10, 20], "id": 1, "area": 200,
                                "iscrowd": 0}]} | changes
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def test_results_carry_the_numbers_of_the_annotations(tmp_path):
    write_detections(tmp_path / "out.json", IMAGES, FOUND, CLASSES, annotations(tmp_path))
    assert json.loads((tmp_path / "out.json").read_text()) == [
        {"image_id": 7, "category_id": 18, "bbox": [1.0, 2.0, 10.5, 20.0], "score": 0.9},
        {"image_id": 41, "category_id": 17, "bbox": [0.0, 0.0, 5.0, 6.0], "score": 0.8},
        {"image_id": 41, "category_id": 18, "bbox": [3.0, 4.0, 5.0, 5.0], "score": 0.25}]


def test_cocos_own_tool_reads_them(tmp_path):
    tool = pytest.importorskip("pycocotools.coco", reason="pip install -e '.[coco]'")
    write_detections(tmp_path / "out.json", IMAGES, FOUND, CLASSES, annotations(tmp_path))
    found = tool.COCO(str(annotations(tmp_path))).loadRes(str(tmp_path / "out.json"))
    assert len(found.anns) == 3


def test_without_annotations_images_and_classes_count_from_1(tmp_path):
    write_detections(tmp_path / "out.json", IMAGES, FOUND, CLASSES)
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(entry["image_id"], entry["category_id"]) for entry in found] == [(1, 2), (2, 1), (2, 2)]
    nothing = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    write_detections(tmp_path / "none.json", IMAGES[:1], [nothing], CLASSES)
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_a_table(tmp_path):
    write_detections(tmp_path / "out.csv", IMAGES, FOUND, CLASSES)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"file": "val/000007.jpg", "class": "dog", "score": "0.90000", "x1": "1.00", "y1": "2.00",
                       "x2": "11.50", "y2": "22.00"}
    assert len(rows) == 3


def test_what_has_no_number_is_named_and_nothing_written(tmp_path):
    images = [{"id": 7, "file_name": "000007.jpg", "height": 30, "width": 20}]
    for changes, message in (({"images": images}, "has no image 'b.jpg'"),
                             ({"categories": [{"id": 18, "name": "dog"}]}, "has no class 'cat'")):
        with pytest.raises(BadInput, match=rf"instances\.json: it {message}"):
            write_detections(tmp_path / "out.json", IMAGES, FOUND, CLASSES, annotations(tmp_path, **changes))
    with pytest.raises(BadInput, match=r"out\.xml: detections are written as NAME\.json"):
        write_detections(tmp_path / "out.xml", IMAGES, FOUND, CLASSES)
    assert not list(tmp_path.glob("out*"))
