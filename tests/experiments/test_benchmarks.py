"""The benchmarks, as far as they can be tested without measuring."""

import sys
from pathlib import Path

import pytest

from resjax.experiment_files import load_file

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


def test_a_process_that_dies_ends_the_comparison(capfd):
    """The parent would wait forever if it kept the child's end of the pipe open."""
    benchmark = load_file(BENCHMARKS / "train_step.py")
    pipe = benchmark.start("torch_channels_last", sys.exit)  # of an end of a pipe: exit status 1
    assert pipe.poll(60)
    for request in ((), (True,)):
        with pytest.raises(SystemExit, match=r"^torch_channels_last: the process ended without an answer"):
            benchmark.ask("torch_channels_last", pipe, *request)
    assert "Connection" in capfd.readouterr().err
