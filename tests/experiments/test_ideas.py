"""Ideas in a file of one's own: trained, resumed, evaluated, planned and compared by the command line alone."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import pytest

import resjax
from resjax import BadInput, Experiment, Interrupted, read_metrics
from resjax.console.command_line import execute
from resjax.experiment_files import find, load_runs
from resjax.plan.classifier import programs_of_classifier
from resjax.system.serialization import from_json, to_json

FILE = Path(__file__).parents[2] / "experiments" / "ideas.py"
SMALL = {"steps": 4, "batch_size": 64, "log_steps": 2, "evaluate_steps": 4, "checkpoint_steps": 2,
         "precise_batch_norm_steps": 1}
FLAGS = ["--architecture.depth", "8", *(word for name, value in SMALL.items()
                                        for word in (f"--{name.replace('_', '-')}", str(value)))]
NAMES = ["paper", "squeeze", "stochastic", "smoothed", "mixup", "cosine"]
pytestmark = pytest.mark.usefixtures("one_device")


def shorter(flags, **changes):
    """Change flags: `steps=2`."""
    return [changes.get(before.removeprefix("--"), word) for before, word in zip(["", *flags], flags, strict=False)]


@pytest.fixture
def file(tmp_path):
    """A copy whose cosine warms up for one step."""
    copy = tmp_path / "ideas.py"
    copy.write_text(FILE.read_text().replace("warmup_steps=20", "warmup_steps=1"))
    return copy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ideas")


def test_the_file_is_short_and_takes_public_names():
    text = FILE.read_text()
    assert len(text.splitlines()) <= 60
    assert re.findall(r"^(?:from|import) resjax.*", text, re.MULTILINE) == [re.search("from resjax import .*", text)[0]]
    assert list(load_runs(FILE)) == NAMES


@pytest.mark.parametrize("name", NAMES[1:])
def test_each_idea_trains_resumes_to_the_same_bits_and_evaluates(name, folder, file, capsys):
    def cut(line, network):
        if line["step"] == 4:
            raise Interrupted("enough", 2)

    execute(["train", f"{file}:{name}", *FLAGS, "--workdir", str(folder / name)])
    whole = json.loads((folder / name / "result.json").read_text())
    run = find(f"{file}:{name}")
    run = replace(run, **SMALL, architecture=replace(run.architecture, depth=8), own=replace(run.own, callback=cut))
    with pytest.raises(Interrupted):
        resjax.train(run, file.parent / "cut")
    execute(["train", f"{file}:{name}", *FLAGS, "--workdir", str(file.parent / "cut")])
    assert json.loads((file.parent / "cut" / "result.json").read_text())["state_digest"] == whole["state_digest"]
    assert [line["step"] for line in read_metrics(file.parent / "cut", "train")] == [2, 4]
    capsys.readouterr()
    execute(["evaluate", str(folder / name), "--code", str(file)])
    assert f"top-1 error {whole['test_top1_error']:.2f} %" in capsys.readouterr().out


def test_the_ideas_stand_in_one_comparison(folder, tmp_path, capsys):
    execute(["compare", str(folder), "--out", str(tmp_path)])
    rows = [line.split("|")[1].strip() for line in (tmp_path / "compare.md").read_text().splitlines()
            if line.startswith("| ")]
    assert {row.partition(",")[0] for row in rows} >= {*NAMES[1:]}


def test_another_function_is_refused_and_a_changed_file_told(file, tmp_path, capsys):
    place, flags = str(tmp_path / "run"), shorter(FLAGS, steps="2")
    execute(["train", f"{file}:smoothed", *flags, "--workdir", place])
    assert json.loads(Path(place, "experiment.json").read_text())["given"] == {"loss": "ideas.py:smoothed"}
    file.write_text(file.read_text().replace("def smoothed", "def smoother").replace("loss=smoothed", "loss=smoother"))
    with pytest.raises(BadInput, match=r"its loss is ideas.py:smoothed, but you passed ideas.py:smoother"):
        execute(["train", f"{file}:smoothed", *FLAGS, "--workdir", place])
    file.write_text(file.read_text().replace("smoother", "smoothed") + "# changed\n")
    capsys.readouterr()
    execute(["train", f"{file}:smoothed", *FLAGS, "--workdir", place])
    assert "ideas.py has changed since this run began; the run uses the new version" in capsys.readouterr().err
    with pytest.raises(BadInput, match=r"this run got its loss in Python.* FILE:NAME"):
        find(f"{place}/experiment.json")


def test_seeds_lie_in_folders_of_their_own(file, tmp_path, capsys):
    flags = shorter(FLAGS, steps="2")
    execute(["train", f"{file}:squeeze", *flags, "--seed", "3", "--seeds", "2", "--workdir", str(tmp_path / "runs")])
    out = capsys.readouterr().out
    assert f"resjax evaluate {tmp_path}/runs/seed4 --code {file}" in out
    assert f"resjax compare {tmp_path}/runs" in out
    assert [json.loads((tmp_path / f"runs/seed{n}/result.json").read_text())["seed"] for n in (3, 4)] == [3, 4]
    with pytest.raises(BadInput, match="on the command line pass the file that defines it, --code FILE"):
        execute(["evaluate", str(tmp_path / "runs/seed3")])
    (tmp_path / "other.py").write_text("from resjax import Experiment\nEXPERIMENTS = {'a': Experiment(name='a')}\n")
    with pytest.raises(BadInput, match=r"other.py defines no experiment named 'squeeze'.*; it defines a"):
        execute(["evaluate", str(tmp_path / "runs/seed3"), "--code", str(tmp_path / "other.py")])
    with pytest.raises(BadInput, match="seeds is 0; it must be in 1"):
        execute(["train", f"{file}:squeeze", "--seeds", "0"])


def test_what_is_python_is_neither_written_nor_read():
    run = find(f"{FILE}:squeeze")
    assert "own" not in to_json(run)
    assert from_json(to_json(run), Experiment) == replace(run, own=resjax.Own())
    with pytest.raises(BadInput, match="own"):
        from_json(to_json(run) | {"own": {"model": "os.system"}}, Experiment)


def test_a_plan_is_of_the_runs_own_parts():
    run = find(f"{FILE}:squeeze")
    run = replace(run, **SMALL, architecture=replace(run.architecture, depth=8),
                  own=replace(run.own, augment=resjax.Mixup()))
    name, program = next(programs_of_classifier(run, jax.devices()[:1]))
    text = program.lower().as_text(debug_info=True)
    assert name == "train"
    assert "squeeze" in text
    assert "beta" in text


@pytest.mark.parametrize(("own", "message"), [
    ({"model": lambda run, classes: 3}, "model is 3; it must be a Flax Linen module"),
    ({"optimizer": lambda run: "adam"}, "the function optimizer returned 'adam'; it must return an optax optimizer"),
    ({"loss": 3}, "loss is 3; it must be a function of logits and labels")])
def test_what_makes_something_else_is_named(own, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        resjax.train(replace(find(f"{FILE}:paper"), own=resjax.Own(**own)), tmp_path)
