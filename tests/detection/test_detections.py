"""Detections as COCO's results, with the numbers of the file that they answer to."""

import json
from pathlib import Path

import pytest

from resjax import BadInput
from resjax.detection.detections import numbers_of, write_results

IMAGES, CLASSES = (Path("val/000007.jpg"), Path("val/b.jpg")), ("cat", "dog")
FOUND = (
    (IMAGES[0], [("dog", 0.9, 1.0, 2.0, 11.5, 22.0)]),
    (IMAGES[1], [("cat", 0.8, 0.0, 0.0, 5.0, 6.0), ("dog", 0.25, 3.0, 4.0, 8.0, 9.0)]))


def annotations(folder, **changes):
    content = {"images": [{"id": 41, "file_name": "b.jpg", "height": 9, "width": 9},
                          {"id": 7, "file_name": "000007.jpg", "height": 30, "width": 20}],
               "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
               "annotations": [{"image_id": 7, "category_id": 18, "bbox": [1, 2, 10, 20], "id": 1, "area": 200,
                                "iscrowd": 0}]} | changes
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def write(folder, file=None):
    write_results(folder / "out.json", FOUND, numbers_of(file, IMAGES, CLASSES))
    return json.loads((folder / "out.json").read_text())


def test_results_carry_the_numbers_of_the_annotations(tmp_path):
    assert write(tmp_path, annotations(tmp_path)) == [
        {"image_id": 7, "category_id": 18, "bbox": [1.0, 2.0, 10.5, 20.0], "score": 0.9},
        {"image_id": 41, "category_id": 17, "bbox": [0.0, 0.0, 5.0, 6.0], "score": 0.8},
        {"image_id": 41, "category_id": 18, "bbox": [3.0, 4.0, 5.0, 5.0], "score": 0.25}]


def test_cocos_own_tool_reads_them(tmp_path):
    tool = pytest.importorskip("pycocotools.coco", reason="pip install -e '.[coco]'")
    write(tmp_path, annotations(tmp_path))
    found = tool.COCO(str(annotations(tmp_path))).loadRes(str(tmp_path / "out.json"))
    assert len(found.anns) == 3


def test_without_annotations_images_and_classes_count_from_1(tmp_path):
    assert [(entry["image_id"], entry["category_id"]) for entry in write(tmp_path)] == [(1, 2), (2, 1), (2, 2)]
    write_results(tmp_path / "none.json", [(IMAGES[0], [])], numbers_of(None, IMAGES[:1], CLASSES))
    assert json.loads((tmp_path / "none.json").read_text()) == []


@pytest.mark.parametrize(("changes", "message"), [
    ({"images": [{"id": 7, "file_name": "000007.jpg", "height": 30, "width": 20}]}, "no image 'b.jpg'"),
    ({"categories": [{"id": 18, "name": "dog"}]}, "no class 'cat'")])
def test_what_has_no_number_is_named(tmp_path, changes, message):
    with pytest.raises(BadInput, match=rf"instances\.json: contains {message}"):
        numbers_of(annotations(tmp_path, **changes), IMAGES, CLASSES)


@pytest.mark.parametrize(("names", "images", "ids"), [
    (("val/1.jpg", "test/1.jpg"), ("data/val/1.jpg", "data/test/1.jpg"), [0, 1]),
    (("val\\1.jpg", "test/1.jpg"), ("val/1.jpg",), [0]),  # as training reads it
    (("images/val/1.jpg",), ("photos/1.jpg",), [0])])
def test_images_of_one_name_are_told_by_their_folders(tmp_path, names, images, ids):
    images = [tmp_path / image for image in images]
    file = annotations(tmp_path, images=[{"id": number, "file_name": name} for number, name in enumerate(names)])
    assert numbers_of(file, images, CLASSES).images == dict(zip(images, ids, strict=True))


@pytest.mark.parametrize(("names", "images", "message"), [
    (("val/1.jpg", "test/1.jpg"), ("photos/1.jpg",), r"could be any of its images \[0, 1\]"),
    (("1.jpg",), ("val/1.jpg", "test/1.jpg"), r"val/1\.jpg and .*test/1\.jpg would both be its image 0")])
def test_images_that_cannot_be_told_apart_are_refused(tmp_path, names, images, message):
    file = annotations(tmp_path, images=[{"id": number, "file_name": name} for number, name in enumerate(names)])
    with pytest.raises(BadInput, match=message):
        numbers_of(file, [tmp_path / image for image in images], CLASSES)
