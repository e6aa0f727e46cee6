"""The command line as a user meets it: what it prints, and what it says to wrong input."""

import ast
import inspect
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resjax
from resjax import (
    Architecture,
    BadInput,
    Data,
    Experiment,
    Interrupted,
    Optimizer,
    Photographs,
    experiment_files,
    train,
)
from resjax.console.arithmetic import arithmetic
from resjax.console.command_line import FIRST, execute, guarded, overview, train_one_of
from resjax.console.commands import COMMANDS
from resjax.console.networks import Unsaid
from resjax.console.plan import PlanArguments
from resjax.console.runs import TrainArguments, rough_duration, short
from resjax.detection import Detection, Detector, Inference, Sampling, Scenery
from resjax.system.terminal import speed

ROOT = Path(__file__).parents[2]
CIFAR10 = str(ROOT / "experiments" / "cifar10.py")


def refuse(capsys, *arguments):
    """Run a command that must exit with 2, and return its one message."""
    with pytest.raises(SystemExit) as stop:
        sys.exit(guarded(lambda: execute(arguments)))
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert "Traceback" not in out + err
    return " ".join((out + err).replace("│", "").split())


@pytest.mark.parametrize(("arguments", "message"), [
    (["frob"], "unknown command 'frob'"),
    (["train", CIFAR10], "write your own as FILE:NAME"),
    (["trian"], "unknown command 'trian'; did you mean train?"),
    (["train"], "such as resjax train resnet20"),
    (["train", "resnet21"], "unknown experiment 'resnet21'; did you mean 'resnet20'? `resjax list` shows all"),
    (["train", "cifar10:resnet21"], "did you mean 'resnet20'? The file defines: pl"),
    (["train", "scene"], "did you mean 'scenes'?"),
    (["train", "resnet20", "--lr", "0.1"], "unknown flag --lr; did you mean --optimizer.learning-rate?"),
    (["train", "resnet20", "--learning_rate=0.1"], "--learning_rate; did you mean --optimizer.learning-rate?"),
    (["train", "resnet20", "--checkpoint-step", "3"], "--checkpoint-step; did you mean --checkpoint-steps?"),
    (["train", "resnet20", "--ghost-batch", "3"], "--ghost-batch; did you mean --architecture.ghost-batch-size?"),
    (["train", "scenes", "--score", "3"], "unknown flag --score"),
    (["train", "resnet20", "--steps"], "Missing value for argument '--steps'"),
    (["evaluate", "--view", "single", "x"], "unknown flag --view; did you mean --views?"),
    (["evaluate", "x", "--views", "double"], "invalid choice 'double'"),
    (["plan", "scenes", "--on", "h101"], "invalid choice 'h101'"),
    (["mean-image", "scenes"], "scenes trains on scenes, whose mean image takes no time"),
    (["train", "nowhere.py:resnet20"], "nowhere.py: no such experiment file"),
    (["train", f"{CIFAR10}:restnet20"], "unknown experiment 'restnet20'; did you mean 'resnet20'? The file defines"),
    (["train", f"{CIFAR10}:resnet20", "--steps", "many"], "--steps: 'many' is not a whole number"),
    (["train", f"{CIFAR10}:resnet20", "--stepz", "3"], "--stepz"),
    (["train", f"{CIFAR10}:resnet20", "--steps", "0"], "steps is 0; it must be at least 1"),
    (["train", f"{CIFAR10}:resnet20", "--architecture.depth", "21"], "depth is 21; it must be 6n+2, such as 20 or 26"),
    (["train", f"{CIFAR10}:resnet20", "--architecture.shortcut", "D"], "D"),
    (["train", f"{CIFAR10}:resnet20", "--batch-size", "100"], "not a multiple of architecture.ghost-batch-size 64; use "
     "--architecture.ghost-batch-size 50 or 100 or --batch-size 64 or 128"),
    (["train", f"{CIFAR10}:resnet20", "--optimizer.learning-rate", "-1"],
     "optimizer.learning-rate is -1.0; it must be above 0"),
    (["train", f"{CIFAR10}:resnet20", "--data.source", "imagenet"], "it must be 'digits', 'tfds:NAME' or"),
    (["train", f"{CIFAR10}:resnet20", "--data.directory", "/nowhere"], "resjax prepare cifar10 --directory /nowhere"),
    (["train", f"{CIFAR10}:resnet20", "--data.source", "folder:/nowhere"], "/nowhere: no such folder"),
    (["evaluate", "/nowhere"], "/nowhere: not found"),
    (["predict", "/nowhere", "a.png"], "/nowhere: not found"),
    (["prepare", "mnist"], "cifar10"),
    (["prepare", "cifar10", "--directory", "DIRECTORY", "--archive", "/nowhere.tgz"], "/nowhere.tgz: no such file"),
    (["list", "nowhere.py"], "nowhere.py: no such experiment file"),
])
def test_wrong_input_is_one_message_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refuse(capsys, *(a.replace("DIRECTORY", str(tmp_path)) for a in arguments))
    assert not list(tmp_path.rglob("experiment.json"))


