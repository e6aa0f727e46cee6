"""Stopping and going on: nothing is lost, whatever happens when."""

import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import flip, same_trees

from resjax import BadInput, train
from resjax.training import loop, read_experiment, restore
from resjax.training.checkpoint import checkpoints, save_checkpoint

ONE = jax.devices()[:1]
RUN = """
import sys
from dataclasses import replace
import resjax
from resjax.console.command_line import guarded
from resjax import Architecture, Data, Experiment, Optimizer
steps, devices, workdir = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
import jax
jax.config.update("jax_num_cpu_devices", devices)
experiment = Experiment(name="run", architecture=Architecture(depth=8, ghost_batch_size=16),
                        data=Data(pad=1, flip=False), optimizer=Optimizer(learning_rate=0.05), steps=steps,
                        batch_size=32, log_steps=10, checkpoint_steps=7, precise_batch_norm_steps=2)
sys.exit(guarded(lambda: print(resjax.train(experiment, workdir)["state_digest"])))
"""


def start(workdir, steps=100, devices=2):
    """Train in a process of its own, on two devices; its errors go to a file, as a pipe that nobody reads fills up."""
    workdir.parent.mkdir(exist_ok=True)
    with workdir.with_suffix(".err").open("w") as errors:
        return subprocess.Popen([sys.executable, "-c", RUN, str(steps), str(devices), str(workdir)], text=True,
                                stdout=subprocess.PIPE, stderr=errors)


def told(workdir):
    return workdir.with_suffix(".err").read_text()


def finish(workdir, **settings):
    process = start(workdir, **settings)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, told(workdir)
    return out.strip()


def wait_for_step(workdir, step, process):
    """Wait until the log has got so far; the process must not end before."""
    file = workdir / "metrics.jsonl"
    while True:
        assert process.poll() is None, told(workdir)
        trained = re.findall(r'"step": (\d+), "kind": "train"', file.read_text() if file.exists() else "")
        if trained and int(trained[-1]) >= step:
            return
        time.sleep(0.005)


