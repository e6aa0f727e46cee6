"""Importing resjax, loading a network and training leave the user's process as it was."""

import subprocess
import sys

LOOK = """
import logging, sys, threading
import cv2
cv2.setNumThreads(3)
def state():
    return (cv2.getNumThreads(), sys.unraisablehook, sys.excepthook, threading.excepthook,
            {name: list(logging.getLogger(name).filters) for name in ("", "absl", "asyncio", "jax", "orbax")})
before = state()
"""


def test_importing_and_loading_change_nothing():
    code = LOOK + ("import resjax, resjax.training.checkpoint, resjax.detection.train, resjax.data, resjax.paper\n"
                   "resjax.load('resnet20')\nassert state() == before, (state(), before)\nprint('the same')")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout == "the same\n", ended.stderr


def test_training_leaves_nothing_behind(tmp_path):
    code = LOOK + ("import resjax\nfrom resjax import Architecture, Experiment\n"
                   "net = Architecture(depth=8, ghost_batch_size=16)\n"
                   "resjax.train(Experiment(name='x', architecture=net, steps=1,\n"
                   f"    batch_size=16, precise_batch_norm_steps=0), {str(tmp_path / 'run')!r})\n"
                   "assert state() == before, (state(), before)\nprint('the same')")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout == "the same\n", ended.stderr