def test_help_is_told_without_jax():
    """JAX takes a second and more to import; what only parses does without."""
    asked = [[name, *["resnet20"] * command.on_experiment, "--help"] for name, command in COMMANDS.items()]
    program = ("import sys\nfrom resjax.console.command_line import execute\n"
               f"for arguments in {[*asked, ['list'], ['--version']]}:\n    try:\n        execute(arguments)\n"
               "    except SystemExit as stop:\n        assert not stop.code, arguments\n"
               "    assert 'jax' not in sys.modules, arguments\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_exit_codes_of_a_process():
    for arguments, code in ((["list", CIFAR10], 0), (["frob"], 2)):
        done = subprocess.run([sys.executable, "-m", "resjax", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr


def fail(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(("error", "code"), [(BadInput("x"), 2), (OSError("x"), 1), (KeyboardInterrupt(), 130),
                                             (Interrupted("x", 15), 143)])
def test_expected_errors_have_exit_codes(error, code, capsys):
    assert guarded(fail(error)) == code
    assert capsys.readouterr().err.startswith("resjax: ")


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)


def test_overview_names_every_command_with_an_example(capsys):
    execute(["--help"])
    out = capsys.readouterr().out
    assert out == f"{overview()}\n"
    for name, command in COMMANDS.items():
        assert f"\n  {name:12}{command.summary}\n              resjax {name}" in out
    assert all(len(line) <= 72 for text in (overview(), FIRST) for line in text.splitlines())


def test_alone_it_says_what_to_do_first(capsys):
    execute([])
    assert "First:  resjax quickstart" in capsys.readouterr().out


def test_the_version_is_said(capsys):
    execute(["--version"])
    assert capsys.readouterr().out.startswith(f"resjax {resjax.__version__}, jax ")


@pytest.mark.parametrize("name", ["resnet20", "cifar10:resnet20", f"{CIFAR10}:resnet20"])
def test_an_experiment_has_a_short_name(name):
    assert experiment_files.find(name) == experiment_files.load_runs(Path(CIFAR10))["resnet20"]


def test_short_names_are_of_one_file_only():
    names = [name for several in experiment_files.names().values() for name in several]
    assert len(names) == len(set(names))


def test_a_name_in_several_files_is_not_guessed(monkeypatch):
    monkeypatch.setattr(experiment_files, "names", lambda: {"cifar10": ["resnet20"], "mine": ["resnet20"]})
    with pytest.raises(BadInput, match="resnet20 is in several files; write cifar10:resnet20 or mine:resnet20"):
        experiment_files.find("resnet20")


KINDS = [Experiment, Architecture, Data, Photographs, Optimizer, Detection, Detector, Sampling, Scenery, Inference,
         TrainArguments, PlanArguments, Unsaid]


@pytest.mark.parametrize("kind", KINDS)
def test_every_flag_says_what_it_is(kind):
    """A string after each field, which becomes the help of its flag, unless the field is a group of flags."""
    body = ast.parse(inspect.getsource(kind)).body[0].body
    for field, after in pairwise([*body, None]):
        group = isinstance(field, ast.AnnAssign) and any(name in ast.unparse(field.annotation) for name in (
            "Value", *(each.__name__ for each in KINDS)))
        if isinstance(field, ast.AnnAssign) and not group:
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and str(after.value.value)
            assert said, f"{kind.__name__}.{ast.unparse(field.target)}"


def test_list_and_show(capsys):
    execute(["list", CIFAR10])
    out = capsys.readouterr().out
    assert out.startswith("cifar10: tfds:cifar10\nname           layers  params  mul-adds  steps  cost\nplain20 ")
    assert "\nresnet20           20   270 k    40.6 M   64 k   3 h\n" in out
    execute(["list"])
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for several in experiment_files.names().values() for name in several)
    execute(["show", f"{CIFAR10}:resnet20", "--architecture.depth", "56"])
    out = capsys.readouterr().out
    assert "853,018 parameters, 125,485,696 multiply-adds" in out
    assert "optimizer.decay_steps                (32000, 48000)" in out


def test_numbers_are_rounded_to_the_next_unit():
    assert [short(number) for number in (999_400, 999_700, 999_700_000, 12)] == ["999 k", "1 M", "1 G", "12"]
    assert [rough_duration(seconds) for seconds in (3540, 3599, 86_399, 45)] == ["59 min", "1 h", "1 d", "45 s"]
    assert [speed(pace) for pace in (0.1416, 9.6, 684.2)] == [
        "0.14 images/s", "9.60 images/s", "684 images/s"]


def test_train_evaluate_predict(small, tmp_path, capsys, one_device):
    experiments = {"small": small(steps=40)}
    workdir = tmp_path / "run"
    train_one_of(experiments, ["small", "--workdir", str(workdir), "--seed", "3", "--batch-size", "64"], "file.py")
    assert "test error" in capsys.readouterr().out
    execute(["evaluate", str(workdir), "--split", "train", "--batch-size", "100"])
    assert "small, step 40, train: top-1 error" in capsys.readouterr().out
    picture = tmp_path / "seven.png"
    Image.fromarray(np.kron(np.eye(8, dtype=np.uint8), np.full((5, 7), 255, np.uint8))).save(picture)
    execute(["predict", str(workdir), str(picture)])
    out = capsys.readouterr().out
    assert out.startswith(f"{picture}: ")
    assert sum(float(part.split()[-2]) for part in out.strip().split(": ")[1].split(",")) <= 100.5
    assert "give at least one image file" in refuse(capsys, "predict", str(workdir))
    assert "has no validation images" in refuse(capsys, "evaluate", str(workdir), "--split", "validation")


def test_overrides_reach_the_run(small, tmp_path, one_device):
    overrides = ["--steps", "3", "--optimizer.decay-steps", "1", "2", "--data.no-flip"]
    train_one_of({"small": small()}, ["small", "--workdir", str(tmp_path), *overrides], "file.py")
    with pytest.raises(BadInput, match=r"experiment \(optimizer\.decay_steps: \(1, 2\) -> \(32000, 48000\)\)\."):
        train(small(), tmp_path)


def test_arithmetic_of_this_machine_is_right():
    assert max(arithmetic().values()) < 1e-4


def test_doctor_passes_without_what_the_quickstart_does_not_need(capsys, tmp_path):
    execute(["doctor", "--directory", str(tmp_path)])
    *lines, empty, end = capsys.readouterr().out.splitlines()
    assert (empty, end) == ("", "Next: resjax quickstart")
    assert any(line.startswith("note  needed for Table 6: cifar10 is not in") for line in lines)
    assert all(line.startswith(("ok  ", "note")) for line in lines)


def test_doctor_fails_where_the_arithmetic_is_wrong(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("resjax.console.arithmetic.arithmetic", lambda: {"convolution": 0.02})
    with pytest.raises(SystemExit) as stop:
        execute(["doctor", "--directory", str(tmp_path)])
    assert stop.value.code == 1
    assert "FAIL  convolution: relative error 2.0e-02 against float64, which is above" in capsys.readouterr().out


def test_summaries_are_the_commands_own_first_lines():
    for command in COMMANDS.values():
        text = " ".join((command.load().__doc__ or "").split("\n\n")[0].split())
        assert text == command.summary


@pytest.mark.parametrize("start", ["import resjax",
                                   "from resjax.console.command_line import execute; execute(['--help'])",
                                   "from resjax.console.command_line import execute; execute([])"])
def test_what_a_start_does_not_need_is_not_imported(start):
    heavy = {"jax", "flax", "optax", "orbax", "tyro", "grain", "cv2", "matplotlib", "tensorflow_datasets"}
    code = f"import sys; {start}; print(sorted({heavy} & sys.modules.keys()), file=sys.stderr)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert said.splitlines()[-1] == "[]"  # on a busy machine after a line of progress


def test_the_list_needs_no_jax():
    heavy = {"jax", "flax", "optax", "orbax", "grain", "cv2", "matplotlib", "tensorflow_datasets"}
    code = ("import sys\nfrom resjax.console.command_line import execute\nexecute(['list'])\n"
            f"print(sorted({heavy} & sys.modules.keys()), file=sys.stderr)")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert said.splitlines()[-1] == "[]"  # on a busy machine after a line of progress