def lines_without_times(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    times = ("images_per_second", "data_wait")
    return [{k: v for k, v in line.items() if k not in times} for line in lines if line["kind"] != "compile"]


def test_a_checkpoint_is_kept_until_the_one_that_replaces_it_is_saved(small, tmp_path, monkeypatch):
    train(small(steps=1), tmp_path, ONE)
    state = restore(tmp_path).state

    def save_and_die(manager):
        monkeypatch.setattr(manager, "save", None)  # which fails
        save_checkpoint(manager, state, {"averaged": True})

    with pytest.raises(OSError, match="cannot write a checkpoint"), checkpoints(tmp_path, clear=True) as manager:
        save_and_die(manager)
    assert not (tmp_path / "checkpoints" / "1").exists()
    with checkpoints(tmp_path, clear=True) as manager:
        assert manager.all_steps() == [1]
    assert same_trees(restore(tmp_path).state.params, state.params, 0)
    with checkpoints(tmp_path, clear=True) as manager:
        save_checkpoint(manager, state.replace(params=jax.tree.map(lambda w: w + 1, state.params)), {"averaged": True})
    assert not list(tmp_path.glob("replaced-*"))
    (tmp_path / "result.json").unlink()
    assert not same_trees(restore(tmp_path).state.params, state.params, 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never stopped: its digest, and its folder."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return finish(workdir), workdir


def test_kill_9_at_a_random_moment_loses_nothing(whole, tmp_path):
    process = start(tmp_path / "cut")
    wait_for_step(tmp_path / "cut", 20, process)
    time.sleep(random.random() * 0.1)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert finish(tmp_path / "cut") == whole[0]
    assert lines_without_times(tmp_path / "cut") == lines_without_times(whole[1])


def test_signals_save_and_exit_with_a_clear_line_and_the_same_command_goes_on(whole, tmp_path):
    for number, least in ((signal.SIGINT, 20), (signal.SIGTERM, 40), (signal.SIGHUP, 60)):
        process = start(tmp_path / "cut")
        wait_for_step(tmp_path / "cut", least, process)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert "Traceback" not in told(tmp_path / "cut")
        step = int(re.search(rf"{number.name}: saved step (\d+) of 100 in .*the same command to resume",
                             told(tmp_path / "cut"))[1])
        assert int(restore(tmp_path / "cut").state.step) == step >= least
    assert finish(tmp_path / "cut") == whole[0]
    assert lines_without_times(tmp_path / "cut") == lines_without_times(whole[1])


def test_a_run_killed_before_its_result_writes_its_last_lines_once(small, tmp_path):
    result = train(small(), tmp_path, ONE)
    lines = lines_without_times(tmp_path)
    (tmp_path / "result.json").unlink()
    assert train(small(), tmp_path, ONE) == result
    assert lines_without_times(tmp_path) == lines


def test_a_workdir_of_another_experiment_is_refused(small, tmp_path):
    train(small(), tmp_path, ONE)
    with pytest.raises(BadInput, match=r"contains a different experiment \(seed: 0 -> 1; steps: 6 -> 5\)\."):
        train(small(seed=1, steps=5), tmp_path, ONE)
    assert train(small(checkpoint_steps=5), tmp_path, ONE)["steps"] == 6  # how often to save changes no result


def cut(small, workdir, calls=3):
    """Leave a run as a process leaves it that is killed after so many calls of two steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resjax.training.loop.add_metrics", stop_at(calls))
        with pytest.raises(KeyboardInterrupt):
            train(small(), workdir, ONE)


@pytest.fixture(scope="module")
def before(small, tmp_path_factory):
    """The result of a run of six steps, and the folder of the same run cut after step 4."""
    folder = tmp_path_factory.mktemp("before")
    cut(small, folder / "cut")
    assert sorted(int(p.name) for p in (folder / "cut" / "checkpoints").iterdir()) == [2, 4]
    return train(small(), folder / "whole", ONE), folder / "cut"


def stop_at(last):
    calls = iter(range(1, last + 1))
    real = loop.add_metrics

    def add_metrics(*arguments):
        if next(calls) == last:
            raise KeyboardInterrupt
        return real(*arguments)

    return add_metrics


def damage_flip(folder):
    file = max((f for f in folder.rglob("d/*") if f.is_file()), key=lambda f: f.stat().st_size)
    flip(file, file.stat().st_size // 2)


def damage_truncate(folder):
    file = folder / "meta" / "metadata"
    file.write_text(file.read_text()[:10])


def damage_delete(folder):
    (folder / "state" / "manifest.ocdbt").unlink()


def damage_unseal(folder):
    (folder / "digests.json").unlink()


@pytest.mark.parametrize(("damage", "wrong"), [
    (damage_flip, "state/.* has changed"), (damage_truncate, "meta/metadata has changed"),
    (damage_delete, "state/manifest.ocdbt is missing"), (damage_unseal, "digests.json cannot be read")])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(small, before, tmp_path, damage, wrong):
    shutil.copytree(before[1], tmp_path / "cut")
    damage(tmp_path / "cut" / "checkpoints" / "4")
    with pytest.warns(UserWarning, match=rf"checkpoints/4 is damaged \({wrong}.* moved it to damaged-checkpoint-4"):
        assert train(small(), tmp_path / "cut", ONE)["state_digest"] == before[0]["state_digest"]
    assert (tmp_path / "cut" / "damaged-checkpoint-4").is_dir()


def test_half_a_checkpoint_is_cleared_away_by_the_run_and_by_nobody_else(small, before, tmp_path):
    shutil.copytree(before[1], tmp_path / "cut")
    half = tmp_path / "cut" / "checkpoints" / "6.orbax-checkpoint-tmp"
    half.mkdir()
    for number in range(5000):  # enough that two removals at a time would meet
        (half / str(number)).touch()
    assert int(restore(tmp_path / "cut").state.step) == 4
    assert len(list(half.iterdir())) == 5000
    assert train(small(), tmp_path / "cut", ONE)["state_digest"] == before[0]["state_digest"]
    assert not half.exists()


def test_only_the_last_few_checkpoints_are_kept(small, tmp_path):
    train(small(steps=9, checkpoint_steps=1), tmp_path, ONE)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["7", "8", "9"]


def test_a_checkpoint_of_another_architecture_is_refused(small, tmp_path):
    train(small(), tmp_path, ONE)
    record = json.loads((tmp_path / "experiment.json").read_text())
    record["experiment"]["architecture"]["shortcut"] = "C"
    (tmp_path / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match=r"6 contains another architecture: .*\['shortcut'\].* has shape none"):
        restore(tmp_path)


def test_a_run_goes_on_on_another_number_of_devices(small, before, tmp_path):
    shutil.copytree(before[1], tmp_path / "cut")
    other = train(small(), tmp_path / "cut", jax.devices()[:4])
    assert other["devices"]["count"] == 4
    assert other["test_top1_error"] == pytest.approx(before[0]["test_top1_error"], abs=1.0)
    a, b = restore(before[1].parent / "whole").state, restore(tmp_path / "cut").state
    assert same_trees(a.params, b.params, 1e-3)


def test_a_workdir_in_use_is_refused_and_a_full_disk_ends_the_run_and_keeps_the_checkpoint_before(small, tmp_path):
    process = start(tmp_path / "run", steps=20_000)
    wait_for_step(tmp_path / "run", 20, process)
    try:
        with pytest.raises(BadInput, match=f"process {process.pid} is using this directory for training"):
            train(small(), tmp_path / "run", ONE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))  # no file can grow beyond 20 kB
        process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 1
    assert re.search("cannot write a checkpoint|File too large", told(tmp_path / "run"))
    assert np.isfinite(np.asarray(restore(tmp_path / "run").state.params["fc"]["kernel"])).all()


def test_a_workdir_that_cannot_be_written_is_refused(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cannot write to this run directory .* choose another --workdir"):
        train(small(), tmp_path / "file" / "run", ONE)


def test_a_workdir_of_nonsense_is_named(tmp_path):
    with pytest.raises(BadInput, match="contains no run"):
        read_experiment(tmp_path)
    (tmp_path / "experiment.json").write_text(
        '{"kind": "classification", "experiment": {"name": 3}, "classes": ["a"], "image": [8, 8, 1]}')
    with pytest.raises(BadInput, match=r"experiment\.json: not a run of this version"):
        read_experiment(tmp_path)


def test_restore_before_the_first_checkpoint_is_refused(small, tmp_path):
    cut(small, tmp_path, calls=1)
    with pytest.raises(BadInput, match="no checkpoint yet; the first is saved at step 2"):
        restore(tmp_path)
    record = json.loads((tmp_path / "experiment.json").read_text())
    record["experiment"]["checkpoint_steps"] = 5_000
    (tmp_path / "experiment.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="no checkpoint yet; the first is saved at step 6"):
        restore(tmp_path)
