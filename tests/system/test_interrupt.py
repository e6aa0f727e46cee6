"""A request to stop is heeded in every phase, but not where others' code cannot bear it: imports, and within Orbax."""

import importlib
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import jax
import orbax.checkpoint as ocp
import pytest

from resjax import Interrupted, read_metrics, train
from resjax.console.command_line import guarded
from resjax.system.interrupt import requested, stop_requests
from resjax.training import classification, loop

ONE = jax.devices()[:1]


@contextmanager
def signalled(number, name, count):
    """Send this process a signal when a function of the loop is called for the count-th time."""
    calls = iter(range(1, 1000))
    module = loop if hasattr(loop, name) else classification
    real = getattr(module, name)

    def interrupted(*arguments):
        if next(calls) == count:
            os.kill(os.getpid(), number)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, interrupted)
        yield


def logged(directory):
    return [(line["kind"], line["step"]) for line in read_metrics(directory) if line["kind"] != "compile"]


@pytest.fixture(scope="module")
def measured(small):
    return small(evaluate_test=True, evaluate_steps=2)


@pytest.fixture(scope="module")
def whole(measured, tmp_path_factory):
    """Digest and log of a run that nobody asked to stop."""
    directory = tmp_path_factory.mktemp("whole")
    return train(measured, directory, ONE)["state_digest"], logged(directory)


@pytest.mark.parametrize(("phase", "count", "saved"), [
    ("open_images", 1, None), ("compile_steps", 1, None), ("add_metrics", 2, 4), ("measure_and_log", 1, 2),
    ("add_batch_statistics", 1, 6), ("finish", 1, None)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_is_heeded_in_every_phase(measured, whole, tmp_path, number, phase, count, saved):
    with signalled(number, phase, count), pytest.raises(Interrupted, match="run the same command to resume") as stopped:
        train(measured, tmp_path / "cut", ONE)
    assert stopped.value.signal == number
    assert not (tmp_path / "cut" / "result.json").exists()
    if saved is not None:
        assert f"saved step {saved} of 6" in str(stopped.value)
    ended = train(measured, tmp_path / "cut", ONE)
    assert (ended["state_digest"], logged(tmp_path / "cut")) == whole


def test_a_request_between_two_runs_is_heeded(small, tmp_path):
    def script():
        train(small(), tmp_path / "a", ONE)
        os.kill(os.getpid(), signal.SIGTERM)
        train(small(seed=1), tmp_path / "b", ONE)

    assert guarded(script) == 128 + signal.SIGTERM
    assert not (tmp_path / "b").exists()


def test_a_second_ctrl_c_ends_at_once_without_a_traceback():
    script = ("import os, signal, time\n"
              "from resjax.system.interrupt import *\nwith stop_requests(), requests(held=True):\n"
              "    os.kill(os.getpid(), signal.SIGINT)\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(60)")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 130
    assert "ended at once" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(("number", "teardown"), [(None, True), (signal.SIGTERM, False), (signal.SIGINT, False)])
def test_a_request_to_stop_skips_the_teardown(number, teardown):
    """XLA may still be compiling in a thread: one of four such processes crashed in LLVM's destructors (jax 0.10.2)."""
    request = f"os.kill(os.getpid(), {int(number)})" if number else "None"
    script = ("import atexit, os\nfrom resjax.console.command_line import run_and_exit\n"
              f"atexit.register(print, 'teardown')\nrun_and_exit(lambda: {request})")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == (128 + number if number else 0), ended.stderr
    assert ("teardown" in ended.stdout) == teardown
    assert ("resume" in ended.stderr) == bool(number)


def test_what_else_cannot_be_raised_is_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with stop_requests():
        for error in (ValueError, Interrupted):
            sys.unraisablehook(SimpleNamespace(exc_type=error))
    assert [unraisable.exc_type for unraisable in told] == [ValueError]


def test_of_many_processes_none_stops_alone(monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    with stop_requests():
        os.kill(os.getpid(), signal.SIGTERM)
        assert requested() == signal.SIGTERM


def test_a_module_is_imported_whole(tmp_path, monkeypatch):
    """As C extensions are: an exception out of nowhere has crashed the process."""
    (tmp_path / "asked_meanwhile.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\n"
                                                 "time.sleep(0.2)\nwhole = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    with stop_requests():
        module = importlib.import_module("asked_meanwhile")
        with pytest.raises(Interrupted, match="SIGTERM"):
            time.sleep(5)
    assert module.whole


@pytest.mark.parametrize("work", ["restore", "save", "wait_until_finished", "close"])
def test_orbax_ends_what_it_has_begun(work, small, tmp_path, monkeypatch):
    """Cut off, its threads print that their event loop is closed."""
    ended = []
    train(replace(small(), steps=2), tmp_path, ONE)
    plain = getattr(ocp.CheckpointManager, work)

    def asked(manager, *arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        found = plain(manager, *arguments, **named)
        ended.append(work)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(ocp.CheckpointManager, work, asked)
        with pytest.raises(Interrupted, match="run the same command to resume"):
            train(small(), tmp_path, ONE)
    assert ended
    assert train(small(), tmp_path, ONE)["steps"] == 6
