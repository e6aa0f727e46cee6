"""Many devices and many processes train as one does: the same losses, and one checkpoint for all."""

import json
import subprocess
import sys
from dataclasses import replace

import jax
import pytest
from two_processes import two_processes

from resjax import Architecture, BadInput, Data, Experiment, Optimizer, Photographs, read_metrics, restore, train
from resjax.console.command_line import execute
from resjax.system.serialization import to_json


def digits():
    # At a rate of 0.05 a unit that a rounding turns off or on changes later losses by a factor of ten a step
    return Experiment(name="digits", architecture=Architecture(depth=8, ghost_batch_size=16),
                      data=Data(pad=1, flip=False), optimizer=Optimizer(learning_rate=0.001), steps=20, batch_size=64,
                      log_steps=1, checkpoint_steps=10, precise_batch_norm_steps=2)


def photos(photographs):
    data = Photographs(source=f"folder:{photographs}/folders", size=32, shorter_side=(36, 48), test_shorter_side=36,
                       workers=0)
    return Experiment(name="photos", architecture=Architecture(depth=8, ghost_batch_size=8),
                      data=data, optimizer=Optimizer(learning_rate=1e-4, decay_steps=()), steps=4, batch_size=16,
                      log_steps=1, checkpoint_steps=2, precise_batch_norm_steps=2)


def train_by_two(experiment, folder):
    """Train by `resjax train --distributed` in two processes with a device each, as SLURM starts them."""
    source = folder / "source"
    source.mkdir()
    (source / "experiment.json").write_text(json.dumps(
        {"kind": "classification", "experiment": to_json(experiment), "classes": [], "image": [1, 1, 1]}))
    two_processes(str(source / "experiment.json"), folder)


def losses(workdir):
    return [line["loss"] for line in read_metrics(workdir, "train")]


@pytest.mark.parametrize("kind", ["digits", "photographs"])
def test_two_processes_train_as_one(kind, photographs, tmp_path):
    experiment = photos(photographs)
    if kind == "digits":  # from the weights of another run
        train(replace(digits(), steps=2), tmp_path / "first", jax.devices()[:1])
        experiment = replace(digits(), initialize_from=str(tmp_path / "first"))
    train_by_two(experiment, tmp_path)
    alone = train(experiment, tmp_path / "alone", jax.devices()[:1])
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
    tested = [read_metrics(tmp_path / name, "test")[-1] for name in ("run", "alone")]  # by two, each on its own images
    assert tested[0]["loss"] == pytest.approx(tested[1]["loss"], rel=1e-3)
    one, two = restore(tmp_path / "alone"), restore(tmp_path / "run")  # two wrote it, one restores it
    assert two.state.step == one.state.step == experiment.steps
    execute(["evaluate", str(tmp_path / "run")])
    assert alone["devices"]["processes"] == 1
    assert "test error" in (tmp_path / "log0").read_text()
    assert "step" not in (tmp_path / "log1").read_text()  # only the first tells


def test_eight_devices_train_as_one_on_photographs(photographs, tmp_path):
    experiment = photos(photographs)
    experiment = replace(experiment, architecture=replace(experiment.architecture, ghost_batch_size=4), steps=3,
                         precise_batch_norm_steps=0)
    train(experiment, tmp_path / "one", jax.devices()[:1])
    train(experiment, tmp_path / "eight", jax.devices())
    assert losses(tmp_path / "eight") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_without_a_launcher_the_flag_is_refused(tmp_path):
    process = subprocess.run([sys.executable, "-m", "resjax", "reproduce", "table6", "--distributed"], cwd=tmp_path,
                             capture_output=True, text=True, timeout=100)
    assert process.returncode == 2
    assert "--distributed: JAX cannot connect the processes" in process.stderr


def test_wrong_flags_are_refused_before_processes_are_joined():
    with pytest.raises(BadInput, match=r"unknown table 'table15'; the tables are table1, .*table9, table10"):
        execute(["reproduce", "table15"])
