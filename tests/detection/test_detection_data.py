"""Readers of VOC's and COCO's layouts: what is read, and what is refused in one line."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from coco_refusals import change_entries, check_refused
from PIL import Image

from resjax.detection.coco import read_coco
from resjax.detection.config import Scenery
from resjax.detection.images import Batches, open_annotated, padded_size, padded_sizes, prepare_image, resized_size
from resjax.detection.scenes import compose_scenes
from resjax.detection.voc import VOC_CLASSES, read_voc
from resjax.system.errors import BadInput

BCCD = Path(os.environ.get("RESJAX_DATA", "nowhere")).parent / "detection" / "BCCD"  # beside the other shared data


def xml(boxes, size=(60, 40)):
    objects = "".join(f"<object><name>{name}</name><difficult>{int(difficult)}</difficult><bndbox>" + "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>" for name, box, difficult in boxes)
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}</annotation>"


@pytest.fixture
def voc(tmp_path):
    """Two images in VOC's layout, with a difficult object and one without area."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    for name in ("one", "two"):
        Image.fromarray(pixels).save(tmp_path / "JPEGImages" / f"{name}.jpg")
    annotations = {"one": [("dog", (1, 1, 20, 10), False), ("cat", (5, 6, 60, 40), True)],
                   "two": [("cat", (3, 4, 13, 14), False), ("cat", (9, 9, 9, 9), False)]}
    for name, boxes in annotations.items():
        (tmp_path / "Annotations" / f"{name}.xml").write_text(xml(boxes))
    (tmp_path / "ImageSets/Main/train.txt").write_text("one\ntwo\n")
    (tmp_path / "ImageSets/Main/test.txt").write_text("two 1\n")
    return tmp_path


def test_voc(voc):
    images = read_voc(voc, ("train",))
    assert images.classes == VOC_CLASSES  # dog and cat are among them
    one, two = images.records
    assert (one.height, one.width) == (40, 60)
    assert one.boxes.tolist() == [[0, 0, 20, 10], [4, 5, 60, 40]]  # pixels from 0, the last one included
    assert [images.classes[label - 1] for label in one.labels] == ["dog", "cat"]
    assert one.difficult.tolist() == [False, True]
    assert two.boxes.tolist() == [[2, 3, 13, 14]]
    assert images.pixels(0).shape == (40, 60, 3)
    (left_out,) = images.remarks
    assert "two.xml" in left_out
    assert "(9, 9, 9, 9) has no area" in left_out
    assert len(read_voc(voc, ("train", "test")).records) == 3


def test_voc_in_folders(voc, tmp_path_factory):
    root = tmp_path_factory.mktemp("devkit")
    (root / "VOC2007").symlink_to(voc)
    assert len(read_voc(root, ("VOC2007/train", "VOC2007/test")).records) == 3


def test_own_classes(voc):
    assert read_voc(voc, ("train",), ("cat", "dog")).records[0].labels.tolist() == [2, 1]
    file = voc / "Annotations" / "one.xml"
    file.write_text(file.read_text().replace("dog", "dragon"))
    assert read_voc(voc, ("train",)).classes == ("cat", "dragon")


@pytest.mark.parametrize(("file", "change", "message"), [
    ("ImageSets/Main/train.txt", lambda text: "", "names no images"),
    ("ImageSets/Main/train.txt", None, "cannot read this list of images"),
    ("Annotations/one.xml", None, "cannot read this annotation"),
    ("Annotations/one.xml", lambda text: text[:50], "incomplete or invalid annotation"),
    ("Annotations/one.xml", lambda text: text.replace(">60<", ">66<"), r"\(5, 6, 66|is outside|has 60x40 pixels"),
    ("Annotations/one.xml", lambda text: text.replace("<xmax>60<", "<xmax>63<"), r"\(4, 5, 63, 40\) is outside"),
    ("Annotations/one.xml", lambda text: text.replace("<xmax>60<", "<xmax>much<"),
     "object 2: bndbox/xmax is 'much'; bndbox/xmax must be a finite number"),
    ("Annotations/one.xml", lambda text: text.replace("<height>40<", "<height>inf<"), "size/height is 'inf'"),
    ("Annotations/one.xml", lambda text: text.replace("dog", "dragon"), "unknown class 'dragon'; the classes are"),
    ("JPEGImages/one.jpg", None, "cannot read this image"),
    ("JPEGImages/one.jpg", lambda text: "no image", "damaged image"),
])
def test_what_voc_refuses(voc, file, change, message):
    file = voc / file
    text = file.read_text(errors="ignore")
    file.unlink()
    if change:
        file.write_text(change(text))
    with pytest.raises(BadInput, match=message) as error:
        read_voc(voc, ("train",), ("cat", "dog")).pixels(0)
    assert str(voc) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_image_that_is_added_after_a_refusal_is_found(voc):
    (voc / "JPEGImages" / "one.jpg").rename(voc / "elsewhere.jpg")
    with pytest.raises(BadInput, match=r"one\.jpg: cannot read this image"):
        read_voc(voc, ("train",))
    Image.open(voc / "elsewhere.jpg").save(voc / "JPEGImages" / "one.png")
    assert read_voc(voc, ("train",)).files[0].name == "one.png"


