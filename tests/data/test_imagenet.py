"""From JPEGs to the table: a small ResNet-18 learns real photographs, is killed and goes on, and is measured."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

from resjax import Architecture, BadInput, Experiment, Optimizer, Photographs, read_metrics, restore, train
from resjax.console.command_line import execute
from resjax.paper import TABLES, plan_runs
from resjax.paper.figures import figure4
from resjax.training import classifiers

FILE = """
from resjax import Architecture, Experiment, Optimizer, Photographs, run
def tiny(name, depth=18, shortcut="A"):
    return Experiment(
        name=name, architecture=Architecture(family="imagenet", depth=depth, shortcut=shortcut, ghost_batch_size=8),
        data=Photographs(source="folder:FOLDERS", size=64, shorter_side=(68, 90), test_shorter_side=68,
                         workers=WORKERS),
        optimizer=Optimizer(learning_rate=0.005, decay_steps=(12,), plateau_steps=8), steps=16,
        batch_size=16, log_steps=4, evaluate_steps=8, evaluate_test=True,
        checkpoint_steps=4, precise_batch_norm_steps=4)
EXPERIMENTS = {e.name: e for e in [tiny("plain18", shortcut="plain"), tiny("resnet18A")]}
if __name__ == "__main__":
    run(EXPERIMENTS)
