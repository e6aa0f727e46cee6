"""A detector as a folder without its run: written, read back, refused where it is damaged; one comes with resjax."""

import json
import shutil
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from conftest import same_trees
from PIL import Image
from safetensors.numpy import load_file, save_file

import resjax
from resjax import BadInput
from resjax.console.command_line import execute
from resjax.detection import Detection, Detector, Scenery, load_detector
from resjax.detection.detectors import first_state
from resjax.detection.evaluate import TrainedDetector, measure_detector
from resjax.detection.initialize import detector_weights
from resjax.detection.networks import FasterRCNN
from resjax.detection.stored import write_detector
from resjax.weights.card import Card


@pytest.fixture
def copy(tmp_path):
    return write_detector(load_detector("bccd"), tmp_path / "copy", Card())


def test_a_folder_is_read_back(copy):
    ours, theirs = load_detector("bccd"), load_detector(copy)
    assert theirs.classes == ("Platelets", "RBC", "WBC")
    assert theirs.detection == ours.detection
    assert theirs.model == ours.model
    assert same_trees(ours.variables, theirs.variables, 0)
    assert np.array_equal(ours.mean, theirs.mean)
    assert sum(leaf.size for leaf in jax.tree.leaves(ours.variables["params"])) == 777_023
    assert "None was measured" in (copy / "README.md").read_text()


def test_an_exported_vgg_detector_initialises_another(tmp_path):
    run = Detection(name="vgg", detector=Detector(backbone="vgg16", anchor_sizes=(32.0,), hidden=4, rpn_channels=4),
                    data=Scenery(source="scenes", shorter_side=64, longer_side=64))
    classes = tuple("abcdefghij")
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), first_state(run).replace(key=None))
    trained = TrainedDetector(run, classes, FasterRCNN(run.detector, 10), state.variables, state.mean)
    copy = load_detector(write_detector(trained, tmp_path / "vgg", Card()))
    weights = detector_weights(copy, replace(run, initialize_from="vgg"), classes)
    assert (weights.params.keys(), weights.batch_stats) == (state.params.keys(), {})


def test_cocos_package_is_missed_before_anything_is_detected(monkeypatch):
    trained = load_detector("bccd")
    data = replace(trained.detection.data, source="coco:images")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(BadInput, match="needs the package pycocotools"):
        measure_detector(trained._replace(detection=replace(trained.detection, data=data)), None)


def test_what_is_damaged_is_named(copy, tmp_path):
    with pytest.raises(BadInput, match="copy already exists"):
        write_detector(load_detector("bccd"), copy, Card())
    tensors = load_file(copy / "detector.safetensors")
    first = min(tensors)
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, copy / "detector.safetensors")
    with pytest.raises(BadInput, match=f"not the weights that detector.json describes: {first} missing"):
        load_detector(copy)
    (copy / "detector.safetensors").write_bytes(b"none")
    with pytest.raises(BadInput, match=r"detector\.safetensors: not a readable weights file"):
        load_detector(copy)
    content = json.loads((copy / "detector.json").read_text())
    (copy / "detector.json").write_text(json.dumps(content | {"classes": [1]}))
    with pytest.raises(BadInput, match=r"detector\.json: not a detector of this version"):
        load_detector(copy)
    shutil.rmtree(copy)
    with pytest.raises(BadInput, match="contains no run"):
        load_detector(copy)


def test_the_one_that_comes_with_resjax_is_used(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="bccd is a detector; use resjax detect bccd IMAGE"):
        resjax.load("bccd")
    with pytest.raises(BadInput, match="bccd is a detector, which no other library can load; use --to resjax"):
        execute(["export", "bccd", "--to", "onnx", "--out", "out"])
    with pytest.raises(BadInput, match="bccd is a detector; saliency only works with classifiers"):
        resjax.detection.detectors.explain(load_detector("bccd"), tmp_path / "x.png", None, tmp_path)
    pixels = np.full((240, 320, 3), (215, 205, 205), np.uint8)  # a cell: a dark nucleus in a pale disc
    rows, columns = np.mgrid[:240, :320]
    distance = np.hypot(rows - 120, columns - 160)
    pixels[distance < 48] = (190, 160, 200)
    pixels[distance < 30] = (95, 70, 160)
    Image.fromarray(pixels).save("cell.png")
    execute(["detect", "bccd", "cell.png", "--json", "found.json"])
    said = capsys.readouterr()
    assert "bccd recognises 3 classes: Platelets, RBC, WBC" in said.err
    (one,) = json.loads((tmp_path / "found.json").read_text())
    best = max(one["found"], key=lambda each: each["score"])
    assert best["class"] == "WBC"
    assert best["x1"] < 160 < best["x2"]
    assert best["y1"] < 120 < best["y2"]
    assert (tmp_path / "detections" / "cell.png").is_file()
