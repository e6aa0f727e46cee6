"""What unlucky files and processes leave behind or put in the way: it goes, or one line tells of it."""

import os
import signal
import subprocess
import sys
import types
import zlib
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from campaign.damage import DAMAGES, Outcome, cases, judge, try_case
from campaign.damage_subjects import weights

from resjax import BadInput, Data, read_metrics, train
from resjax.console.command_line import execute, guarded
from resjax.data.prepared import data_directory
from resjax.experiment_files import load_file
from resjax.paper import TABLES, Planned
from resjax.paper.reproduce import planned_result
from resjax.system import platform
from resjax.system.files import expanded, folder_aside, in_use, read_json, write_aside, write_text
from resjax.system.platform import cache_directory, remove_damaged_programs

pytestmark = pytest.mark.usefixtures("one_device")

KILLED = """
import os, sys
from pathlib import Path
from resjax.system.files import folder_aside, write_aside
with folder_aside(Path(sys.argv[1]) / "out") as folder:
    (folder / "part").write_text("half")
    write_aside(Path(sys.argv[1]) / "page.html", lambda aside: (aside.write_text("half"), os.kill(os.getpid(), 9)))
"""


def test_what_killed_writers_leave_goes_with_the_next(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    write_text(tmp_path / "page.html", "whole")
    with folder_aside(tmp_path / "out") as folder:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted((folder.name, "page.html"))
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_what_is_being_written_stays(tmp_path):
    other = tmp_path / ".page.html.aside-1.html"
    other.touch()
    with in_use(other):
        write_text(tmp_path / "page.html", "whole")
        assert other.exists()
    write_text(tmp_path / "page.html", "whole")
    assert not other.exists()


class Zstandard(types.ModuleType):
    """Stands for the package `zstandard`: frames of their own, whose damage is an error of its own."""

    def ZstdDecompressor(self):
        return self

    def decompress(self, frame):
        if not frame.startswith(b"\x28\xb5\x2f\xfd"):
            raise RuntimeError("ZstdError")
        return zlib.decompress(frame[4:])


@pytest.mark.parametrize("by", ["zlib", "zstandard"])
def test_damaged_programs_are_removed_and_whole_ones_stay(tmp_path, by, monkeypatch):
    zstandard = Zstandard("zstandard")
    zstandard.__spec__ = ModuleSpec("zstandard", None)
    monkeypatch.setitem(sys.modules, "zstandard", zstandard if by == "zstandard" else None)
    monkeypatch.setattr(platform, "find_spec", lambda name: by == "zstandard")
    program = zlib.compress(np.random.default_rng(0).bytes(1000))
    for compressor, head in (("zlib", b""), ("zstandard", b"\x28\xb5\x2f\xfd")):
        flipped = ("flipped early", "flipped in the middle", "flipped late") if compressor == "zlib" else ()
        for how in ("emptied", "cut to half", *flipped):  # a frame of zstandard's has no checksum
            (tmp_path / f"{compressor} {how}-cache").write_bytes(head + program)
            DAMAGES[how](tmp_path / f"{compressor} {how}-cache")
        (tmp_path / f"{compressor} whole-cache").write_bytes(head + program)
    remove_damaged_programs(tmp_path)  # what JAX would read by another decompression is as good as damaged
    assert [file.name for file in tmp_path.glob("*-cache")] == [f"{by} whole-cache"]


PROGRAM = """
import jax
from resjax.system.platform import keep_compiled_programs
keep_compiled_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((3, 3))))
"""


@pytest.mark.parametrize("how", ["cut to half", "flipped in the middle"])
def test_jax_compiles_a_damaged_program_anew_without_a_warning(tmp_path, how):
    def start():
        done = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], check=True, capture_output=True,
                              text=True, env=os.environ | {"RESJAX_CACHE": str(tmp_path)})
        files = (tmp_path / "programs").glob("*-cache")
        return done.stdout, done.stderr, {file: file.read_bytes() for file in files}

    _, _, first = start()
    for file in first:
        DAMAGES[how](file)
    printed, told, second = start()
    assert (printed, told) == ("27.0\n", "")
    assert second == first


def test_an_old_checkpoint_that_was_half_removed_goes(small, tmp_path):
    train(small(steps=8), tmp_path)
    half = tmp_path / "checkpoints" / "2" / "state"
    half.mkdir(parents=True)
    (tmp_path / "result.json").unlink()
    train(small(steps=8), tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["4", "6", "8"]


def test_reproduce_leaves_out_a_finished_run_whose_files_are_damaged(small, tmp_path, capsys):
    train(small(), tmp_path)
    planned = Planned(TABLES["table6"].rows[0], small(), tmp_path)
    assert planned_result(planned)["steps"] == 6
    lines = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text("")
    assert planned_result(planned) is None
    assert "metrics.jsonl: contains no readable training line" in capsys.readouterr().err
    (tmp_path / "metrics.jsonl").write_text(lines)
    result = (tmp_path / "result.json").read_text()
    (tmp_path / "result.json").write_text(result.replace('"parameters"', '"qarameters"'))
    assert planned_result(planned) is None
    assert "result.json: lacks parameters" in capsys.readouterr().err


@pytest.mark.parametrize("use", [expanded, data_directory, lambda path: execute(["evaluate", path])],
                         ids=["expanded", "data", "evaluate"])
def test_a_user_that_does_not_exist_is_told(use):
    with pytest.raises(BadInput, match="~nobodyhere/run: the user does not exist"):
        use("~nobodyhere/run")


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path, kind):
    odd = tmp_path / "odd.json"
    os.mkfifo(odd) if kind == "fifo" else odd.mkdir()
    for use in (read_json, lambda file: write_text(file, "text")):
        with pytest.raises(BadInput, match=r"odd\.json: .*this is a folder, a device or a FIFO"):
            use(odd)
    (tmp_path / "metrics.jsonl").symlink_to(odd)
    with pytest.raises(BadInput, match="not a file"):
        read_metrics(tmp_path)


