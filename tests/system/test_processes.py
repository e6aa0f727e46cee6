"""Processes that die: whoever needs them says in one line which has died and how to go on, soon, and ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from two_processes import start_two

PHOTOGRAPHS = """
from resjax import Architecture, Data, Experiment, Optimizer, Photographs, run
EXPERIMENTS = {"photos": Experiment(
    name="photos", architecture=Architecture(depth=8, ghost_batch_size=8), optimizer=Optimizer(learning_rate=1e-3),
    data=Photographs(source="folder:FOLDERS", size=32, shorter_side=(36, 48), test_shorter_side=36, workers=WORKERS),
    steps=1_000_000, batch_size=16, log_steps=2, checkpoint_steps=2)}
DIGITS = Experiment(
    name="digits", architecture=Architecture(depth=8, ghost_batch_size=16), data=Data(pad=1, flip=False),
    optimizer=Optimizer(learning_rate=1e-3), steps=1_000_000, batch_size=32, log_steps=2, checkpoint_steps=2)
EXPERIMENTS["digits"] = DIGITS
"""


def script(folder, photographs, end, workers=2):
    file = folder / "mine.py"
    file.write_text(PHOTOGRAPHS.replace("FOLDERS", f"{photographs}/folders").replace("WORKERS", str(workers)) + end)
    return file


def started(command, folder):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "RESJAX_CACHE": str(folder / "cache")}
    with (folder / "err").open("w") as err:
        return subprocess.Popen([sys.executable, *command], stdout=err, stderr=err, env=environment, cwd=folder)


def wait_for(text, file, process=None):
    while text not in file.read_text():
        assert process is None or process.poll() is None, file.read_text()
        time.sleep(0.05)


def last_line(file):
    """Return the one line that says why a process ended, after which there is no other."""
    lines = file.read_text().splitlines()
    assert [line for line in lines if line.startswith("resjax: ")] == lines[-1:], "\n".join(lines)
    return lines[-1]


def workers_of(process):
    threads = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [pid for file in threads for pid in file.read_text().split()]
    return [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.mark.skipif(sys.platform != "linux", reason="the workers are found through /proc")
def test_a_worker_that_is_killed_is_told_in_one_line(photographs, tmp_path):
    file = script(tmp_path, photographs, "if __name__ == '__main__':\n    run(EXPERIMENTS)\n")
    process = started([str(file), "photos"], tmp_path)
    wait_for("step 4/", tmp_path / "err", process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert "a worker process was killed by SIGKILL" in last_line(tmp_path / "err")
    assert "Run the same command to resume from the last checkpoint" in last_line(tmp_path / "err")


def test_a_script_without_a_guard_is_told_so(photographs, tmp_path):
    process = started([str(script(tmp_path, photographs, "run(EXPERIMENTS)\n")), "photos"], tmp_path)
    assert process.wait(timeout=60) == 2, (tmp_path / "err").read_text()
    assert 'mine.py: each worker process' in last_line(tmp_path / "err")
    assert 'if __name__ == "__main__":' in last_line(tmp_path / "err")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_is_told_by_the_other_in_one_line(photographs, tmp_path, victim):
    processes = start_two(f"{script(tmp_path, photographs, '')}:digits", tmp_path)
    logs = [tmp_path / f"log{number}" for number in range(2)]
    wait_for("step 2/", logs[0], processes[0])
    processes[victim].kill()
    assert processes[1 - victim].wait(timeout=100) != 0
    processes[victim].wait()
    wait_for("resjax: ", logs[1 - victim])
    died = f"process {1 - victim} of 2, or a process that it trains with, has died"
    unsaved = r".*/checkpoints: cannot write a checkpoint \(.*\)"  # where it died while both were saving
    assert re.fullmatch(f"resjax: ({died}|{unsaved}); run the same command to resume from the "
                        "(last checkpoint|previous one)", last_line(logs[1 - victim]))


def test_a_wrong_run_directory_is_told_by_all_ranks(photographs, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.json").write_text("{}")
    processes = start_two(f"{script(tmp_path, photographs, '')}:digits", tmp_path)
    assert [process.wait(timeout=60) for process in processes] == [2, 2]
    lines = [last_line(tmp_path / f"log{number}") for number in range(2)]
    assert lines[0] == lines[1]
    assert "experiment.json" in lines[0]
