"""Annotations as tools write them, and mutations of good ones: boxes lie on their objects, or a line says why not."""

import json

import pytest
from annotation_kinds import BRIGHT, KINDS, LANDS, outcome, picture, write
from annotation_mutations import tried
from coco_refusals import check_refused
from PIL import Image

from resjax.detection.coco import read_coco
from resjax.detection.voc import read_voc
from resjax.system.errors import BadInput

BOXES = {"an image without objects": 5, "an object twice": 7}


@pytest.mark.parametrize("layout", ["voc", "coco"])
@pytest.mark.parametrize("kind", KINDS)
def test_boxes_lie_on_their_objects_or_a_line_says_why_not(tmp_path, layout, kind):
    found, boxes = outcome(tmp_path / "set", layout, kind)
    assert found == KINDS[kind].right
    assert boxes == (BOXES.get(kind, 6) if found == LANDS else 0)


def test_mutations_are_refused_in_a_line_or_change_nothing_else(tmp_path):
    """The long form is tests/campaign/annotations.py."""
    counts, faults = tried(tmp_path, 500, seed=1)
    assert not faults
    assert min(counts.values()) > 100


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c["images"][2].update(id=1), r"two entries have the id 1, .*img001.jpg.* and .*img002.jpg"),
    (lambda c: c["categories"].append({"id": 40, "name": "dot"}), "the categories 1 and 40 have the same name, 'dot'"),
    (lambda c: c["categories"].append({"id": "40", "name": "x"}), "all numbers or all strings: '40' and 0"),
    (lambda c: c["annotations"][0].update(image_id="0"), "annotation 100: image_id is '0', but no image has this id; "),
    (lambda c: c["annotations"][0].update(image_id=[0]), r"annotation 100: image_id is \[0\]; image_id must be"),
    (lambda c: c["annotations"][0].update(category_id=True), "annotation 100: category_id is True; category_id must"),
    (lambda c: c["categories"][0].update(name=None), "category 0: it has no name; name must be a string")])
def test_ids_and_names_of_coco_that_mean_two_things_are_refused(tmp_path, change, message):
    write(tmp_path, "coco", "healthy")
    check_refused(tmp_path, "train", change, message)


def test_an_entry_that_is_there_twice_alike_counts_once(tmp_path):
    write(tmp_path, "coco", "healthy")
    file = tmp_path / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"images": [*content["images"], content["images"][0]]}))
    images = read_coco(tmp_path, ("train",))
    assert [len(record.boxes) for record in images.records] == [1, 1, 1, 1]
    remark = f"1 image listed more than once, identically; each counts once (such as {file}, image 0)"
    assert images.remarks == (remark,)


def test_a_line_of_a_list_with_spaces_is_the_image_of_this_name(tmp_path):
    """`photo (0)` ... beside an image `photo`, which is what the first word says."""
    write(tmp_path, "voc", "spaces in names")
    picture(tmp_path / "JPEGImages" / "photo.jpg", {"name": "photo", "size": (96, 64), "turn": 1})
    (tmp_path / "Annotations" / "photo.xml").write_text("<annotation></annotation>")
    images = read_voc(tmp_path, ("train",))
    assert [file.name for file in images.files] == [f"photo ({i}).jpg" for i in range(4)]
    (tmp_path / "ImageSets/Main/train.txt").write_text("photo (1)  1\nphoto -1\n")  # the devkit's list of one class
    assert [file.name for file in read_voc(tmp_path, ("train",)).files] == ["photo (1).jpg", "photo.jpg"]


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_a_size_that_is_neither_the_stored_nor_the_upright_one_is_refused_with_exif(tmp_path, layout):
    write(tmp_path, layout, "on its side by EXIF, as stored")
    for file in (*tmp_path.glob("Annotations/*.xml"), *tmp_path.glob("annotations/*.json")):
        file.write_text(file.read_text().replace("<width>96", "<width>97").replace('"width": 96', '"width": 97'))
    with pytest.raises(BadInput, match="; EXIF rotates it to 64x96, but its annotation says 97x64"):
        (read_voc if layout == "voc" else read_coco)(tmp_path, ("train",))


def test_boxes_of_photographs_that_are_stored_turned_are_remarked_where_size_does_not_tell(tmp_path):
    write(tmp_path, "coco", "upside down by EXIF")
    images = read_coco(tmp_path, ("train",))
    assert len(images.remarks) == 1
    assert images.remarks[0].startswith("4 images rotated by EXIF, with a stated size that does not show")
    x1, y1, x2, y2 = images.records[0].boxes[0].astype(int)
    assert images.pixels(0)[y1:y2, x1:x2].mean() == pytest.approx(BRIGHT, abs=5)
    with Image.open(images.files[0]) as stored:
        assert stored.getexif()[0x0112] == 3