def test_a_device_is_not_replaced():
    with pytest.raises(BadInput, match="not a file"):
        write_aside(Path("/dev/null"), lambda aside: None)
    assert Path("/dev/null").is_char_device()


def test_the_cache_needs_no_home_where_it_is_named(monkeypatch, tmp_path):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("RESJAX_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("RESJAX_CACHE")
    with pytest.raises(BadInput, match="set RESJAX_CACHE to a folder"):
        cache_directory()


KEPT = ("PATH", "PYTHONPATH", "RESJAX_CACHE", "XLA_FLAGS")
NOBODY = """
import os, pwd, sys
def nobody(uid):
    raise KeyError(uid)
pwd.getpwuid = nobody
os.environ.pop("HOME", None)
from resjax.console.command_line import main
main()
"""
SMALL = """
from resjax import Architecture, Experiment
EXPERIMENTS = {"small": Experiment(name="small", architecture=Architecture(depth=8, ghost_batch_size=16), steps=2,
                                   batch_size=16, log_steps=2, precise_batch_norm_steps=1)}
"""


def test_a_training_needs_no_home_where_the_cache_is_named(tmp_path):
    """As in a container under a number that has no name: the system knows no home folder either."""
    (tmp_path / "mine.py").write_text(SMALL)
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    done = subprocess.run([sys.executable, "-c", NOBODY, "train", f"{tmp_path}/mine.py:small", "--workdir",
                           str(tmp_path / "run")], check=False, env=kept, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "small: test error" in done.stdout
    assert "resjax: " not in done.stderr
    assert any((Path(kept["RESJAX_CACHE"]) / "programs").iterdir())


ENDING = """
import atexit, os, signal, sys
from resjax.console.command_line import main
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["resjax", "list", "cifar10"]
main()
"""


def test_ctrl_c_while_python_ends_leaves_no_traceback():
    done = subprocess.run([sys.executable, "-c", ENDING], check=False, capture_output=True, text=True)
    assert "resnet20" in done.stdout
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize(("text", "told"), [
    ("def (:\n", "line 1: invalid syntax"), ("a = 1\nraise KeyError('\\x1b[2J')\n", "line 2: KeyError"),
    ("import nothing_of_that_name\n", "line 1: ModuleNotFoundError")])
def test_an_experiment_file_that_cannot_be_run_is_told_by_its_line(tmp_path, text, told):
    file = tmp_path / "odd.py"
    file.write_text(text)
    with pytest.raises(BadInput, match=rf"odd\.py, {told}"):
        load_file(file)


def test_messages_are_bounded_and_without_control_characters(capsys):
    def refuse():
        raise BadInput("\x1b[31m\x07" + "x" * 100_000)

    assert guarded(refuse) == 2
    err = capsys.readouterr().err
    assert "\x07" not in err
    assert "\x1b[31m" not in err
    assert len(err) < 4000


def test_names_too_long_are_told(capsys):
    assert guarded(lambda: execute(["report", "y/" * 3000])) == 2 or "too long" in capsys.readouterr().err


def test_an_export_tells_nothing_of_this_machine(small, tmp_path):
    train(small(data=Data(pad=1, flip=False)), tmp_path / "run")
    execute(["export", str(tmp_path / "run"), "--to", "stablehlo", "--out", str(tmp_path / "out")])
    content = (tmp_path / "out" / "model.stablehlo").read_bytes()
    assert b".py" not in content


def test_damaged_exports_and_weights(tmp_path, capsys):
    """A short form of `tests/campaign/damage.py`."""
    subjects, whole = weights(tmp_path), {}
    chosen = [case for case in cases(subjects) if case.damage != "no permission" and case.command != "export"
              and not case.command.endswith((".h5", ".keras"))]
    with capsys.disabled():
        found = {case: try_case(case, subjects, whole, tmp_path) for case in chosen}
    assert len(found) > 60
    assert {case: outcome for case, (kind, outcome) in found.items() if kind.isupper()} == {}


def test_the_judge_sees_what_is_wrong():
    whole = Outcome(0, [1], "")
    wrong = {"TRACEBACK": Outcome(99, [], "Traceback ..."), "SILENT": Outcome(0, [2], ""),
             "UNCLEAR": Outcome(1, [], "something\n"), "refused": Outcome(2, [], "resjax: no\n"), "right": whole}
    assert [judge(outcome, whole, sealed=True) for outcome in wrong.values()] == list(wrong)
