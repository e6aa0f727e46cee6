"""Every run in the experiment files, flattened: a diff of golden/ shows any change of a recipe.

After a change that is meant: `python tests/experiments/test_experiments.py` writes them anew.
"""

from pathlib import Path

import pytest

from resjax import Architecture, BadInput, Data, Experiment, Optimizer
from resjax.experiment_files import find, load_runs, select
from resjax.system.serialization import flatten, from_json, to_json

FILES = [Path(__file__).parents[2] / "experiments" / name for name in ("cifar10.py", "quickstart.py", "imagenet.py",
                                                                  "torchvision_recipe.py", "finetune.py")]
GOLDEN = Path(__file__).parents[1] / "golden"


def text(file):
    return "\n".join(f"{name}\n" + "".join(f"  {key} = {value!r}\n" for key, value in flatten(experiment).items())
                     for name, experiment in load_runs(file).items())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_runs_are_as_recorded(file):
    assert text(file) == (GOLDEN / f"{file.stem}.txt").read_text()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_experiment_goes_through_json(file):
    for name, experiment in load_runs(file).items():
        assert from_json(to_json(experiment), Experiment) == experiment
        assert experiment.name == name


def test_what_an_earlier_version_wrote_is_read_with_the_defaults_of_what_came_since():
    run = load_runs(FILES[0])["resnet56"]
    written = to_json(run)
    for part, name in (("architecture", "family"), ("architecture", "stride_in"), ("optimizer", "plateau_steps")):
        del written[part][name]
    assert from_json(written, Experiment) == run
    del written["name"]
    with pytest.raises(BadInput, match="unknown or missing field: name"):
        from_json(written, Experiment)


def test_table_6_is_complete():
    experiments = load_runs(FILES[0])
    for kind, shortcut, deepest in (("plain", "plain", 110), ("resnet", "A", 1202)):
        for depth in {20, 32, 44, 56, 110, deepest}:
            architecture = experiments[f"{kind}{depth}"].architecture
            assert (architecture.depth, architecture.shortcut) == (depth, shortcut)


def test_the_paper_recipe():
    run = find(f"{FILES[0]}:resnet56")
    assert (run.steps, run.batch_size, run.architecture.ghost_batch_size) == (64_000, 128, 64)
    assert run.optimizer == Optimizer(learning_rate=0.1, momentum=0.9, weight_decay=1e-4, decay_steps=(32_000, 48_000))
    assert (run.data.pad, run.data.flip) == (4, True)


def test_the_recipe_on_imagenet():
    run = find(f"{FILES[2]}:resnet34A")
    assert (run.steps, run.batch_size, run.architecture.ghost_batch_size) == (600_000, 256, 32)
    assert run.optimizer == Optimizer(learning_rate=0.1, momentum=0.9, weight_decay=1e-4, decay_steps=(),
                                      plateau_steps=10_000)
    data = run.data
    assert (data.size, data.shorter_side, data.crop, data.colour_noise) == (224, (256, 480), "scale", 0.1)
    assert run.architecture.stride_in == "1x1"


def test_unknown_names_list_those_that_there_are():
    with pytest.raises(BadInput, match="unknown experiment 'restnet20'; did you mean 'resnet20'"):
        select(load_runs(FILES[0]), "restnet20")


def test_a_file_without_experiments_is_named(tmp_path):
    (tmp_path / "mine.py").write_text("EXPERIMENT = 3\n")
    with pytest.raises(BadInput, match=r"mine\.py: it must define EXPERIMENTS"):
        load_runs(tmp_path / "mine.py")
    (tmp_path / "mine.py").write_text("from resjax import Experiment\nEXPERIMENTS = {1: Experiment(name='x')}\n")
    with pytest.raises(BadInput, match=r"mine\.py: it must define EXPERIMENTS, a dict\[str"):
        load_runs(tmp_path / "mine.py")
    (tmp_path / "mine.py").write_text("import resjax\nresjax.run({})\n")
    for _ in range(2):
        with pytest.raises(BadInput, match=r"mine\.py: resjax.run\(...\) would run whenever resjax loads this file"):
            load_runs(tmp_path / "mine.py")


@pytest.mark.parametrize("here", ["", "mine"])
def test_the_line_of_an_error_is_named(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = (Path(here) if here else tmp_path) / "wrong.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text("a = 1\n\n\nb = a / 0\n")
    with pytest.raises(BadInput, match=r"wrong\.py, line 4: ZeroDivisionError"):
        load_runs(file)
    file.with_name("helps_wrongly.py").write_text("a = 1\nb = = a\n")
    file.write_text("import helps_wrongly\n")
    with pytest.raises(BadInput, match=r"helps_wrongly\.py, line 2: invalid syntax"):
        load_runs(file)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Architecture(depth=21), r"depth is 21; it must be 6n\+2"),
    (lambda: Architecture(ghost_batch_size=0), "ghost-batch-size is 0"),
    (lambda: Data(source="tfds:"), "a name or path must follow the colon"),
    (lambda: Data(pad=-1), "data.pad is -1"),
    (lambda: Data(validation_images=-1), "validation-images is -1"),
    (lambda: Optimizer(decay_steps=(5, 5)), "decay-steps"),
    (lambda: Optimizer(momentum=1.0), r"momentum is 1.0; it must be in \[0, 1\)"),
    (lambda: Optimizer(warmup_error=0.0), "warmup-error is 0.0"),
    (lambda: Experiment(name="x", seed=-1), "seed is -1"),
    (lambda: Experiment(name="x", batch_size=96), "not a multiple of architecture.ghost-batch-size 64"),
    (lambda: Experiment(name="x", batch_size=2**31 - 1), "use --architecture.ghost-batch-size 1 or --batch-size 21474"),
    (lambda: Experiment(name="x", log_steps=0), "log-steps is 0"),
    (lambda: Experiment(name="x", data=Data(std=(1, 2, 3))), "std has 3 values, but the images have 1 chan"),
    (lambda: Data(std=(0.0,)), "data.std is 0.0; it must be above 0"),
    (lambda: Optimizer(learning_rate=float("inf")), "optimizer.learning-rate is inf; it must be finite"),
    (lambda: Experiment(name="x", steps=2**31), "steps is 2147483648; it must fit in 32 bits"),
    (lambda: Experiment(name="x", steps="3"), "steps is '3'; its type must be int"),
    (lambda: Experiment(name="x", optimizer=None), "optimizer is None; its type must be Optimizer"),
    (lambda: Experiment(name="x", data=Optimizer()), "data is Optimizer.*its type must be Data"),
    (lambda: Architecture(depth=True), "depth is True; its type must be int"),
    (lambda: Architecture(shortcut="D"), "architecture.shortcut is 'D'; it must be one of"),
])
def test_wrong_values_are_refused_when_the_run_is_made(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_wrong_json_is_refused():
    good = to_json(Experiment(name="x"))
    for change in ({"steps": "3"}, {"stepz": 3}, {"architecture": {"depht": 20}}):
        with pytest.raises(BadInput):
            from_json(good | change, Experiment)


if __name__ == "__main__":
    for file in FILES:
        (GOLDEN / f"{file.stem}.txt").write_text(text(file))
