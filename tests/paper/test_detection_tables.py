"""Tables 7 to 9 as data, their experiments, and what is printed beside the paper's figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resjax.console.command_line import execute, train_one_of
from resjax.console.tables import reproduce as command
from resjax.detection import Inference
from resjax.detection.average_precision import Found
from resjax.detection.draw import colour_of, confident, draw_boxes
from resjax.paper import detection_tables as tables
from resjax.plan.detector import sizes_of, workload_of
from resjax.system.errors import BadInput

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_the_papers_figures():
    rows = [(row.title, row.published) for table in tables.TABLES.values() for row in table.rows]
    assert rows == [("VGG-16", (73.2,)), ("ResNet-101", (76.4,)), ("VGG-16", (70.4,)), ("ResNet-101", (73.8,)),
                    ("VGG-16", (41.5, 21.2)), ("ResNet-101", (48.4, 27.2)),
                    ("VGG-16", (41.5, 21.2)), ("ResNet-101", (48.4, 27.2)), ("+ box refinement", (49.9, 29.9)),
                    ("+ global context", (51.1, 30.0)), ("+ multi-scale testing", (53.8, 32.5))]
    how = [(row.experiment, row.inference.box_refinement, row.inference.scales) for row in tables.TABLE9.rows[2:]]
    assert how == [("resnet101_coco", True, ()), ("resnet101_coco_context", True, ()),
                   ("resnet101_coco_context", True, (200, 400, 600, 800, 1000))]


def test_the_papers_recipes():
    known = tables.load_detections(EXPERIMENTS / "detection.py")
    for table in tables.TABLES.values():
        for row in table.rows:
            if row.experiment:
                run = known[row.experiment]
                assert run.detector.backbone == ("vgg16" if row.title == "VGG-16" else "resnet101")
                assert run.detector.global_context == (row.title in ("+ global context", "+ multi-scale testing"))
                assert run.inference == Inference(box_refinement=run.detector.global_context)
                assert not row.inference.scales or run.data.shorter_side in row.inference.scales
                assert (run.data.shorter_side, run.data.longer_side) == (600, 1000)
                assert (run.sampling.test_proposals, run.sampling.rois, run.sampling.anchors) == (300, 128, 256)
                sgd = run.optimizer
                assert (sgd.learning_rate, sgd.momentum, sgd.weight_decay) == (0.001, 0.9, 5e-4)
                assert run.detector.frozen_batch_norm
                assert len(run.detector.anchor_sizes) * len(run.detector.anchor_ratios) == 9
                assert run.initialize_from
    coco = known["resnet101_coco"]
    assert (coco.optimizer.decay_steps, coco.steps, coco.batch_size) == ((240_000,), 320_000, 8)
    assert known["resnet101_0712"].data.train == ("VOC2007/trainval", "VOC2012/trainval")


def test_ours_stand_beside_the_papers(tmp_path, monkeypatch, capsys):
    asked = []

    def train(run, folder):
        asked.append((run.name, run.seed, run.data.source, str(folder.relative_to(tmp_path))))
        return {"eleven_point": 75.0 + run.seed, "coco_average": 27.0, "coco_at_half": 48.0}

    monkeypatch.setattr(tables, "train_detector", train)
    command("table7", runs=tmp_path, seeds=2, only="resnet101_0712", experiments=EXPERIMENTS, data="voc:/x")
    assert asked == [("resnet101_0712", seed, "voc:/x", f"resnet101_0712/seed{seed}") for seed in (0, 1)]
    text = (tmp_path / "table7" / "table7.md").read_text()
    assert "| ResNet-101 | 07+12, test 2007 | 76.4 | 75.5 ± 0.7 | 2 |" in text
    assert "| VGG-16 | 07+12, test 2007 | 73.2 | - | 0 |" in text
    assert text in capsys.readouterr().out
    table8 = tables.reproduce(tables.TABLES["table8"], EXPERIMENTS, tmp_path, 1, ("resnet101_coco",), "coco:/y")
    assert "| ResNet-101 | train 2014, val 2014 | 48.4 | 48.0 | 27.2 | 27.0 | 1 |" in table8


def test_what_is_refused(tmp_path):
    table = tables.TABLES["table7"]
    with pytest.raises(BadInput, match="no row 'resnet50'; there are: vgg16_0712, resnet101_0712"):
        tables.reproduce(table, EXPERIMENTS, tmp_path, 1, ("resnet50",))
    with pytest.raises(BadInput, match="seeds is 0"):
        tables.reproduce(table, EXPERIMENTS, tmp_path, 0)
    with pytest.raises(BadInput, match="no such experiment file"):
        tables.reproduce(table, tmp_path, tmp_path, 1)
    (tmp_path / "detection.py").write_text("EXPERIMENTS = 3")
    with pytest.raises(BadInput, match="defines no EXPERIMENTS"):
        tables.load_detections(tmp_path / "detection.py")


def test_a_file_of_detectors_as_a_script(tmp_path, monkeypatch, capsys):
    known = tables.load_detections(EXPERIMENTS / "detection.py")
    train_one_of(known, [], "detection.py")
    assert "scenes" in capsys.readouterr().out
    with pytest.raises(BadInput, match="unknown experiment 'scene'; did you mean 'scenes'"):
        train_one_of(known, ["scene"], "detection.py")
    seen = []
    monkeypatch.setattr("resjax.detection.train.train_detector", lambda run, folder: seen.append((run, folder)) or {
        "name": run.name, "mean_average_precision": 1.0, "steps": run.steps, "images_per_second": 2.0})
    monkeypatch.setattr("resjax.detection.pictures.draw_run", lambda folder: (folder / "curve.png",))
    train_one_of(known, ["bccd", "--workdir", str(tmp_path), "--data.source", "voc:/cells", "--steps", "7",
                         "--detector.pooling", "align"], "detection.py")
    (run, folder), = seen
    bccd = known["bccd"]
    assert folder == tmp_path
    assert run == replace(bccd, steps=7, data=replace(bccd.data, source="voc:/cells"),
                          detector=replace(bccd.detector, pooling="align"))
    execute(["train", f"{EXPERIMENTS / 'detection.py'}:scenes", "--workdir", str(tmp_path), "--seed", "3"])
    assert seen[1] == (replace(known["scenes"], seed=3), tmp_path)


def test_detectors_are_listed_and_shown(capsys):
    file = str(EXPERIMENTS / "detection.py")
    execute(["list", file])
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["resnet101_0712", "resnet101", "110", "k"] in listed  # what is only known with the images has no columns
    execute(["show", f"{file}:vgg16_0712", "--data.shorter-side", "500"])
    shown = capsys.readouterr().out
    assert "data.shorter_side                    500" in shown
    # 13 convolutions, fc6 and fc7 of VGG-16, the proposals' three layers, and 21 + 80 outputs
    proposals = 512 * 512 * 9 + 512 + 512 * 9 + 9 + 512 * 36 + 36
    total = 138_357_544 - (4096 * 1000 + 1000) + proposals + 4097 * (21 + 80)
    assert f"{total:,} parameters, 3 x 3 anchors every 16 pixels" in shown
    with pytest.raises(BadInput, match="scenes trains a detector"):
        execute(["mean-image", f"{file}:scenes"])


def test_the_plans_are_those_of_the_papers_sizes():
    """Compiled for an H100 that is not here, by `resjax plan`: within its memory, and for images of up to 608x1008."""
    for name, macs in (("resnet101_0712", 536e9), ("vgg16_0712", 494e9)):
        plan = json.loads((EXPERIMENTS / "results" / "detection" / "plans" / f"{name}_h100.json").read_text())
        assert list(plan["programs"]) == ["train", "detect", "train 608x800", "detect 608x800"]
        assert plan["programs"]["train"]["macs"] == pytest.approx(macs, rel=0.01)
        assert max(program["peak_bytes"] for program in plan["programs"].values()) < 3 * 2**30
        assert plan["hours"]["train"] == pytest.approx(110_000 * plan["programs"]["train"]["seconds"] / 3600)


def test_what_a_plan_asks_of_a_detector():
    work = workload_of(tables.load_detections(EXPERIMENTS / "detection.py")["resnet101_0712"])
    assert sizes_of(work.run) == ((608, 1008), (608, 800))
    assert "4,952 test images" in work.assumptions[0]
    assert work.precision == "float32"


def test_boxes_are_drawn():
    found = Found(np.array([[2.0, 3, 12, 9], [5, 20, 30, 38]]), np.array([0.3, 0.8]), np.array([1, 2]))
    best = confident(found, 0.5)
    assert best.labels.tolist() == [2]
    picture = np.asarray(draw_boxes(np.zeros((40, 60, 3), np.uint8), best, ("a", "b")))
    assert picture[37, 20].tolist() == list(colour_of(2, 2))  # the lower side
    assert picture[30, 5].tolist() == list(colour_of(2, 2))
    assert not picture[3:9, 40:].any()
    assert confident(found, 0.0).scores.tolist() == [0.8, 0.3]
