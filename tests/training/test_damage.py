"""Damaged files of a run: what is read is what was written, or one line says what is wrong; reading changes nothing."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import jax
import pytest
from conftest import flip

from resjax import BadInput, export, load, read_metrics, restore, train
from resjax.console.command_line import execute, guarded
from resjax.training import read_experiment, read_result
from resjax.training.log import Log, rewind_metrics

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def made(small, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("made") / "run"
    train(small(evaluate_test=True, evaluate_steps=2), folder, jax.devices()[:1])
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "runs" / "run")


def content(folder):
    return {str(file): sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


def largest(folder):
    return max((file for file in folder.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


def test_a_finished_run_is_read_at_its_last_step_or_not_at_all(run):
    assert restore(run).state.step == 6
    flip(largest(run / "checkpoints" / "6"), 100)
    before = content(run)
    for _ in range(2):
        with pytest.raises(BadInput, match=r"checkpoint of step 6, .* is damaged \(.* has changed\); delete result"):
            load(run)
    assert content(run) == before


def test_the_remedy_works(run, small, made):
    flip(largest(run / "checkpoints" / "6"), 100)
    (run / "result.json").unlink()
    with pytest.warns(UserWarning, match="is damaged"):
        again = train(small(evaluate_test=True, evaluate_steps=2), run)
    assert again["state_digest"] == read_result(made)["state_digest"]
    assert restore(run).state.step == 6


def test_a_checkpoint_of_another_run_is_not_taken_for_the_result(run):
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"state_digest": "0" * 64}))
    with pytest.raises(BadInput, match=r"its result\.json belongs to another checkpoint"):
        load(run)


def test_a_run_that_is_not_finished_is_read_at_its_newest_whole_checkpoint(run):
    (run / "result.json").unlink()
    flip(largest(run / "checkpoints" / "6"), 100)
    before = content(run)
    with pytest.warns(UserWarning, match=r"checkpoint of step 6 is damaged \(.*\); using the one of step 4"):
        assert restore(run).state.step == 4
    assert content(run) == before
    for step in (2, 4):
        flip(largest(run / "checkpoints" / str(step)), 100)
    with pytest.raises(BadInput, match="every checkpoint is damaged"):
        restore(run)


@pytest.mark.parametrize("name", ["model.safetensors", "mean.npy"])
def test_an_export_is_read_as_it_was_written_or_not_at_all(run, tmp_path, name):
    out = export(load(run), "stablehlo", tmp_path / "other")  # is no weights: nothing to check
    assert not (out / "model.json").exists()
    from networks import random_network

    out = export(random_network(mean_image=True), "akamaster", tmp_path / "out")
    load(out)
    flip(out / name, (out / name).stat().st_size - 3)
    with pytest.raises(BadInput, match=rf"{name}: has changed since its description was written"):
        load(out)


def spoil(file, how):
    match how:
        case "nothing":
            file.write_bytes(b"")
        case "half":
            file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])
        case "not text":
            file.write_bytes(b"\xff\xfe" + file.read_bytes())
        case "another type":
            file.write_text("[1, 2]")
        case "deep":
            file.write_text("[" * 100_000)
        case "a missing key":
            file.write_text("{}")
        case "a folder":
            file.unlink()
            file.mkdir()
        case "numbers as text":
            file.write_text(file.read_text().replace(": 6", ': "6"'))


DAMAGES = ["nothing", "half", "not text", "another type", "deep", "a missing key", "a folder", "numbers as text"]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["experiment.json", "result.json"])
def test_damaged_json_is_one_line_that_names_it(run, capsys, name, how):
    spoil(run / name, how)
    if (name, how) == ("experiment.json", "numbers as text"):
        how = "steps"
    for arguments in (["evaluate", str(run)], ["export", str(run), "--to", "stablehlo", "--out", str(run / "out")]):
        assert guarded(lambda arguments=arguments: execute(arguments)) in (1, 2)
        err = capsys.readouterr().err
        assert "Traceback" not in err
        (told,) = (line for line in err.splitlines() if not line.endswith(" ..."))  # which names what takes a second
        assert name in told


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["experiment.json", "result.json", "metrics.jsonl"])
def test_one_damaged_run_keeps_no_report_from_showing_the_others(run, made, capsys, name, how):
    shutil.copytree(made, run.parent / "whole")
    if how == "a folder" and name == "metrics.jsonl":
        pytest.skip("a folder is no file, and says so when the run goes on")
    spoil(run / name, how)
    assert guarded(lambda: execute(["report", str(run.parent)])) == 0
    page = (run.parent / "report.html").read_text()
    assert "<summary>whole</summary>" in page
    assert page.count("<summary>") + page.count("<section><h3>") == 2  # both runs: whole, or with what is wrong
    assert "Traceback" not in capsys.readouterr().err


def test_lines_of_the_log_that_are_none_are_said_and_left_out(run, small, capsys, made):
    (run / "result.json").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[1:1] = ["{", '{"step": 1}', '{"step": "x", "kind": "train"}', "[]"]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert len(read_metrics(run)) == len(read_metrics(made))
    train(small(evaluate_test=True, evaluate_steps=2), run)
    assert "metrics.jsonl: dropped 4 unreadable lines" in capsys.readouterr().err
    assert [line["step"] for line in read_metrics(run, "train")] == [2, 4, 6]


def test_a_last_line_that_was_not_written_to_its_end_is_left_out(run, made, capsys):
    """The rest of a kill, a full disk (nothing) or a power failure (zeros), which a run that goes on writes anew."""
    file, lines = run / "metrics.jsonl", read_metrics(made)
    whole = (made / "metrics.jsonl").read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole) - 1):
        for rest in (b"", bytes(len(whole) - end)):
            file.write_bytes(whole[:end] + rest)
            assert read_metrics(run) == lines[:-1]
    execute(["report", str(run.parent)])
    rewind_metrics(Log(run, "run", steps=6, batch_size=32), step=4)
    assert "unreadable" not in capsys.readouterr().err
    assert read_metrics(run) == [line for line in lines if line["step"] <= 4]


def test_a_run_made_longer_keeps_the_last_errors_of_the_shorter_one(run, made):
    """They belong to the state from which it goes on; a run that only evaluates again writes them again."""
    rewind_metrics(Log(run, "run", steps=9, batch_size=32), step=6)
    assert read_metrics(run) == read_metrics(made)
    rewind_metrics(Log(run, "run", steps=6, batch_size=32), step=6)
    assert read_metrics(run) == [line for line in read_metrics(made) if (line["step"], line["kind"]) != (6, "test")]


def test_nothing_from_files_is_a_tag_in_the_report(run, capsys):
    experiment = json.loads((run / "experiment.json").read_text())
    experiment["versions"]["<script>"] = "<b>"
    (run / "experiment.json").write_text(json.dumps(experiment))
    row = {"experiment": "x", "title": "<i>", "layers": 1, "steps": 1, "parameters": 1,
           "measures": [{"paper": "<script>alert(1)</script>", "ours": "1.0", "values": [1.0]}],
           "training_errors": [1.0], "holds": True, "verdict": "<u>"}
    (run.parent / "table6.json").write_text(json.dumps({
        "command": "<a>", "title": "<h9>", "protocol": "<p2>", "scale": 1, "rows": [row], "figures": []}))
    execute(["report", str(run.parent)])
    page = (run.parent / "report.html").read_text()
    assert "Content-Security-Policy" in page
    for tag in ("<script>alert", "<i>", "<u>", "<a>", "<h9>", "<p2>"):
        assert tag not in page
    assert page.count("<script") == 2  # the page's own: its data, and what draws them


def test_reading_needs_no_permission_to_write(run, capsys):
    import os

    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    for path in sorted(run.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    Path(run).chmod(0o555)
    execute(["evaluate", str(run)])
    assert "360 images" in capsys.readouterr().out


def test_experiments_are_read_whole(made):
    assert read_experiment(made).name == "small"
