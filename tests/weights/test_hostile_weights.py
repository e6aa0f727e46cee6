"""A short form of `tests/campaign/weights.py`: hostile and mutated files of weights, loaded in a process that is
watched. No code runs, memory and time are bounded, and what is refused is refused in one line.
"""

import random
import sys
from itertools import islice

import pytest
from campaign import hostile_files, hostile_hdf5, hostile_pickles, mutations
from campaign.weights import Guard, faults, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is watched through /proc")
KEPT = ("memo index", "memo of", "string 'X'", "grows fourfold", "shared tuples as a key", "a million arguments",
        "100,000 pairs", "20,000 views")


def chosen():
    """Choose what takes no time to write and to refuse."""
    for kind, contents in hostile_pickles.KINDS.items():
        for name, content in contents():
            if kind in ("code", "nonsense") or any(word in name for word in KEPT):
                yield f"pickle: {name}", lambda folder, content=content: hostile_files.archive(folder, content)
    yield from islice(hostile_files.archives(), 0, None, 3)
    yield from islice(hostile_files.safetensors(), 0, None, 3)
    yield from islice(hostile_hdf5.hdf5(), 0, None, 14)


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest")
    guard = Guard(mutations.honest_files(folder))
    yield guard
    guard.end()


def check(cases, guard, folder):
    outcomes = run(cases, guard, folder, lambda outcome: None)
    assert [(outcome, *faults(outcome)) for outcome in outcomes if any(faults(outcome))] == []
    return outcomes


def test_hostile_files(guard, tmp_path):
    outcomes = check(chosen(), guard, tmp_path)
    assert len(outcomes) > 100
    attacks = [outcome for outcome in outcomes if "call os.system" in outcome.name]
    assert all("asks for os.system" in outcome.message for outcome in attacks)
    assert attacks


def test_mutated_files(guard, tmp_path):
    outcomes = check(mutations.mutated(guard.honest, random.Random(1), 120), guard, tmp_path)
    assert {outcome.kind for outcome in outcomes} == {"refused", "loaded"}


def test_the_watch_sees_what_is_done(guard, tmp_path):
    """The rules are broken where a file does something: the process is asked to take memory, to write and to end."""
    (wrote,) = run(iter([("writes", lambda folder: DOES_SOMETHING)]), guard, tmp_path, lambda outcome: None)
    assert list(faults(wrote)) == ["traceback", "did something"]


class DoesSomething:
    """In place of a path: whoever asks whether it is a file makes one."""

    def is_file(self):
        with open("/dev/null", "w"):
            return 1 / 0


DOES_SOMETHING = DoesSomething()
