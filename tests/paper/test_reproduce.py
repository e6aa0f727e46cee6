"""A table is one command: what is missing is trained, ours stands beside the paper's, killing changes nothing."""

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from resjax import BadInput, read_metrics
from resjax.console.command_line import execute
from resjax.experiment_files import load_runs
from resjax.paper import TABLES, Planned, figures, plan_runs, results
from resjax.paper.figures import figure4, figure6
from resjax.paper.reproduce import shard_of, shorten_schedule, train_missing
from resjax.paper.results import RowResult, as_markdown, judge
from resjax.system.progress import Screen

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TABLE6 = TABLES["table6"]
TINY = """
from dataclasses import replace
from resjax import Architecture, Data, Experiment, Optimizer
def tiny(name, depth, shortcut):
    return Experiment(name=name, architecture=Architecture(depth=depth, shortcut=shortcut, ghost_batch_size=16),
                      data=Data(pad=1, flip=False), optimizer=Optimizer(learning_rate=0.05, decay_steps=(6, 9)),
                      steps=12, batch_size=32, log_steps=2, evaluate_steps=4, checkpoint_steps=4,
                      precise_batch_norm_steps=2)
EXPERIMENTS = {e.name: e for e in [tiny("plain20", 8, "plain"), tiny("resnet20", 8, "A")]}
"""


ARGUMENTS = ["reproduce", "table6", "--only", "plain20,resnet20", "--seeds", "2", "--experiments", "tiny"]


def write_tiny(folder):
    (folder / "tiny").mkdir(exist_ok=True)
    (folder / "tiny" / "cifar10.py").write_text(TINY)


def reproduce(folder, *more):
    """Give the command in this process, on one device; return what it prints on standard output and error."""
    write_tiny(folder)
    devices = jax.devices()[:1]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        patch.chdir(folder)
        patch.setattr(jax, "devices", lambda: devices)
        execute([*ARGUMENTS, *more])
    return out.getvalue(), err.getvalue()


def start(folder):
    """Give the command in a process of its own."""
    write_tiny(folder)
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen([sys.executable, "-m", "resjax", *ARGUMENTS], cwd=folder, stdout=out, stderr=err)


