"""Programs compiled in processes of their own: what these leave behind, and how they end."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

from resjax.experiment_files import load_file
from resjax.plan.classifier import programs_of_classifier
from resjax.plan.compile import (
    DoesNotFit,
    Job,
    Program,
    compile_apart,
    compile_program,
    settled,
    start_compiler,
    target_devices,
)
from resjax.plan.devices import DEVICES, Machine
from resjax.plan.figures import figures
from resjax.system.errors import BadInput, Lost

H100 = Machine(DEVICES["h100"])


def square(x):
    return x @ x


@dataclass(frozen=True)
class JobHere:
    """Stands in for a job: a program for this machine, after something else has happened in the process."""

    happens: str = ""
    machine: Machine = H100
    function: Callable = square

    def programs(self):
        if self.happens == "death":
            sys.exit("no such device")
        if self.happens == "patience":
            time.sleep(600)
        if self.happens == "refusal":
            raise DoesNotFit(f"it needs 3 GiB, and JAX starts {jax.config.jax_platforms} alone")
        return {"train": Program(lambda: jax.jit(self.function).lower(jnp.ones((8, 8))), 3, 7)}


PROGRAM = JobHere().programs()["train"]


def test_an_object_that_cannot_be_pickled_is_refused_in_one_line(tmp_path):
    lock = threading.Lock()
    with pytest.raises(BadInput, match=r"cannot be sent to another process \(cannot pickle '_thread.lock' object\)"):
        start_compiler(JobHere(function=lambda x: lock and x), "train", tmp_path)


def test_another_process_returns_what_this_one_would(tmp_path, monkeypatch):
    """Also for an experiment file's lambda, which calls what it imports from a file beside it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside.py").write_text("def product(x, y):\n    return x @ y\n")
    (tmp_path / "json.py").write_text("from beside import product\nSQUARE = lambda x: product(x, x)\n")
    job = JobHere(function=load_file(tmp_path / "json.py").SQUARE)  # a name that a module has already
    there, here = compile_apart(job, "train", threading.Event()), compile_program(PROGRAM)
    assert (there.argument_bytes, there.peak_bytes) == (here.argument_bytes, here.peak_bytes)
    assert "dot" in there.text


def test_what_goes_wrong_there_is_told_here():
    with pytest.raises(DoesNotFit, match="it needs 3 GiB, and JAX starts cpu alone"):
        compile_apart(JobHere("refusal"), "train", threading.Event())
    with pytest.raises(Lost, match="train: its compiler process died with exit code 1 no such device"):
        compile_apart(JobHere("death"), "train", threading.Event())


def test_the_process_ends_when_it_is_told_to():
    """Or this waits for it for ten minutes."""
    stop = threading.Event()
    threading.Timer(1, stop.set).start()
    with pytest.raises(Lost, match="stopped"):
        compile_apart(JobHere("patience"), "train", stop)


def test_the_process_ends_with_the_one_that_started_it(tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    with start_compiler(JobHere("patience"), "train", folder) as process:
        process.stdin.close()  # as the system does
        process.wait(60)
    assert not folder.exists()


ASSIGNMENT = """BufferAssignment:
allocation 0: size 512, page 0, thread-local:
 value: <11 reduce_sum.12 @0> (size=512,offset=0): f32[]{:T(128)}
allocation 1: size 4096, page 0, parameter 1, shape |f32[8,128]| at ShapeIndex {}, maybe-live-out:
allocation 2: size 64, page 0, output shape is |f32[16]|, maybe-live-out:
allocation 3: size 1000, page 0, preallocated-temp:
allocation 4: size 17535488, color 1, page 0, preallocated-temp:
"""


@pytest.mark.parametrize("assignment", [ASSIGNMENT, ASSIGNMENT.replace(", page 0", "")])
def test_a_settled_program_is_read_once_all_of_it_is_there(assignment, tmp_path):
    stem = "module_0000.jit_step.cl_1014260217.after_optimizations"
    for name in (f"{stem}_before_buffer_assignment.txt", "module_0001.jit_look.cpu_after_optimizations.txt"):
        (tmp_path / name).write_text("")
    (tmp_path / f"{stem}-buffer-assignment.txt").write_text(assignment)
    (tmp_path / f"{stem}.txt").write_text("the program")
    assert settled(tmp_path, 2.0) is None
    (tmp_path / f"{stem}_after_buffer_assignment.txt").write_text("")
    found = settled(tmp_path, 2.0)
    assert (found.text, found.seconds) == ("the program", 2.0)
    assert (found.argument_bytes, found.temporary_bytes, found.peak_bytes) == (4096, 1000, 5672)
    (tmp_path / f"{stem}-buffer-assignment.txt").write_text("written in another way")
    assert settled(tmp_path, 2.0) is None


def test_a_settled_program_is_the_one_that_is_compiled(small):
    """All figures of a TPU's step, but for the memory of its code, are those of the whole compilation."""
    machine, experiment = Machine(DEVICES["v5e"]), small()
    try:
        _, program = next(programs_of_classifier(experiment, target_devices(machine)))
    except BadInput as error:
        pytest.skip(str(error))
    early, whole = (figures(program, compiled, machine, "float32") for compiled in (
        compile_apart(Job(experiment, machine), "train", threading.Event()), compile_program(program)))
    assert (early.kernels, early.bytes, early.macs, early.argument_bytes) == (
        whole.kernels, whole.bytes, whole.macs, whole.argument_bytes)
    assert 0 <= whole.temporary_bytes - early.temporary_bytes < 2**14  # pages
    assert 0 < whole.peak_bytes - early.peak_bytes < 2**26
