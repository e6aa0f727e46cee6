"""What is promised of a run holds for every kind: recipes are compared, seeds grouped, and nobody tells kinds apart."""

import ast
import csv
import inspect
import itertools
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import resjax
from resjax import Architecture, BadInput, Data, Experiment, Photographs, train
from resjax.console.command_line import execute
from resjax.detection import Detection, Detector, Scenery
from resjax.experiment_files import load_runs
from resjax.models import imagenet_resnet
from resjax.models.counts import list_layers
from resjax.paper import TABLES, Planned, plan_runs, results, train_missing
from resjax.paper.comparison import group_rows, group_runs
from resjax.paper.mean_curves import Curve, curves_of, draw_curves
from resjax.paper.table1 import FLOPS, IMAGE, stage_kernels, table1
from resjax.training.kinds import HOMES, Kind, kind_named
from resjax.training.python_objects import UNKEPT
from resjax.training.run_directory import changes, claimed

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"


@pytest.mark.parametrize("name", HOMES)
def test_a_kind_answers_all_that_is_asked_of_it(name):
    kind = kind_named(name)
    assert kind.VALUE.kind == name
    for question, method in inspect.getmembers(Kind, inspect.isfunction):
        if not question.startswith("_"):
            wanted = [each for each in inspect.signature(method).parameters if each != "self"]
            assert list(inspect.signature(getattr(kind, question)).parameters)[:len(wanted)] == wanted, question
    assert kind.MEASURES
    assert next(iter(kind.CURVES)) == "train"


