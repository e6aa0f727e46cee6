"""The command line as a user meets it: what it prints, and what it says to wrong input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resjax import BadInput, Interrupted, train
from resjax.command_line import COMMANDS, execute, guarded, train_one_of
from resjax.commands.machine import arithmetic

ROOT = Path(__file__).parents[1]
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
    (["train"], "resjax train FILE:NAME"),
    (["train", CIFAR10], "write FILE:NAME"),
    (["train", "nowhere.py:resnet20"], "nowhere.py: no such experiment file"),
    (["train", f"{CIFAR10}:restnet20"], "unknown experiment 'restnet20'; did you mean 'resnet20'? There are: pl"),
    (["train", f"{CIFAR10}:resnet20", "--steps", "many"], "--steps"),
    (["train", f"{CIFAR10}:resnet20", "--stepz", "3"], "--stepz"),
    (["train", f"{CIFAR10}:resnet20", "--steps", "0"], "steps is 0; it must be at least 1"),
    (["train", f"{CIFAR10}:resnet20", "--architecture.depth", "21"], "depth 21 is not 6n+2: the nearest are 20 and 26"),
    (["train", f"{CIFAR10}:resnet20", "--architecture.shortcut", "D"], "D"),
    (["train", f"{CIFAR10}:resnet20", "--batch-size", "100"], "not a multiple of architecture.ghost-batch-size 64"),
    (["train", f"{CIFAR10}:resnet20", "--optimizer.learning-rate", "-1"],
     "optimizer.learning-rate is -1.0; it must be above 0"),
    (["train", f"{CIFAR10}:resnet20", "--data.source", "imagenet"], "it is 'digits', 'tfds:NAME' or 'folder:PATH'"),
    (["train", f"{CIFAR10}:resnet20", "--data.directory", "/nowhere"], "resjax prepare cifar10 --directory /nowhere"),
    (["train", f"{CIFAR10}:resnet20", "--data.source", "folder:/nowhere"], "/nowhere: no such folder"),
    (["evaluate", "/nowhere"], "/nowhere: no run lies there"),
    (["predict", "/nowhere", "a.png"], "/nowhere: no run lies there"),
    (["prepare", "mnist"], "cifar10"),
    (["prepare", "cifar10", "--directory", "DIRECTORY", "--archive", "/nowhere.tgz"], "/nowhere.tgz: no such file"),
    (["list", "nowhere.py"], "nowhere.py: no such experiment file"),
])
def test_wrong_input_is_one_message_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refuse(capsys, *(a.replace("DIRECTORY", str(tmp_path)) for a in arguments))
    assert not list(tmp_path.rglob("experiment.json"))


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


def test_overview_names_every_command(capsys):
    execute(["--help"])
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in
               ("train", "list", "show", "evaluate", "predict", "prepare", "doctor"))


def test_list_and_show(capsys):
    execute(["list", CIFAR10])
    out = capsys.readouterr().out
    assert out.startswith("plain20 ")
    assert "resnet1202" in out
    execute(["show", f"{CIFAR10}:resnet20", "--architecture.depth", "56"])
    out = capsys.readouterr().out
    assert "853,018 parameters, 125,485,696 multiply-adds" in out
    assert "optimizer.decay_steps                (32000, 48000)" in out


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
    assert "name at least one image file" in refuse(capsys, "predict", str(workdir))
    assert "held out no validation images" in refuse(capsys, "evaluate", str(workdir), "--split", "validation")


def test_overrides_reach_the_run(small, tmp_path, one_device):
    overrides = ["--steps", "3", "--optimizer.decay-steps", "1", "2", "--data.no-flip"]
    train_one_of({"small": small()}, ["small", "--workdir", str(tmp_path), *overrides], "file.py")
    with pytest.raises(BadInput, match=r"there optimizer\.decay_steps: \(1, 2\), here \(32000, 48000\)\."):
        train(small(), tmp_path)


def test_arithmetic_of_this_machine_is_right():
    assert max(arithmetic().values()) < 1e-4


def test_doctor_says_what_to_do(capsys, tmp_path):
    with pytest.raises(SystemExit):
        execute(["doctor", "--directory", str(tmp_path)])
    out = capsys.readouterr().out
    assert "LOOK  cifar10 is not in" in out
    assert all(line.startswith(("ok  ", "LOOK")) for line in out.splitlines())


def test_summaries_are_the_commands_own_first_lines():
    for command in COMMANDS.values():
        text = " ".join((command.load().__doc__ or "").split("\n\n")[0].split())
        assert text == command.summary


@pytest.mark.parametrize("start", ["import resjax", "from resjax.command_line import execute; execute(['--help'])"])
def test_what_a_start_does_not_need_is_not_imported(start):
    heavy = {"jax", "flax", "optax", "orbax", "tyro", "grain", "cv2", "matplotlib", "tensorflow_datasets"}
    code = f"import sys; {start}; print(sorted({heavy} & sys.modules.keys()), file=sys.stderr)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr == "[]\n"