def test_an_image_of_another_size(voc):
    Image.new("RGB", (61, 40)).save(voc / "JPEGImages" / "one.jpg")
    with pytest.raises(BadInput, match=r"the image one.jpg has 61x40 .* but its annotation says 60x40"):
        read_voc(voc, ("train",)).pixels(0)


@pytest.fixture
def coco(tmp_path):
    """Two images with COCO's annotations: one object, a crowd, and a box without area."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    Image.new("RGB", (60, 40), "red").save(tmp_path / "val" / "a.png")
    Image.new("RGB", (50, 50), "red").save(tmp_path / "val" / "b.png")
    content = {"images": [{"id": 7, "file_name": "a.png", "width": 60, "height": 40},
                          {"id": 9, "file_name": "b.png", "width": 50, "height": 50}],
               "annotations": [{"image_id": 7, "category_id": 4, "bbox": [1, 2, 10, 20], "area": 150, "iscrowd": 0},
                               {"image_id": 7, "category_id": 2, "bbox": [0, 0, 60, 40], "area": 900, "iscrowd": 1},
                               {"image_id": 7, "category_id": 2, "bbox": [5, 5, 0, 4], "area": 0, "iscrowd": 0}],
               "categories": [{"id": 4, "name": "cup"}, {"id": 2, "name": "bear"}]}
    (tmp_path / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return tmp_path


def test_coco(coco):
    images = read_coco(coco, ("val",))
    assert images.classes == ("bear", "cup")
    first, second = images.records
    assert first.boxes.tolist() == [[1, 2, 11, 22], [0, 0, 60, 40]]
    assert first.labels.tolist() == [2, 1]
    assert first.crowd.tolist() == [False, True]
    assert first.areas.tolist() == [150, 900]
    assert len(second.boxes) == 0
    assert images.pixels(0).shape == (40, 60, 3)
    assert "(5, 5, 5, 9) has no area" in images.remarks[0]


@pytest.mark.parametrize("box", [[-1, 10, 1, 20], [-1, 10, 0.5, 20], [60, 10, 0.7, 20], [59.99999, 10, 1e-7, 20]])
def test_a_sliver_at_the_border_has_no_area(coco, box):
    change_entries(coco, "val", lambda content: content["annotations"][0].update(bbox=box))
    images = read_coco(coco, ("val",))
    assert images.records[0].labels.tolist() == [1]
    assert len(images.remarks) == 2
    assert all("has no area within the image and was ignored" in remark for remark in images.remarks)


@pytest.mark.parametrize(("change", "message"), [
    (lambda content: content.pop("annotations"), "no list 'annotations'"),
    (lambda content: content.update(images=[]), "the list 'images' is empty|image 7"),
    (lambda content: content["annotations"][0].update(image_id=8), "image_id is 8, but no image has this id"),
    (lambda content: content["annotations"][0].update(category_id=5), "unknown class 'number 5'; the classes"),
    (lambda content: content["annotations"][0].update(bbox=[50, 2, 20, 20]), r"\(50, 2, 70, 22\) is outside"),
    (lambda content: content["annotations"][0].update(bbox=[50, 2]), "bbox must be 4 numbers"),
    (lambda content: content["images"][0].pop("file_name"), "it has no file_name"),
])
def test_what_coco_refuses(coco, change, message):
    check_refused(coco, "val", change, message)


def test_a_missing_or_broken_file_of_annotations(coco):
    with pytest.raises(BadInput, match="cannot read these annotations"):
        read_coco(coco, ("test",))
    (coco / "annotations" / "instances_val.json").write_text("{")
    with pytest.raises(BadInput, match="incomplete or invalid JSON"):
        read_coco(coco, ("val",))
    with pytest.raises(BadInput, match=r"scenes do not accept data\.train or data\.classes"):
        Scenery(source="scenes", train=("VOC2007/train",), classes=("a",))
    with pytest.raises(BadInput, match="source is 'pascal'"):
        Scenery(source="pascal")


def test_sizes_of_vocs_images():
    data = Scenery()
    assert padded_sizes(data) == ((608, 800), (800, 608), (608, 1008), (1008, 608))


@pytest.mark.parametrize(("image", "resized", "padded"), [
    ((375, 500), (600, 800), (608, 800)), ((500, 375), (800, 600), (800, 608)), ((333, 500), (600, 901), (608, 1008)),
    ((100, 1000), (100, 1000), (608, 1008)), ((500, 500), (600, 600), (608, 800)),
    ((1000, 10), (1000, 10), (1008, 608))])
def test_images_are_resized_and_padded(voc, image, resized, padded):
    record = replace(read_voc(voc, ("train",)).records[0], height=image[0], width=image[1])
    assert resized_size(record, Scenery()) == resized
    assert padded_size(resized, Scenery()) == padded


def test_boxes_follow_the_pixels(voc):
    images, data = read_voc(voc, ("train",)), Scenery(shorter_side=80, longer_side=200)
    pixels, record = prepare_image(images, 0, data)
    assert pixels.shape == (80, 120, 3)
    assert record.boxes.tolist() == [[0, 0, 40, 20], [8, 10, 120, 80]]
    mirrored, turned = prepare_image(images, 0, data, flip=True)
    assert np.array_equal(mirrored[:, ::-1], pixels)
    assert turned.boxes.tolist() == [[80, 0, 120, 20], [0, 10, 112, 80]]


def test_a_batch_is_a_function_of_seed_and_step(voc):
    data = Scenery(source=f"voc:{voc}", train=("train", "train", "test"), test=("test",), shorter_side=40,
                   longer_side=60)
    images = open_annotated(data, train=True)
    batches = Batches(images, data, 2, 5, np.array([1.0, 2, 3]))
    with ThreadPoolExecutor(2) as pool:
        first, again = (Batches(images, data, 2, 5, np.array([1.0, 2, 3])).at(4, pool) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip((*first[:2], *first[2]), (*again[:2], *again[2]), strict=True))
    assert first.images.shape == (2, 48, 64, 3)
    assert first.images[0, 45, 63].tolist() == [1, 2, 3]  # padded with the mean colour
    assert first.sizes.tolist() == [[40, 60]] * 2
    assert batches.most == 2
    whole = [set(batches.rows(epoch).ravel().tolist()) for epoch in range(3)]
    assert whole == [set(range(5))] * 3  # every image in every epoch
    assert not np.array_equal(batches.rows(0), batches.rows(1))
    streamed = [batch.images.sum() for batch in batches.steps(range(3, 6))]
    assert streamed[1] == first.images.sum()


def test_difficult_objects_are_not_learnt(voc):
    data = Scenery(source=f"voc:{voc}", train=("train",), test=("test",))
    with ThreadPoolExecutor(1) as pool:
        batch = Batches(open_annotated(data, train=True), data, 2, 0, np.zeros(3)).at(0, pool)
    assert batch.objects.valid.sum(1).tolist() == [1, 1]


def test_crowds_are_marked_and_not_learnt(coco):
    data = Scenery(source=f"coco:{coco}", train=("val",), test=("val",))
    with ThreadPoolExecutor(1) as pool:
        objects = Batches(open_annotated(data, train=True), data, 1, 0, np.zeros(3)).at(0, pool).objects
    assert objects.valid[0].tolist() == [True, False]
    assert objects.crowd[0].tolist() == [False, True]
    assert objects.boxes[0, 1].tolist() == [0, 0, 900, 600]  # the whole image, resized


def test_a_set_without_anything_to_learn_from(voc):
    for file in (voc / "Annotations").iterdir():
        file.write_text(xml([]))
    data = Scenery(source=f"voc:{voc}", train=("train",), test=("test",), classes=("cat",))
    with ThreadPoolExecutor(1) as pool, pytest.raises(BadInput, match="no training image contains an object"):
        Batches(open_annotated(data, train=True), data, 2, 0, np.zeros(3)).at(0, pool)


def test_scenes_are_the_same_every_time():
    scenes, again = compose_scenes("test"), compose_scenes("test")
    assert np.array_equal(scenes.images, again.images)
    assert len(scenes.records) == 200
    assert {len(record.boxes) for record in scenes.records} == {2, 3, 4, 5}
    for record in scenes.records:
        sides = record.boxes[:, 2:] - record.boxes[:, :2]
        assert sides.min() >= 4
        assert sides.max() <= 40
    assert len({int(label) for record in scenes.records for label in record.labels}) == 10


@pytest.mark.skipif(not BCCD.is_dir(), reason="the photographs of blood cells are not there")
def test_the_blood_cells():
    images = read_voc(BCCD, ("trainval", "test"))
    assert images.classes == ("Platelets", "RBC", "WBC")
    counts = np.bincount(np.concatenate([record.labels for record in images.records]))
    assert counts.tolist() == [0, 361, 4153, 372]  # two of 4,155 have no area
    assert sorted(text.partition(".xml")[0][-5:] for text in images.remarks) == ["00338", "00343"]
