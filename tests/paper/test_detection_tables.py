"""Tables 7 to 11 as data, their experiments, and what is printed beside the paper's figures."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from resjax.console.command_line import execute, train_one_of
from resjax.console.tables import reproduce as command
from resjax.detection import detectors
from resjax.detection.average_precision import Detected
from resjax.detection.draw import colour_of, confident, draw_boxes
from resjax.experiment_files import load_runs
from resjax.paper import TABLES, detection_tables
from resjax.paper.reproduce import check_recipe, plan_runs, train_missing
from resjax.plan.compile import workload_of
from resjax.plan.detector import sizes_of
from resjax.system.errors import BadInput
from resjax.system.files import write_json
from resjax.training.run_directory import write_run

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


DETECTION = {table.name: table for table in detection_tables.DETECTION}
VOC_ORDER = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"]


def test_the_papers_figures():
    rows = [(row.title, row.published) for name in ("table7", "table8", "table9") for row in DETECTION[name].rows]
    assert rows == [("VGG-16, 07+12, test 2007", (73.2,)), ("ResNet-101, 07+12, test 2007", (76.4,)),
                    ("VGG-16, 07++12, test 2012", (70.4,)), ("ResNet-101, 07++12, test 2012", (73.8,)),
                    ("VGG-16", (41.5, 21.2)), ("ResNet-101", (48.4, 27.2)),
                    ("VGG-16", (41.5, 21.2)), ("ResNet-101", (48.4, 27.2)), ("+ box refinement", (49.9, 29.9)),
                    ("+ global context", (51.1, 30.0)), ("+ multi-scale testing", (53.8, 32.5))]
    how = [(row.experiment, row.how.box_refinement, row.how.scales) for row in DETECTION["table9"].rows[2:]]
    assert how == [("resnet101_coco", True, ()), ("resnet101_coco_context", True, ()),
                   ("resnet101_coco_context", True, (200, 400, 600, 800, 1000))]


def test_average_precisions_by_class():
    """Tables 10 and 11: the mean of the 20 classes is the mAP that stands before them, as far as it is printed."""
    for name in ("table10", "table11"):
        assert [measure.title for measure in DETECTION[name].measures[1:]] == VOC_ORDER
        for row in DETECTION[name].rows:
            mean, *classes = row.published
            assert len(classes) == 20
            assert np.mean(classes) == pytest.approx(mean, abs=0.051)


def test_every_table_of_the_paper_is_there_or_said_not_to_be():
    """Table 1 is counted, and Tables 7 to 11 are of detectors; 12 to 14 are in the appendix of the arXiv version."""
    covered = {1, *(int(name.removeprefix("table")) for name in TABLES)}
    for page in ("README.md", "docs/howto/detection.md"):
        (said,) = re.findall(r"Tables (\d+)\s+to\s+(\d+)[^.]* not\s+covered", (EXPERIMENTS.parent / page).read_text())
        assert covered.isdisjoint(range(int(said[0]), int(said[1]) + 1))
        assert covered | set(range(int(said[0]), int(said[1]) + 1)) == set(range(1, 15))


def test_the_papers_recipes():
    known = load_runs(EXPERIMENTS / "detection.py")
    for row in (row for table in DETECTION.values() for row in table.rows if row.experiment):
        run = known[row.experiment]
        context = row.title in ("+ global context", "+ multi-scale testing", "baseline+++, COCO+07+12")
        assert run.detector.backbone == ("vgg16" if row.title.startswith("VGG-16") else "resnet101")
        assert run.detector.global_context == context
        assert run.inference.box_refinement == context
        assert row.how is None or not row.how.scales or run.data.shorter_side in row.how.scales
        assert (run.data.shorter_side, run.data.longer_side) == (600, 1000)
        assert (run.sampling.test_proposals, run.sampling.rois, run.sampling.anchors) == (300, 128, 256)
        assert (run.optimizer.learning_rate, run.optimizer.momentum, run.optimizer.weight_decay) == (0.001, 0.9, 5e-4)
        assert run.detector.frozen_batch_norm
        sizes = (128, 256, 512) if row.experiment in ("vgg16_0712", "resnet101_0712") else (64, 128, 256, 512)
        assert run.detector.anchor_sizes == sizes  # of arXiv 1506.01497v3, sections 3.3 and 4.2
        assert run.detector.anchor_ratios == (0.5, 1, 2)
        assert run.initialize_from
    coco = known["resnet101_coco"]
    assert (coco.optimizer.decay_steps, coco.steps, coco.batch_size) == ((240_000,), 320_000, 8)
    assert known["resnet101_0712"].data.train == ("VOC2007/trainval", "VOC2012/trainval")
    fine = known["resnet101_coco_0712"]  # "baseline+++": the COCO model of all three improvements, on VOC
    assert fine.initialize_from == "runs/resnet101_coco_context/seed0"
    assert fine.detector == known["resnet101_coco_context"].detector


class Trained:
    """Stands for the training of detectors: runs are described and have results, with the numbers that are given."""

    def __init__(self, monkeypatch):
        self.asked = []
        monkeypatch.setattr(detectors, "train", self.train)

    def train(self, run, folder, devices):
        self.asked.append((run.name, run.seed, run.data.source, len(devices)))
        folder.mkdir(parents=True)
        write_run(folder, run, {"classes": ["a"]}, jax.devices())
        classes = dict.fromkeys(VOC_ORDER, 70.0 + run.seed)
        write_json(folder / "result.json", {
            "name": run.name, "steps": run.steps, "state_digest": "x", "train_seconds": 1.0, "parameters": 7,
            "eleven_point": 75.0 + run.seed, "coco_average": 27.0, "coco_at_half": 48.0, "eleven_points": classes})
        line = {"step": 1, "kind": "train", "loss": 1.0, "error": 9.0, "images_per_second": 1.0}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")


@pytest.fixture
def trained(monkeypatch):
    return Trained(monkeypatch)


def test_ours_stand_beside_the_papers(tmp_path, trained, capsys):
    asked = {"runs": tmp_path, "only": "resnet101_0712", "experiments": EXPERIMENTS, "data": "voc:/x"}
    for folder in (tmp_path, tmp_path / "two"):
        (folder / "resnet101" / "seed0").mkdir(parents=True)  # the pretrained weights
    command("table7", seeds=2, **asked)
    assert trained.asked == [("resnet101_0712", seed, "voc:/x", 1) for seed in (0, 1)]
    out, err = capsys.readouterr()
    text = (tmp_path / "table7.md").read_text()
    assert "| ResNet-101, 07+12, test 2007 |  | 7 | 76.4 | 75.5 ± 0.7 | 76.0 | 2 | -0.9 | 9.00 |" in text
    assert "| VGG-16, 07++12, test 2012 |  |  | 70.4 |  |" in text
    assert text in out
    assert "training on 1 of 8 devices, because the batch size is 1" in err  # and is not refused
    command("table10", seeds=2, **asked)
    assert len(trained.asked) == 2  # they are the same runs
    text = (tmp_path / "table10.md").read_text()
    assert "| aeroplane | 76.5 | - | 79.8 | 70.5 ± 0.7 | 90.0 | - |" in text
    command("table8", runs=tmp_path, only="resnet101_coco", experiments=EXPERIMENTS, data="coco:/y")
    assert "| 48.4 | 48.0 | 48.0 | 1 | -0.4 | 27.2 | 27.0 |" in (tmp_path / "table8.md").read_text()
    command("table8", runs=tmp_path, only="resnet101_coco", experiments=EXPERIMENTS, data="coco:/y", scale=0.01)
    assert trained.asked[-1][0] == "resnet101_coco"
    assert "[3,200 steps]" in (tmp_path / "table8-x0.01.md").read_text()
    command("table8", runs=tmp_path / "two", seeds=2, only="resnet101_coco", experiments=EXPERIMENTS, data="coco:/y",
            shard="2/2")
    assert trained.asked[-1][:2] == ("resnet101_coco", 1)


@pytest.mark.parametrize(("flags", "message"), [
    ({"only": "resnet50"}, "no row 'resnet50'; its rows are vgg16_0712, resnet101_0712"), ({"seeds": 0}, "seeds is 0"),
    ({"scale": 0.0}, "scale is 0.0"), ({"shard": "3/2"}, "such as 2/8"),
    ({"directory": Path("sets"), "data": "voc:/x"}, "--directory is for TFDS data sets"),
    ({}, "--data voc:PATH")])
def test_what_is_refused(tmp_path, trained, flags, message):
    with pytest.raises(BadInput, match=message):
        command("table7", runs=tmp_path, experiments=EXPERIMENTS, **({"data": "voc:/x"} if flags else {}) | flags)
    assert trained.asked == []


def test_weights_to_start_from_are_sought_in_the_folder_of_the_table_before_any_training(tmp_path, monkeypatch):
    planned = plan_runs(DETECTION["table10"], EXPERIMENTS, tmp_path, 1)
    parents = {run.experiment.name: run.experiment.initialize_from for run in planned}
    assert parents == {"vgg16_0712": "vgg16.pth", "resnet101_0712": f"{tmp_path}/resnet101/seed0",
                       "resnet101_coco_0712": f"{tmp_path}/resnet101_coco_context/seed0"}
    (run,) = (each for each in planned if each.experiment.name == "resnet101_0712")
    (tmp_path / "moved" / "resnet101_0712" / "seed0").mkdir(parents=True)
    write_run(moved := tmp_path / "moved" / "resnet101_0712" / "seed0", run.experiment, {}, jax.devices())
    check_recipe(run._replace(run_directory=moved, experiment=replace(
        run.experiment, initialize_from=str(tmp_path / "moved" / "resnet101" / "seed0"))))
    monkeypatch.chdir(tmp_path)
    for name in ("vgg16.pth", "resnet101/seed0"):
        with pytest.raises(BadInput, match=f"starts from .*{name}, which does not exist. Train or download it"):
            train_missing(planned, lambda text: None)
        Path(name).mkdir(parents=True)
    with pytest.raises(BadInput, match="resnet101_coco_0712 starts from"):
        train_missing(planned, lambda text: None)


def test_files_that_hold_no_runs(tmp_path):
    with pytest.raises(BadInput, match="no such experiment file"):
        command("table8", runs=tmp_path, experiments=tmp_path)
    (tmp_path / "detection.py").write_text("EXPERIMENTS = 3")
    with pytest.raises(BadInput, match="must define EXPERIMENTS"):
        command("table8", runs=tmp_path, experiments=tmp_path)
    with pytest.raises(BadInput, match="only VOC's server can evaluate it"):
        command("table11", runs=tmp_path, experiments=EXPERIMENTS)


@pytest.mark.parametrize("flags", [{"seeds": 0}, {"seeds": 2}, {"scale": 0.5}, {"shard": "1/2"}, {"data": "voc:/x"},
                                   {"directory": Path("x")}, {"distributed": True}])
def test_what_is_counted_takes_no_flag_of_a_training(flags):
    with pytest.raises(BadInput, match=next(iter(flags))):
        command("table1", **flags)


def test_a_file_of_detectors_as_a_script(tmp_path, monkeypatch, capsys):
    known = load_runs(EXPERIMENTS / "detection.py")
    train_one_of(known, [], "detection.py")
    assert "scenes" in capsys.readouterr().out
    with pytest.raises(BadInput, match="unknown experiment 'scene'; did you mean 'scenes'"):
        train_one_of(known, ["scene"], "detection.py")
    seen = []
    monkeypatch.setattr(detectors, "train", lambda run, folder, tensorboard: seen.append((run, folder)) or {
        "name": run.name, "mean_average_precision": 1.0, "steps": run.steps, "images_per_second": 2.0})
    monkeypatch.setattr(detectors, "draw", lambda folder: [folder / "curve.png"])
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
    assert ["resnet101_0712", "Faster", "R-CNN,", "resnet101", "110", "k"] in listed  # the rest needs images
    execute(["show", f"{file}:vgg16_0712", "--data.shorter-side", "500"])
    shown = capsys.readouterr().out
    assert "data.shorter_side                    500" in shown
    # 13 convolutions, fc6 and fc7 of VGG-16, the proposals' three layers, and 21 + 80 outputs
    proposals = 512 * 512 * 9 + 512 + 512 * 9 + 9 + 512 * 36 + 36
    total = 138_357_544 - (4096 * 1000 + 1000) + proposals + 4097 * (21 + 80)
    assert f"{total:,} parameters, 3 x 3 anchors every 16 pixels" in shown
    with pytest.raises(BadInput, match="scenes trains on scenes"):
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
    run = load_runs(EXPERIMENTS / "detection.py")["resnet101_0712"]
    work = workload_of(run)
    assert sizes_of(run) == ((608, 1008), (608, 800))
    assert "4,952 test images" in work.assumptions[0]
    assert work.precision == "float32"


def test_boxes_are_drawn():
    found = Detected(np.array([[2.0, 3, 12, 9], [5, 20, 30, 38]]), np.array([0.3, 0.8]), np.array([1, 2]))
    best = confident(found, 0.5)
    assert best.labels.tolist() == [2]
    picture = np.asarray(draw_boxes(np.zeros((40, 60, 3), np.uint8), best, ("a", "b")))
    assert picture[37, 20].tolist() == list(colour_of(2, 2))  # the lower side
    assert picture[30, 5].tolist() == list(colour_of(2, 2))
    assert not picture[3:9, 40:].any()
    assert confident(found, 0.0).scores.tolist() == [0.8, 0.3]
