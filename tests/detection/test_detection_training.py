"""A detector's run: the same bits after a stop, on any number of devices; its folder; what it sees in a picture."""

import json
import shutil
import signal
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from resjax.console.command_line import execute
from resjax.console.pictures import detect
from resjax.detection import Detection, Detector, Sampling, Scenery, detectors, restore_detector, train_detector
from resjax.detection.images import Batches, open_annotated
from resjax.detection.pictures import draw_run
from resjax.detection.step import draw_onto
from resjax.detection.voc import read_voc
from resjax.experiment import Optimizer
from resjax.system.errors import BadInput, Interrupted
from resjax.system.serialization import to_json
from resjax.training import loop
from resjax.training.run_directory import read_result

STEPS = 6


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Sixteen images with a bright square or two, in VOC's layout; every fourth one stands."""
    root, random = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number in range(16):
        height, width = (64, 48) if number % 4 == 3 else (48, 64)
        pixels, objects = random.integers(0, 90, (height, width, 3), np.uint8), ""
        for name in ("red", "green")[:1 + number % 2]:
            side = int(random.integers(12, 24))
            top, left = random.integers(0, height - side), random.integers(0, width - side)
            pixels[top:top + side, left:left + side] = (230, 30, 30) if name == "red" else (30, 230, 30)
            box = {"xmin": left + 1, "ymin": top + 1, "xmax": left + side, "ymax": top + side}
            objects += f"<object><name>{name}</name><bndbox>" + "".join(
                f"<{key}>{value}</{key}>" for key, value in box.items()) + "</bndbox></object>"
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{number}.jpg", quality=95)
        (root / "Annotations" / f"{number}.xml").write_text(
            f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>")
    lying = [number for number in range(16) if number % 4 != 3]
    for name, numbers in {"all": range(16), "lying": lying, "test": range(3)}.items():
        (root / "ImageSets/Main" / f"{name}.txt").write_text("\n".join(map(str, numbers)))
    return root


@pytest.fixture(scope="module")
def run(squares):
    return Detection(
        name="squares",
        detector=Detector(backbone="tiny", anchor_sizes=(12.0, 24.0), anchor_ratios=(1.0,), rpn_channels=16,
                          frozen_batch_norm=False, ghost_batch_size=1),
        sampling=Sampling(anchors=32, smallest=4.0, train_candidates=60, train_proposals=20, test_candidates=60,
                          test_proposals=12, rois=8),
        data=Scenery(source=f"voc:{squares}", train=("lying",), test=("test",), shorter_side=48, longer_side=64),
        optimizer=Optimizer(learning_rate=0.001, decay_steps=(100,), weight_decay=1e-4),
        steps=STEPS, batch_size=8, log_steps=1, evaluate_steps=100, checkpoint_steps=100)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """Train without a stop, on one device."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, train_detector(run, folder, jax.devices()[:1])


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return np.array([[line["loss"], line["anchor_class"], line["anchor_box"], line["region_class"], line["region_box"]]
                     for line in lines if line["kind"] == "train"])


def test_a_stopped_run_comes_to_the_same_bits(run, whole, tmp_path, monkeypatch):
    folder, result = whole
    asked = iter([0, 0, int(signal.SIGTERM)])
    monkeypatch.setattr(loop, "requested", lambda: next(asked, 0))
    with pytest.raises(Interrupted, match="saved step 3 of 6"):
        train_detector(run, tmp_path / "stopped", jax.devices()[:1])
    again = train_detector(run, tmp_path / "stopped", jax.devices()[:1])
    assert again["state_digest"] == result["state_digest"]
    assert np.array_equal(losses(tmp_path / "stopped"), losses(folder))
    assert len(losses(folder)) == STEPS
    assert train_detector(run, tmp_path / "stopped") == again  # it is finished


def test_eight_devices_have_the_losses_of_one(run, whole, tmp_path):
    train_detector(run, tmp_path, jax.devices()[:8])
    np.testing.assert_allclose(losses(tmp_path), losses(whole[0]), atol=1e-5, rtol=1e-5)


def test_two_processes_have_the_losses_of_one(run, whole, tmp_path):
    from two_processes import two_processes

    file = tmp_path / "squares.py"
    file.write_text("from resjax.detection import Detection\nfrom resjax.system.serialization import from_json\n"
                    f"EXPERIMENTS = {{'squares': from_json({to_json(run)!r}, Detection)}}\n")
    two_processes(f"{file}:squares", tmp_path)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(whole[0]), atol=1e-5, rtol=1e-5)
    measured = [read_result(folder)["average_precision"] for folder in (tmp_path / "run", whole[0])]
    assert measured[0] == pytest.approx(measured[1], abs=1)
    assert restore_detector(tmp_path / "run").detection == run
    assert "mAP" in (tmp_path / "log0").read_text()
    assert "loss" not in (tmp_path / "log1").read_text()  # only the first tells of steps


def test_sizes_of_images_compile_once_each(run, whole, tmp_path):
    both = replace(run, data=replace(run.data, train=("all",)), steps=8)
    images = open_annotated(both.data, train=True)
    shapes = {batch.images.shape for batch in Batches(images, both.data, 8, 0, np.zeros(3)).steps(range(8))}
    assert shapes == {(8, 48, 64, 3), (8, 64, 48, 3)}
    train_detector(both, tmp_path, jax.devices()[:1])
    compiled = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["kind"] == "compile" for line in compiled) == 2


def test_the_result(run, whole):
    folder, result = whole
    trained = restore_detector(folder)
    assert trained.classes == ("green", "red")
    assert trained.detection == run
    assert result["steps"] == STEPS
    assert 0 <= result["mean_average_precision"] <= 100
    assert set(result["average_precision"]) == {"green", "red"}
    assert result["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"]))


@pytest.mark.usefixtures("one_device")
def test_a_run_goes_on_by_its_own_description(run, whole, tmp_path, capsys):
    folder, result = whole
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "result.json").unlink()  # it was cut off before its end
    execute(["train", str(copy / "experiment.json"), "--workdir", str(copy)])
    assert "squares: mAP" in capsys.readouterr().out
    assert read_result(copy)["state_digest"] == result["state_digest"]
    execute(["show", str(copy / "experiment.json")])
    assert "sampling.rois                        8" in capsys.readouterr().out
    with pytest.raises(BadInput, match="contains no run"):
        execute(["train", str(tmp_path / "experiment.json")])


def test_a_run_is_drawn(whole):
    folder, _ = whole
    curve, boxes = draw_run(folder)
    with Image.open(curve) as picture, Image.open(boxes) as sheet:
        assert picture.width > 300
        assert sheet.size == (3 * 5 * 64, 5 * 48)  # the test images, five times as large


def test_a_folder_belongs_to_one_run(run, whole, tmp_path):
    folder, _ = whole
    with pytest.raises(BadInput, match=r"contains a different experiment \(seed: 0 -> 1"):
        train_detector(replace(run, seed=1), folder)
    (tmp_path / "experiment.json").write_text("{}")
    with pytest.raises(BadInput):
        train_detector(run, tmp_path)
    with pytest.raises(BadInput, match=r"experiment\.json: lacks kind"):
        restore_detector(tmp_path)
    with pytest.raises(BadInput, match="batch-size 8 is not divisible by the number of devices, 3"):
        train_detector(run, tmp_path / "three", jax.devices()[:3])


def test_what_the_test_images_lack(run, squares, tmp_path):
    with pytest.raises(BadInput, match="unknown class 'green'; the classes are red"):
        train_detector(replace(run, data=replace(run.data, classes=("red",))), tmp_path, jax.devices()[:1])
    assert read_voc(squares, ("test",), ("red", "green", "blue")).classes == ("red", "green", "blue")


def test_detecting_in_pictures(whole, squares, tmp_path, capsys):
    folder, _ = whole
    files = (squares / "JPEGImages" / "0.jpg", squares / "JPEGImages" / "4.jpg")
    detect(folder, files, tmp_path / "out", score=0.0)
    told = capsys.readouterr().out
    assert "0.jpg" in told
    assert " %  x " in told
    with Image.open(tmp_path / "out" / "4.png") as picture:
        assert picture.size == (64, 48)
    for wrong, message in (((), "at least one image"), ((files[0], files[0]), "same name")):
        with pytest.raises(BadInput, match=message):
            detect(folder, wrong, tmp_path / "out")
    with pytest.raises(SystemExit):  # one that cannot be read is named, and the others are looked at
        detect(folder, (squares / "nothing.jpg", files[0]), tmp_path / "some")
    assert "nothing.jpg: cannot read this image" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "some").iterdir()] == ["0.png"]


def test_pictures_are_read_one_after_the_other(whole, squares, tmp_path, monkeypatch):
    """One of 12 million pixels takes 33 MB: each is drawn before the next is read."""
    drawn, find = [], detectors.find_in
    monkeypatch.setattr(detectors, "find_in", lambda file, trained: drawn.append(
        sorted(each.name for each in (tmp_path / "out").glob("*"))) or find(file, trained))
    detect(whole[0], [squares / "JPEGImages" / f"{number}.jpg" for number in (0, 1, 2)], tmp_path / "out")
    assert drawn == [[], ["0.png"], ["0.png", "1.png"]]


def test_the_largest_seed_is_drawn(run):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    draw = partial(draw_onto, place, replace(run, seed=2**32 - 1), 2, np.zeros((1, 1, 3), np.float32))
    assert jax.eval_shape(draw).params["rpn"]


def test_detections_are_written_as_cocos_results(whole, squares, tmp_path, capsys):
    folder, _ = whole
    pictures = [str(squares / "JPEGImages" / f"{number}.jpg") for number in (0, 3)]
    numbers = tmp_path / "instances.json"
    numbers.write_text(json.dumps({
        "images": [{"id": 50 + number, "file_name": f"{number}.jpg", "height": 1, "width": 1} for number in (0, 3)],
        "categories": [{"id": 7, "name": "green"}, {"id": 3, "name": "red"}], "annotations": []}))
    asked = ["detect", str(folder), *pictures, "--out", str(tmp_path / "out"), "--score", "0"]
    execute([*asked, "--json", "-", "--coco", str(tmp_path / "coco.json"), "--annotations", str(numbers)])
    words = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "coco.json").read_text()) == [
        {"image_id": image, "category_id": {"red": 3, "green": 7}[thing["class"]], "score": round(thing["score"], 5),
         "bbox": [round(side, 2) for side in (thing["x1"], thing["y1"], thing["x2"] - thing["x1"],
                                              thing["y2"] - thing["y1"])]}
        for image, picture in zip((50, 53), words, strict=True) for thing in picture["found"]]
    for flags, message in ((["--annotations", str(numbers)], "--annotations only affects --coco"),
                           (["--coco", str(tmp_path / "x"), "--annotations", str(squares)], "cannot be|not a file")):
        with pytest.raises(BadInput, match=message):
            execute([*asked, *flags])
    with pytest.raises(BadInput, match="resnet20 is a classifier; use resjax predict"):
        execute(["detect", "resnet20", *pictures])
