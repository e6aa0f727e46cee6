"""A request to stop is not raised where others' code cannot bear it: while a module is imported, and within Orbax."""

import importlib
import os
import signal
import time
from dataclasses import replace

import jax
import orbax.checkpoint as ocp
import pytest

from resjax import Interrupted, train
from resjax.interrupt import stop_requests


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
    one, ended = jax.devices()[:1], []
    train(replace(small(), steps=2), tmp_path, one)
    plain = getattr(ocp.CheckpointManager, work)

    def asked(manager, *arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        found = plain(manager, *arguments, **named)
        ended.append(work)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(ocp.CheckpointManager, work, asked)
        with pytest.raises(Interrupted, match="the same command goes on"):
            train(small(), tmp_path, one)
    assert ended
    assert train(small(), tmp_path, one)["steps"] == 6