"""


def write(folder, photographs, workers=0):
    (folder / "tiny").mkdir(parents=True, exist_ok=True)
    file = folder / "tiny" / "imagenet.py"
    file.write_text(FILE.replace("FOLDERS", str(photographs / "folders")).replace("WORKERS", str(workers)))
    return file


def start(folder, photographs, workers=0):
    command = [sys.executable, str(write(folder, photographs, workers)), "resnet18A", "--workdir", str(folder / "run")]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "RESJAX_CACHE": str(folder / "cache"),
                                "PYTHONWARNINGS": "always:resource_tracker"}  # leaked shared memory is told
    with (folder / "err").open("a") as err:
        return subprocess.Popen(command, stdout=err, stderr=err, env=environment)


@pytest.fixture(scope="module")
def done(photographs, tmp_path_factory):
    """A run from its script, with two worker processes, never stopped."""
    folder = tmp_path_factory.mktemp("imagenet")
    assert start(folder, photographs, workers=2).wait(timeout=300) == 0, (folder / "err").read_text()
    return folder


def result(folder):
    return json.loads((folder / "run" / "result.json").read_text())


def test_resnet_18_learns_photographs(done):
    lines = read_metrics(done / "run", "train")
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert result(done)["test_top1_error"] <= 20  # 4 of 24 images; guessing would get half of them wrong
    assert all(0 <= line["data_wait"] <= 100 for line in lines)
    assert "leaked" not in (done / "err").read_text()
    assert "Traceback" not in (done / "err").read_text()


def wait_for_lines(count, folder, process):
    while len(read_metrics(folder / "run", "train")) < count:
        assert process.poll() is None, (folder / "err").read_text()
        time.sleep(0.01)


def test_killed_and_stopped_it_ends_with_the_same_bits_and_its_workers_with_it(done, photographs, tmp_path):
    process = start(tmp_path, photographs, workers=2)
    wait_for_lines(1, tmp_path, process)
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [pid for file in threads for pid in file.read_text().split()]
    workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(workers) >= 2
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < until, "workers are left"
        time.sleep(0.1)
    process = start(tmp_path, photographs)
    wait_for_lines(3, tmp_path, process)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    assert start(tmp_path, photographs).wait(timeout=300) == 0, (tmp_path / "err").read_text()
    assert result(tmp_path)["state_digest"] == result(done)["state_digest"]
    assert "resumes at step" in (tmp_path / "err").read_text()


@pytest.mark.parametrize("views", ["single", "ten-crop", "multi-scale"])
def test_a_run_is_measured_by_every_protocol(done, capsys, views):
    execute(["evaluate", str(done / "run"), "--views", views])
    out = capsys.readouterr().out
    assert "24 images" in out
    assert float(out.partition("top-1 error ")[2].split()[0]) <= 20
    if views == "single":
        assert f"top-1 error {result(done)['test_top1_error']:.2f} %" in out


def test_archives_and_prepared_sets_can_be_measured_too(done, photographs, capsys):
    execute(["evaluate", str(done / "run"), "--data", f"tars:{photographs}/tars"])
    execute(["evaluate", str(done / "run"), "--data", "tfds:photos", "--directory", f"{photographs}/tfds"])
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert "24 images" in first


def test_predict_names_the_class_of_a_photograph(done, photographs, capsys):
    file = next((photographs / "folders" / "val" / "n02000002").iterdir())
    execute(["predict", str(done / "run"), str(file)])
    assert capsys.readouterr().out.startswith(f"{file}: n02000002 ")


def test_wrong_protocols_and_splits_are_refused(done, photographs, tmp_path):
    with pytest.raises(BadInput, match="no images are held out for validation"):
        execute(["evaluate", str(done / "run"), "--split", "validation"])
    other = tmp_path / "other"
    for split in ("train", "val"):
        for name in ("a", "b"):
            (other / split / name).mkdir(parents=True)
            (other / split / name / "x.JPEG").write_bytes(b"")
    with pytest.raises(BadInput, match="only one has a, b, n02000001, n02000002"):
        execute(["evaluate", str(done / "run"), "--data", f"folder:{other}"])


def test_a_table_is_one_command(done, photographs, tmp_path, capsys, monkeypatch):
    """Table 2 from a run that another machine has made: ten-cropped once, and kept."""
    write(tmp_path, photographs)
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(done / "run", tmp_path / "runs" / "resnet18A" / "seed0")
    arguments = ["reproduce", "table2", "--only", "resnet18A", "--experiments", "tiny"]
    execute(arguments)
    out, err = capsys.readouterr()
    assert "1 runs: 1 finished, 0 to train" in err
    assert "| ResNet-18 A | 18 | 11,003,714 | 27.88 |" in out
    assert "Figure 4" in out
    kept = json.loads((run / "measured-ten-crop.json").read_text())
    (row,) = json.loads((tmp_path / "runs" / "table2.json").read_text())["rows"]
    assert row["measures"][0]["values"] == [kept["top1_error"]]
    assert kept["images"] == 24
    drawing = figure4(plan_runs(TABLES["table2"], tmp_path / "tiny", tmp_path / "runs", 1, ["resnet18A"]))
    assert drawing.figure.axes[1].get_ylim()[1] >= read_metrics(run, "train")[0]["error"]  # no plain net is there
    plt.close(drawing.figure)
    monkeypatch.setattr("resjax.training.classifiers.measure_networks", None)
    execute(arguments)
    assert capsys.readouterr().out == out


def test_what_was_measured_is_kept_when_images_move_but_not_when_they_change(done, photographs, tmp_path, monkeypatch):
    write(tmp_path, photographs)
    monkeypatch.chdir(tmp_path)
    run = shutil.copytree(done / "run", tmp_path / "runs" / "resnet18A" / "seed0")
    arguments = ["reproduce", "table2", "--only", "resnet18A", "--experiments", "tiny"]
    execute(arguments)
    first = json.loads((run / "measured-ten-crop.json").read_text())
    asked, measure = [], classifiers.measure_networks
    monkeypatch.setattr(classifiers, "measure_networks", lambda *how: asked.append(how) or measure(*how))
    moved = shutil.copytree(photographs / "folders", tmp_path / "moved")
    execute([*arguments, "--data", f"folder:{moved}"])
    assert asked == []
    small, large = sorted((next((moved / "val" / name).iterdir()) for name in ("n02000001", "n02000002")),
                            key=lambda file: file.stat().st_size)
    large.write_bytes(small.read_bytes().ljust(large.stat().st_size, b"\0"))  # other pixels, under the name and size
    execute([*arguments, "--data", f"folder:{moved}"])
    assert len(asked) == 1
    assert json.loads((run / "measured-ten-crop.json").read_text())["loss"] != first["loss"]


def test_the_ensemble_of_table_5_is_measured_together(done, photographs, tmp_path, monkeypatch):
    from resjax.paper.results import as_markdown, collect_results
    from resjax.paper.tables import TABLE5

    row = TABLE5.rows[0]._replace(members=(("resnet18A", 0), ("resnet18A", 1)))
    table = TABLE5._replace(rows=(row._replace(how="single"),))
    write(tmp_path, photographs)
    runs = plan_runs(table, tmp_path / "tiny", tmp_path, seeds=3)
    assert [run.run_directory.name for run in runs] == ["seed0", "seed1"]
    assert collect_results(table, runs) == []
    for run in runs:
        shutil.copytree(done / "run", run.run_directory)
        described = json.loads((run.run_directory / "experiment.json").read_text())
        described["experiment"]["seed"] = run.experiment.seed
        (run.run_directory / "experiment.json").write_text(json.dumps(described))
    (line,) = collect_results(table, runs)
    assert (len(line.values), len(line.values[0]), line.parameters) == (1, 1, 2 * 11_003_714)
    assert "| ResNet, six models | 152 | 22,007,428 | 3.57 |" in as_markdown(table, [line], 1.0)
    assert "| GoogLeNet (ILSVRC'14) |  |  | 6.66 |" in as_markdown(table, [line], 1.0)


@pytest.mark.parametrize("name", ["table2", "table3", "table4", "table5"])
def test_every_row_has_its_experiment(name):
    runs = plan_runs(TABLES[name], Path(__file__).parents[2] / "experiments", Path("runs"), seeds=1)
    for run in runs:
        experiment = run.experiment
        assert (experiment.steps, experiment.batch_size, experiment.optimizer.learning_rate) == (600_000, 256, 0.1)
        assert experiment.architecture.ghost_batch_size == 32
        if not run.row.members:
            assert experiment.architecture.depth == run.row.layers
            option = run.row.title.rpartition(" ")[2] if run.row.title[-1] in "ABC" else "B"
            assert experiment.architecture.shortcut == ("plain" if run.row.title.startswith("plain") else option)
    directories = {run.run_directory for run in runs}
    assert len(directories) == len(runs) == {"table2": 4, "table3": 7, "table4": 5, "table5": 6}[name]


def test_too_many_unreadable_images_stop_the_run(photographs, tmp_path, capsys):
    shutil.copytree(photographs / "folders", tmp_path / "folders")
    for i in range(3):
        file = tmp_path / "folders" / "train" / "n02000001" / f"n02000001_{i}.JPEG"
        file.write_bytes(file.read_bytes()[:900])
    run = Experiment(
        name="broken", architecture=Architecture(family="imagenet", depth=18, ghost_batch_size=8), steps=9,
        batch_size=16,
        optimizer=Optimizer(decay_steps=()), data=Photographs(
            source=f"folder:{tmp_path}/folders", size=64, shorter_side=(68, 90), test_shorter_side=68, workers=0,
            broken_images=2))
    with pytest.raises(BadInput, match=r"3 images are unreadable, but data\.broken-images allows 2"):
        train(run, tmp_path / "run")  # the mean image meets them all


def test_a_restored_network_takes_images_of_any_size(done):
    trained = restore(done / "run")
    for shape in ((64, 64), (128, 160), (224, 224)):
        logits = jax.jit(trained.model.apply)(trained.state.variables, np.zeros((1, *shape, 3), np.float32))
        assert logits.shape == (1, 2)