def finish(folder):
    assert start(folder).wait(timeout=200) == 0, (folder / "err").read_text()
    return (folder / "out").read_text(), (folder / "err").read_text()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two seeds of two rows, never killed."""
    folder = tmp_path_factory.mktemp("reproduced")
    return folder, *finish(folder)


def trained_lines(folder):
    return sum(file.read_text().count('"train"') for file in folder.glob("runs/*/*/metrics.jsonl"))


def outcome(folder):
    files = [folder / "runs" / name for name in ("table6.md", "table6.json", "figure6.svg")]
    results = sorted(folder.glob("runs/*/*/result.json"))
    return [file.read_text() for file in files], [json.loads(file.read_text())["state_digest"] for file in results]


def test_a_table_is_trained_and_printed(done):
    folder, out, err = done
    table = json.loads((folder / "runs" / "table6.json").read_text())
    for row in table["rows"]:
        results = [json.loads((folder / "runs" / row["experiment"] / f"seed{seed}" / "result.json").read_text())
                   for seed in (0, 1)]
        errors = [result["test_top1_error"] for result in results]
        assert [result["seed"] for result in results] == [0, 1]
        (measured,) = row["measures"]
        assert measured["values"] == errors
        assert measured["mean"] == pytest.approx(sum(errors) / 2)
        assert measured["deviation"] == pytest.approx(abs(errors[0] - errors[1]) / 2**0.5)
    assert [row["measures"][0]["paper"] for row in table["rows"]] == ["~9.50", "8.75"]
    assert table["command"] == "resjax reproduce table6 --seeds 2 --only plain20,resnet20 --experiments tiny"
    responses = json.loads((folder / "runs" / "plain20" / "seed0" / "responses.json").read_text())
    assert responses["images"] == 360  # all test images, though 100 does not divide them
    assert (folder / "runs" / "table6.md").read_text() in out
    assert "1 of 4: runs/plain20/seed0\n" in err
    assert " in total)\n" in err
    assert len(read_metrics(folder / "runs" / "plain20" / "seed0", "test")) == 3  # after 4, 8 and 12 steps


def test_a_finished_table_is_not_trained_again(done):
    folder, out, _ = done
    again, err = reproduce(folder)
    assert again == out
    assert "4 runs: 4 finished, 0 to train" in err


def test_all_processes_restore_for_figure_7_and_the_first_writes(done, tmp_path, monkeypatch):
    """Processes that work as one restore a checkpoint together: one of them alone would wait for ever."""
    restored, restore = [], figures.restore
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "restore", lambda run: restored.append(run) or restore(run))
    for module in (figures, results):
        monkeypatch.setattr(module, "is_first", lambda: False)
    write_tiny(tmp_path)
    shutil.copytree(done[0] / "runs", tmp_path / "runs")
    for file in (*tmp_path.glob("runs/*.*"), *tmp_path.glob("runs/*/*/responses.json")):
        file.unlink()
    planned = plan_runs(TABLE6, tmp_path / "tiny", tmp_path / "runs", 2, ("plain20", "resnet20"))
    results.write_table(TABLE6, planned, 1.0, tmp_path / "runs", "command")
    assert [run.parent.name for run in restored] == ["plain20", "resnet20"]
    assert not [*tmp_path.glob("runs/*.*"), *tmp_path.glob("runs/*/*/responses.json")]


def test_killed_and_started_again_it_ends_with_the_same_table(done, tmp_path):
    process = start(tmp_path)
    while trained_lines(tmp_path) < 8:  # of 24: within the second run
        assert process.poll() is None, (tmp_path / "err").read_text()
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    finish(tmp_path)
    assert outcome(tmp_path) == outcome(done[0])


def test_the_parts_of_two_machines_make_the_whole(tmp_path):
    _, first = reproduce(tmp_path, "--shard", "1/2")
    shutil.copytree(tmp_path, tmp_path / "other", ignore=shutil.ignore_patterns("runs"))
    _, second = reproduce(tmp_path / "other", "--shard", "2/2")
    shutil.copytree(tmp_path / "other" / "runs", tmp_path / "runs", dirs_exist_ok=True)
    _, third = reproduce(tmp_path)
    assert "2 runs: 0 finished, 2 to train" in first
    assert "2 runs: 0 finished, 2 to train" in second
    assert "4 runs: 4 finished, 0 to train" in third
    results = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("runs/*/*/result.json"))]
    rows = json.loads((tmp_path / "runs" / "table6.json").read_text())["rows"]
    errors = [error for row in rows for error in row["measures"][0]["values"]]
    assert errors == [result["test_top1_error"] for result in results]
    assert [(result["name"], result["seed"]) for result in results] == [
        (name, seed) for name in ("plain20", "resnet20") for seed in (0, 1)]


def test_rows_that_share_a_run_are_of_one_shard():
    planned = plan_runs(TABLES["table9"], EXPERIMENTS, Path("runs"), 1)
    shards = [{run.run_directory for run in shard_of(planned, f"{part}/2")} for part in (1, 2)]
    assert not shards[0] & shards[1]
    assert shards[0] | shards[1] == {run.run_directory for run in planned}


def test_a_figure_that_cannot_be_drawn_is_left_out(done, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    shutil.copytree(done[0] / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "plain20" / "seed0" / "checkpoints")
    (tmp_path / "runs" / "plain20" / "seed0" / "responses.json").unlink()
    reproduce(tmp_path)
    table = json.loads((tmp_path / "runs" / "table6.json").read_text())
    assert [figure["file"] for figure in table["figures"]] == ["figure6.svg"]
    assert len(table["rows"]) == 2


def test_seeds_train_one_after_the_other(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr("resjax.training.classifiers.train", lambda run, workdir, devices: trained.append(
        (run.name, run.seed, Screen.nets.number, Screen.nets.works)))
    train_missing(plan_runs(TABLE6, EXPERIMENTS, tmp_path, seeds=2, only=["plain20", "resnet20"]), lambda _: None)
    assert [run[:2] for run in trained] == [(name, seed) for seed in (0, 1) for name in ("plain20", "resnet20")]
    assert [run[2] for run in trained] == [0, 1, 2, 3]
    assert trained[0][3] == pytest.approx([40_551_040 * 64_000 * 128] * 4)  # multiply-adds: the nets take as long


def test_a_shortened_schedule_is_in_proportion_and_says_so():
    experiments = load_runs(EXPERIMENTS / "cifar10.py")
    short = shorten_schedule(experiments["resnet56"], scale=0.05)
    assert (short.steps, short.optimizer.decay_steps, short.precise_batch_norm_steps) == (3_200, (1_600, 2_400), 5)
    assert short.batch_size == experiments["resnet56"].batch_size
    assert short.log_steps == experiments["resnet56"].log_steps  # the training error is the mean over so many
    line = RowResult(TABLE6.rows[0], 3_200, ((20.0, 22.0),), (5.0, 6.0), 269_722, (1.0, 1.0))
    text = as_markdown(TABLE6, [line], 0.05)
    assert "| 21.00 ± 1.41 [3,200 steps] | 20.00 [3,200 steps] | 2 | - | 5.50 [3,200 steps] |" in text
    assert "not a reproduction" in text
    assert "steps]" not in as_markdown(TABLE6, [line], 1.0)
    assert "| +11.50 |" in as_markdown(TABLE6, [line], 1.0)


def test_every_row_has_its_experiment_and_depth():
    runs = plan_runs(TABLE6, EXPERIMENTS, Path("runs"), seeds=2)
    assert len(runs) == 2 * len(TABLE6.rows)
    for run in runs:
        assert run.experiment.architecture.depth == run.row.layers
        assert (run.experiment.architecture.shortcut == "plain") == run.row.title.startswith("plain")
        assert run.experiment.steps == 64_000
    assert {run.run_directory for run in runs} == {
        run.run_directory for i in (1, 2, 3) for run in shard_of(runs, f"{i}/3")}
    shorter = plan_runs(TABLE6, EXPERIMENTS, Path("runs"), 1, scale=0.1)
    assert {run.run_directory.parent.name for run in shorter}.isdisjoint(
        run.run_directory.parent.name for run in runs)


def test_claims_are_judged_from_the_means():
    rows = {row.experiment: row for row in TABLE6.rows}

    def line(name, *errors, steps=64_000):
        return RowResult(rows[name], steps, (errors,), errors, 1, errors)

    lines = [line("plain20", 9.0), line("plain56", 12.0, 14.0), line("resnet20", 9.5), line("resnet56", 7.0)]
    assert [judge(each, lines) for each in lines] == [
        (None, "nothing to compare with"), (True, "holds: > plain-20"), (False, "fails: < plain-20"),
        (True, "holds: < plain-56, < ResNet-20")]
    assert judge(line("plain56", 12.0, steps=400), lines) == (None, "too short to judge")


def test_figure_6_claims_what_the_paper_claims_and_of_nets_that_were_trained(tmp_path):
    """ResNet-1202's training error is only "similar" to ResNet-110's, and after some hundred steps noise decides."""
    def run(name, error, steps=64_000, rows=TABLE6.rows):
        row = next(row for row in rows if row.experiment == name)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        line = {"step": steps, "kind": "train", "loss": 1.0, "error": error, "learning_rate": 0.1,
                "images_per_second": 1.0, "data_wait": 0.0}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        return Planned(row, SimpleNamespace(steps=steps, architecture=SimpleNamespace(
            shortcut="plain" if name.startswith("plain") else "A")), folder)

    def claims(*runs):
        return [(claim.partition(":")[0], holds) for claim, holds in figure6(runs).claims]

    deep = run("resnet56", 0.2), run("resnet110", 0.1), run("resnet1202", 0.15)
    assert claims(*deep) == [("ResNet-110 has a lower training error than ResNet-56", True)]
    assert claims(run("plain20", 60.0, 500), run("resnet20", 50.0, 500)) == [
        ("ResNet-20 has a lower training error than plain-20", None)]
    drawn = figure4([run(name, error, rows=TABLES["table2"].rows) for name, error in (
        ("plain18", 40.0), ("plain34", 45.0), ("resnet18A", 41.0), ("resnet34A", 35.0))])  # those of 18 are comparable
    assert [claim.partition(":")[0].split(" has a lower training error than ") for claim, _ in drawn.claims] == [
        ["plain-18", "plain-34"], ["ResNet-34 A", "ResNet-18 A"], ["ResNet-34 A", "plain-34"]]


@pytest.mark.parametrize(("change", "message"), [
    ({"only": ["resnet21"]}, "no row 'resnet21'; its rows are plain20,"), ({"seeds": 0}, "seeds is 0"),
    ({"scale": 0.0}, "scale is 0.0; it must be in"), ({"scale": 2.0}, "scale is 2.0"),
    ({"experiments": Path("nowhere")}, "no such experiment file")])
def test_wrong_plans_are_refused(change, message):
    right = {"experiments": EXPERIMENTS, "runs": Path("runs"), "seeds": 1}
    with pytest.raises(BadInput, match=message):
        plan_runs(TABLE6, **(right | change))


@pytest.mark.parametrize("shard", ["2", "0/2", "3/2", "a/b", "1/0"])
def test_wrong_shards_are_refused(shard):
    with pytest.raises(BadInput, match="such as 2/8"):
        shard_of([], shard)


def test_rows_differ_only_in_name_depth_and_shortcut():
    """The recipe is one: what differs from row to row is the network, and the warm-up of 110 and more layers."""
    shallow = [run.experiment for run in plan_runs(TABLE6, EXPERIMENTS, Path("runs"), seeds=1) if run.row.layers < 110]
    recipes = {replace(e, name="", architecture=replace(e.architecture, depth=20, shortcut="A")) for e in shallow}
    assert len(recipes) == 1