def test_nobody_tells_kinds_of_runs_apart():
    """No `isinstance` of a run's kind, nor a comparison with its name, in a command, a table, a report or a plan."""
    kinds = {"Experiment", "Detection", "Run"}
    for room in ("console", "paper", "plan"):
        for file in sorted((ROOT / "resjax" / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "type"):
                    asked = {name.id for argument in node.args[1:] for name in ast.walk(argument)
                             if isinstance(name, ast.Name)}
                    assert not asked & kinds, f"{file}: {ast.unparse(node)}"
                if isinstance(node, ast.Compare):
                    words = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
                    assert not words & {*HOMES, "classifier", "detector"}, f"{file}: {ast.unparse(node)}"


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """Two seeds of a net, and one seed of another with a higher rate, not finished."""
    folder = tmp_path_factory.mktemp("seeds")
    run = Experiment(name="net", architecture=Architecture(depth=8, ghost_batch_size=16), data=Data(pad=1, flip=False),
                     steps=4, batch_size=32, log_steps=2, evaluate_steps=2, evaluate_test=True,
                     precise_batch_norm_steps=1)
    for seed in (0, 1):
        train(replace(run, seed=seed), folder / f"seed{seed}", jax.devices()[:1])
    faster = replace(run, optimizer=replace(run.optimizer, learning_rate=0.2))
    shutil.copytree(folder / "seed0", folder / "faster", ignore=shutil.ignore_patterns("checkpoints", "result.json"))
    record = json.loads((folder / "faster" / "experiment.json").read_text())
    record["experiment"]["optimizer"]["learning_rate"] = 0.2
    (folder / "faster" / "experiment.json").write_text(json.dumps(record))
    assert resjax.training.read_experiment(folder / "faster") == faster
    return folder, run


def test_seeds_of_own_recipes_are_compared(two_seeds, capsys):
    folder, _ = two_seeds
    execute(["compare", str(folder), "--out", str(folder / "out")])
    errors = [json.loads((folder / f"seed{seed}" / "result.json").read_text())["test_top1_error"] for seed in (0, 1)]
    row = f"| {np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f} | 2 |"
    text = (folder / "out" / "compare.md").read_text()
    assert f"| net, optimizer.learning_rate 0.1 | ResNet A-8 in CIFAR form | 4 {row}" in text
    assert "| net, optimizer.learning_rate 0.2 | ResNet A-8 in CIFAR form | 4 | - | 0 of 1 |" in text
    assert text in capsys.readouterr().out
    faster, net = csv.DictReader((folder / "out" / "compare.csv").read_text().splitlines())
    assert (net["seeds"], net["finished"], faster["finished"], faster["test_top1_error_mean"]) == ("0 1", "2", "0", "")
    assert float(net["test_top1_error_mean"]) == pytest.approx(np.mean(errors))
    assert float(net["test_top1_error_deviation"]) == pytest.approx(np.std(errors, ddof=1))
    assert resjax.compare(folder).records()[1]["test_top1_error_mean"] == pytest.approx(np.mean(errors))
    assert repr(resjax.compare(folder / "seed0", folder / "seed1", folder / "seed0")) in text.replace(
        ", optimizer.learning_rate 0.1", "").replace("| net, optimizer.learning_rate 0.2 | ResNet A-8 in CIFAR form | "
                                                     "4 | - | 0 of 1 |\n", "")
    rows = json.loads((folder / "out" / "compare.json").read_text())["rows"]
    assert [one["seeds"] for one in rows] == [[0], [0, 1]]
    assert rows[1]["measures"]["test_top1_error"]["values"] == errors
    assert "<svg" in (folder / "out" / "compare.svg").read_text()
    execute(["report", str(folder)])
    page = (folder / "report.html").read_text()
    assert f"<td>{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}</td>" in page
    with pytest.raises(BadInput, match="contains no finished run"):
        execute(["compare", str(folder / "faster")])


def test_a_copy_of_a_run_is_no_further_seed(two_seeds, tmp_path, capsys):
    folder, _ = two_seeds
    for name, seed in (("a", 0), ("b", 0), ("c", 1), ("unfinished", 1)):
        shutil.copytree(folder / f"seed{seed}", tmp_path / name)
    (tmp_path / "unfinished" / "result.json").unlink()
    execute(["compare", str(tmp_path / "unfinished"), str(tmp_path)])
    comparison, (found,) = resjax.compare(tmp_path), resjax.compare(folder / "seed0", folder / "seed1").records()
    assert comparison.records() == [found]
    assert "Left out, because another run has the same recipe" in repr(comparison)
    assert f"recipe and seed: {tmp_path / 'unfinished'}, {tmp_path / 'b'}." in capsys.readouterr().out
    assert "Left out" not in resjax.compare(folder).note()


def test_optimizers_whose_values_are_unknown_are_not_one_recipe(two_seeds, tmp_path):
    folder, _ = two_seeds
    for name, seed in itertools.product(("fast", "slow"), (0, 1)):
        run = tmp_path / name / f"seed{seed}"
        shutil.copytree(folder / f"seed{seed}", run)
        record = json.loads((run / "experiment.json").read_text())
        record["given"] = {"optimizer": f"Trace: {UNKEPT}"}
        (run / "experiment.json").write_text(json.dumps(record))
    records = resjax.compare(tmp_path).records()
    assert [record["run"] for record in records] == [f"net, folder {tmp_path / name}" for name in ("fast", "slow")]
    assert [(record["seeds"], record["finished"]) for record in records] == [("0 1", 2)] * 2


@pytest.mark.parametrize(("field", "label"), [("programs", "code of"), ("code", "code of"), ("images", "images of")])
def test_runs_with_other_code_or_other_arrays_are_no_further_seeds(field, label, two_seeds, tmp_path):
    folder, _ = two_seeds
    for name, seed in itertools.product(("a", "b"), (0, 1)):
        run = tmp_path / name / f"seed{seed}"
        shutil.copytree(folder / f"seed{seed}", run)
        record = json.loads((run / "experiment.json").read_text())
        if field == "images":
            record["experiment"]["data"]["source"] = "arrays"
        record[field] = {"loss (jax 0.10.2)": name}
        (run / "experiment.json").write_text(json.dumps(record))
    names = [record["run"] for record in resjax.compare(tmp_path).records()]
    assert names == [f"net, {label} {tmp_path / name / 'seed0'}" for name in ("a", "b")]


def test_runs_behind_symbolic_links_are_found(two_seeds, tmp_path):
    folder, _ = two_seeds
    (tmp_path / "disk").symlink_to(folder)
    (tmp_path / "again").symlink_to(tmp_path)  # a loop
    assert resjax.compare(tmp_path).records() == resjax.compare(folder).records()
    assert [record["run"] for record in resjax.runs(tmp_path)] == [f"disk/{record['run']}"
                                                                   for record in resjax.runs(folder)]


def test_mean_curves_are_those_of_the_logs(two_seeds):
    folder, run = two_seeds
    training, test = curves_of("net", run, [folder / "seed0", folder / "seed1"])
    for curve, kind, key, title in ((training, "train", "error", "training error, %"),
                                    (test, "test", "top1_error", "test error, %")):
        assert curve.title == title
        assert curve.steps.tolist() == [2, 4]
        for row, seed in zip(curve.values, (0, 1), strict=True):
            lines = map(json.loads, (folder / f"seed{seed}" / "metrics.jsonl").read_text().splitlines())
            assert row.tolist() == [line[key] for line in lines if line["kind"] == kind]
    left, right = draw_curves([[training, test]]).axes
    band = right.collections[0].get_paths()[0].vertices
    low, high = (test.values.mean(0) + side * test.values.std(0, ddof=1) for side in (-1, 1))
    assert {tuple(vertex) for vertex in band} >= {(step, value) for step, value in zip((2, 4), high, strict=True)} | {
        (step, max(value, 0)) for step, value in zip((2, 4), low, strict=True)}
    np.testing.assert_array_equal(left.lines[0].get_ydata(), training.values.mean(0))


def test_one_test_at_the_end_is_a_point():
    once = Curve("net", "test error, %", np.array([40]), np.array([[8.0], [9.0], [13.0]]))
    (axis,) = draw_curves([[once], []]).axes[:1]
    (container,) = axis.containers
    assert container.lines[0].get_xydata().tolist() == [[40, 10]]
    (bar,) = container.lines[2][0].get_segments()
    np.testing.assert_allclose(bar[:, 1], [10 - np.std([8, 9, 13], ddof=1), 10 + np.std([8, 9, 13], ddof=1)])


def test_a_longer_run_that_was_stopped_is_not_finished(two_seeds, tmp_path):
    """Its folder still holds the result of the shorter one."""
    folder, _ = two_seeds
    shutil.copytree(folder / "seed0", tmp_path / "short")
    longer = shutil.copytree(folder / "seed1", tmp_path / "longer")
    record = json.loads((longer / "experiment.json").read_text())
    record["experiment"]["steps"] = 9
    (longer / "experiment.json").write_text(json.dumps(record))
    assert [(one["steps"], one["finished"]) for one in resjax.compare(tmp_path).records()] == [(9, 0), (4, 1)]


def test_kinds_of_runs_stand_beside_each_other():
    one = Experiment(name="a")
    two = Detection(name="b", detector=Detector(frozen_batch_norm=False), data=Scenery(source="scenes"))
    groups = group_runs([(Path("x"), one, {"test_top1_error": 8.0}), (Path("y"), two, {
        "mean_average_precision": 70.0, "eleven_point": 68.0})])
    assert [row[3:] for row in group_rows(groups)] == [
        ["test error %", "mAP %", "mAP % (11 points)", "n"], ["8.00", "-", "-", "1"], ["-", "70.0", "68.0", "1"]]


def test_only_what_was_trained_as_the_papers_stands_in_a_table(two_seeds, tmp_path, capsys):
    folder, _ = two_seeds
    for name, change, message in (
            ("recipe", {}, r"architecture\.depth: 8 -> 20"),
            ("model", {"given": {"model": "Net()"}}, r"model: Net\(\)")):
        place = shutil.copytree(folder / "seed0", tmp_path / name / "resnet20" / "seed0")
        record = json.loads((place / "experiment.json").read_text())
        if change:
            own = load_runs(EXPERIMENTS / "cifar10.py")["resnet20"]
            record["experiment"] = json.loads(json.dumps(resjax.system.serialization.to_json(own)))
        (place / "experiment.json").write_text(json.dumps({**record, **change}))
        before = (place / "result.json").read_text()
        with pytest.raises(BadInput, match=f"resnet20/seed0 differs from the run of the table .*{message}"):
            execute(["reproduce", "table6", "--only", "resnet20", "--seeds", "1", "--runs", str(tmp_path / name)])
        assert (place / "result.json").read_text() == before
        assert not (tmp_path / name / "table6.md").exists()


def test_a_run_that_was_trained_by_hand_is_the_papers(tmp_path, monkeypatch):
    """By `resjax train resnet20`: how often is logged and measured makes no other run, nor where the images lie."""
    (planned,) = plan_runs(TABLES["table6"], EXPERIMENTS, tmp_path, 1, ["resnet20"])
    by_hand = load_runs(EXPERIMENTS / "cifar10.py")["resnet20"]
    assert by_hand.differences(planned.experiment) == []
    assert replace(by_hand, log_steps=7, evaluate_steps=9, data=replace(
        by_hand.data, directory=tmp_path)).differences(by_hand) == []
    assert replace(by_hand, steps=10).differences(by_hand) == []  # it is resumed
    assert by_hand.differences(replace(by_hand, steps=10)) == ["steps: 64000 -> 10"]


def test_a_refused_resume_with_more_steps_keeps_the_result(two_seeds, tmp_path):
    folder, run = two_seeds
    place = shutil.copytree(folder / "seed0", tmp_path / "run")
    before = (place / "result.json").read_bytes()
    record = json.loads((place / "experiment.json").read_text())
    record["images"] |= {"training images": 7, "digest": "x"}
    (place / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="the images have changed since this run began"):
        train(replace(run, steps=6), place, jax.devices()[:1])
    assert (place / "result.json").read_bytes() == before


def test_nothing_is_traced_to_begin_a_table(tmp_path, monkeypatch):
    planned = plan_runs(TABLES["table6"], EXPERIMENTS, tmp_path, seeds=5)
    monkeypatch.setattr("resjax.training.classifiers.train", lambda *_: None)
    monkeypatch.setattr(jax, "make_jaxpr", None)
    begun = time.process_time()
    train_missing(planned, lambda _: None)
    assert len(planned) == 55
    assert time.process_time() - begun < 5  # 40 s with tracing


def test_table_1_is_what_the_computation_does(monkeypatch):
    """Kernels, blocks, strides and map sizes of two networks, told by the layers that run."""
    for depth in (18, 50):
        layers = list_layers(imagenet_resnet(depth), IMAGE)
        for (name, size), text in stage_kernels(depth).items():
            stage = "conv1" if name == "conv1" else f"stage{int(name[4]) - 1}" if name else "fc"
            block = [layer for layer in layers if layer.name.split("/")[0] == stage and "shortcut" not in layer.name]
            if stage != "fc":
                assert size == "x".join(map(str, block[-1].output[:2]))
                for layer in block:
                    assert f"{layer.kernel[0]}x{layer.kernel[1]}, {layer.kernel[3]}" in text
            if stage.startswith("stage"):
                first = [layer for layer in block if "/first/" in layer.name]
                repeats = sum(layer.repeats for layer in block) // len(first)
                assert text.endswith(f"] x {repeats}")
    monkeypatch.setattr(jax, "make_jaxpr", None)
    text = table1()
    assert "| ResNet-50 B v1 | 25,557,032 | 3,857,973,248 | 3.8e9 |" in text
    assert len(FLOPS) == 5


def test_wrong_batch_norm_and_weights_of_detectors():
    with pytest.raises(BadInput, match=r"detector\.frozen-batch-norm needs pretrained statistics; give"):
        Detection(name="x")
    assert Detection(name="x", detector=Detector(backbone="vgg16")).initialize_from == ""  # it has no batch norm


def test_a_folder_of_the_other_kind_is_refused(two_seeds, tmp_path):
    folder, run = two_seeds
    detector = Detection(name="x", initialize_from="resnet20")
    assert changes(run, detector) == ["ResNet A-8 in CIFAR form -> Faster R-CNN, resnet101"]
    assert changes(detector, run) == ["Faster R-CNN, resnet101 -> ResNet A-8 in CIFAR form"]
    with pytest.raises(BadInput, match="seed0 contains a different experiment"), claimed(folder / "seed0", detector):
        pass


def test_seeds_whose_images_lie_in_different_places_are_one_recipe(two_seeds, tmp_path):
    folder, _ = two_seeds
    for seed in (0, 1):
        shutil.copytree(folder / f"seed{seed}", tmp_path / f"seed{seed}")
    two = [("net, data.source folder:/a", "0"), ("net, data.source folder:/b", "1")]
    for place, images, wanted in (("/a", "1", [("net", "0 1")]), ("/b", "1", [("net", "0 1")]), ("/b", "2", two)):
        for seed, source, digest in ((0, "/a", "1"), (1, place, images)):
            file = tmp_path / f"seed{seed}" / "experiment.json"
            record = json.loads(file.read_text())
            record["experiment"]["data"]["source"] = f"folder:{source}"
            file.write_text(json.dumps(record | {"images": {"digest": digest}}))
        assert [(record["run"], record["seeds"]) for record in resjax.compare(tmp_path).records()] == wanted


def test_images_are_measured_in_the_folder_that_is_fingerprinted(tmp_path, monkeypatch):
    """Not in the folder of the run, if another one is asked for by the environment."""
    monkeypatch.setenv("RESJAX_DATA", str(tmp_path / "now"))
    seen = []
    kind = SimpleNamespace(protocol_of=lambda run: "single", fingerprint=lambda run: "1", name_of=str, open=str,
                           measure=lambda opened, *exam: seen.append(exam) or {"top1_error": 1.0})
    monkeypatch.setattr(results, "kind_of", lambda run: kind)
    monkeypatch.setattr(results, "read_result", lambda place: {"state_digest": "2"})
    row = TABLES["table2"].rows[0]
    planned = Planned(row, SimpleNamespace(data=Photographs()), tmp_path)
    assert results.measure_group([planned], TABLES["table2"].measures, {})["top1_error"] == 1.0
    assert seen == [("test", "ten-crop", results.BATCH, "tfds:imagenet2012", tmp_path / "now")]
