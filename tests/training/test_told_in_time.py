"""What goes wrong is told before the first step, or in a line: photographs, folders, experiment files, locks."""

import errno
import fcntl
import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

import resjax
from resjax import Architecture, BadInput, Experiment, Photographs, read_metrics, train
from resjax.data import stream
from resjax.data.index import BUT_TEST_SIZES
from resjax.detection import Scenery
from resjax.detection.images import open_annotated
from resjax.detection.stated import remark_on_leakage
from resjax.evaluation import measure_networks
from resjax.experiment_files import load_runs
from resjax.system.progress import one_by_one
from resjax.training.log import Stopwatch
from resjax.training.run_directory import check_images
from resjax.training.step import state_digest

ONE = jax.devices()[:1]


def photographs(root, spoil=lambda root: None):
    for split, count in (("train", 4), ("test", 3)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 36), (i, 90, 0)).save(root / split / name / f"{i}.jpg")
    spoil(root)
    data = Photographs(source=f"folder:{root}", size=32, shorter_side=(32, 40), test_shorter_side=32, workers=0)
    return Experiment(name="p", architecture=Architecture(family="imagenet", depth=18, ghost_batch_size=4), data=data,
                      steps=2, batch_size=4)


class Tiny(nn.Module):
    """Compiles in no time."""

    classes: int = 2

    @nn.compact
    def __call__(self, x, *, train=False):
        return nn.Dense(self.classes)(x.mean((1, 2)))


def break_all(root):
    for file in (root / "train").rglob("*.jpg"):
        file.write_bytes(b"no picture")


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda root: (root / "test/dog/1.jpg").write_bytes(b"no picture"), "test/dog/1.jpg: damaged image"),
    (lambda root: ((root / "test/dog/1.jpg").unlink(), (root / "test/dog/1.jpg").symlink_to("nowhere")),
     "test/dog/1.jpg: damaged image .No such file"),
    (break_all, "none of its 8 training images is readable: .*train/cat/0.jpg")])
def test_unreadable_photographs_are_named_before_the_first_step(tmp_path, spoil, message):
    with pytest.raises(BadInput, match=message):
        train(photographs(tmp_path / "set", spoil), tmp_path / "run", ONE)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_an_unreadable_test_image_at_the_end_keeps_the_state_and_is_measured_when_mended(tmp_path, capsys):
    """Its header is whole, so that nothing tells before it is decoded."""
    whole = {}

    def cut_off(root):
        file = root / "test/dog/1.jpg"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (36, 40, 3), np.uint8)).save(file)
        whole[file] = file.read_bytes()
        file.write_bytes(whole[file][:-200])

    run = replace(photographs(tmp_path / "set", cut_off), steps=1, precise_batch_norm_steps=0)
    told = r"test/dog/1.jpg: damaged image .* All 1 steps are done and saved in .*run the same command"
    with pytest.raises(BadInput, match=told):
        train(run, tmp_path / "run", ONE, model=Tiny())
    assert not (tmp_path / "run" / "result.json").exists()
    kept = resjax.restore(tmp_path / "run", model=Tiny())
    assert kept.state.step == 1
    for file, content in whole.items():
        file.write_bytes(content)
    result = train(run, tmp_path / "run", ONE, model=Tiny())
    assert "test image files have changed in size since this run began" in capsys.readouterr().err
    assert result["state_digest"] == state_digest(kept.state)
    measured = measure_networks([kept.network], "test", "single", 4)
    assert (measured.images, measured.top1_error) == (6, result["test_top1_error"])
    assert [line["kind"] for line in read_metrics(tmp_path / "run") if line["kind"] != "compile"] == ["train", "test"]


def test_a_run_from_before_is_compared_by_what_it_knew_of_its_images(tmp_path):
    images = {"classes": ["a"], "training images": 1, "test images": 1, "digest": "x"}
    (tmp_path / "experiment.json").write_text(json.dumps({"images": images}))
    check_images(tmp_path, images | {BUT_TEST_SIZES: "y"})
    with pytest.raises(BadInput, match="names, sizes or labels have changed"):
        check_images(tmp_path, images | {"digest": "z", BUT_TEST_SIZES: "y"})


def test_a_small_shared_memory_is_told_before_workers_start(monkeypatch):
    monkeypatch.setattr(stream, "disk_usage", lambda folder: SimpleNamespace(free=64 << 20))
    batch = 256 * 224 * 224 * 3
    with pytest.raises(BadInput, match=r"64 MB are free, but 2 worker processes need 257 MB .* 1g.*--data.workers 0"):
        stream.check_shared_memory(2, batch)
    stream.check_shared_memory(8, 1 << 20)
    with pytest.raises(BadInput, match=r"--data.workers 21 or"):
        stream.check_shared_memory(30, 1 << 20)


def test_a_file_system_without_locks_is_remarked(tmp_path, small, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert train(small(steps=2), tmp_path, ONE)["steps"] == 2
    assert f"{tmp_path}: its file system does not support locks (Function not implemented)" in capsys.readouterr().err


EXPERIMENT = """from __future__ import annotations
from dataclasses import dataclass
from helper_of_mine import STEPS
from resjax import Architecture, Data, Experiment

@dataclass
class Sweep:
    steps: int

EXPERIMENTS = {"x": Experiment(name="x", architecture=Architecture(depth=8), steps=Sweep(STEPS).steps)}
"""


def test_an_experiment_file_works_as_its_script_does(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "helper_of_mine.py").write_text("STEPS = 2\n")
    (tmp_path / "json.py").write_text(EXPERIMENT)  # a name that Python has already
    assert load_runs(tmp_path / "json.py")["x"].steps == 2
    assert sys.modules["json"].__file__ != str(tmp_path / "json.py")


def test_a_file_that_starts_its_own_command_line_is_told_to_guard_it(tmp_path):
    file = tmp_path / "unguarded.py"
    file.write_text(EXPERIMENT.replace("from helper_of_mine import STEPS", "STEPS = 2") + "import resjax\n"
                    "resjax.run(EXPERIMENTS)\n")
    with pytest.raises(BadInput, match=r'unguarded.py: resjax.run\(...\) would run .* if __name__ == "__main__":'):
        load_runs(file)
    file.write_text(file.read_text().replace("resjax.run", "if __name__ == '__main__': resjax.run"))
    assert load_runs(file)["x"].steps == 2


def test_code_that_workers_cannot_import_is_told_before_they_start(monkeypatch):
    """As of `python - < script`, whose file is called <stdin>; a module, a file and an interactive session are fine."""
    def started(*_):
        raise AssertionError("workers were started")

    monkeypatch.setattr(stream, "start_tracker", started)
    for file, spec, refused in (("<stdin>", None, True), ("<stdin>", "spec", False), (__file__, None, False),
                                (None, None, False)):
        main = SimpleNamespace(__spec__=spec, **{"__file__": file} if file else {})
        monkeypatch.setitem(sys.modules, "__main__", main)
        error, message = (BadInput, "--data.workers 0") if refused else (AssertionError, "workers were started")
        with pytest.raises(error, match=message), stream.planned_batches(range(9), str, 1):
            pass


def test_time_left_is_never_below_zero(tmp_path, small, capsys, monkeypatch):
    """Of steps that take an hour each, the last of which ends no line of the log."""
    monkeypatch.setattr(Stopwatch, "lap", lambda self: (3600.0, 0.0))
    runs = [small(steps=3, log_steps=2, seed=seed, precise_batch_norm_steps=0) for seed in (0, 1)]
    for run in one_by_one(runs, [3, 3]):
        train(run, tmp_path / str(run.seed), ONE)
    left = re.findall(r"(-?\d[^ ]* \w+ ?\d* ?\w*) (left|in total)", capsys.readouterr().err)
    assert len(left) >= 4
    assert not [text for text, _ in left if "-" in text]


def test_a_folder_that_is_no_voc_is_told(tmp_path):
    (tmp_path / "cats").mkdir()
    with pytest.raises(BadInput, match="VOC's layout has JPEGImages, Annotations and ImageSets/Main"):
        open_annotated(Scenery(source=f"voc:{tmp_path}"), train=True)
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/val.txt").write_text("x\n")
    with pytest.raises(BadInput, match=r"the available sets are val; choose them with --data.train and --data.test"):
        open_annotated(Scenery(source=f"voc:{tmp_path}"), train=True)


def test_json_is_utf8_and_xml_as_it_declares_whatever_the_locale(tmp_path):
    """In C's locale, with four encodings, one of more than a byte a letter and one that nobody knows."""
    program = """
import sys; from pathlib import Path; from PIL import Image
from resjax.detection.voc import read_voc; from resjax.detection.coco import read_coco
root = Path(sys.argv[1])
for part in ("Annotations", "ImageSets/Main", "JPEGImages", "annotations", "t"): (root / part).mkdir(parents=True)
(root / "ImageSets/Main/t.txt").write_bytes(b"f")
for place in ("JPEGImages/f.jpg", "t/f.jpg"): Image.new("RGB", (9, 9)).save(root / place)
box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax></bndbox>"
for encoding, name in (("utf-8", "猫"), ("gbk", "猫"), ("Shift_JIS", "猫"), ("iso-8859-1", "Größe"), ("cp037", "cat")):
    text = f'<?xml version="1.0" encoding="{encoding}"?><a><object><name>{name}</name>{box}</object></a>'
    (root / "Annotations/f.xml").write_bytes(text.encode(encoding))
    assert read_voc(root, ("t",)).classes == (name,) or name == "cat", encoding
(root / "Annotations/f.xml").write_text('<?xml version="1.0" encoding="utf8mb4"?><a></a>')
try: read_voc(root, ("t",))
except ValueError as error: assert "f.xml: incomplete or invalid annotation (unknown" in str(error), error
content = ('{"images": [{"id": 1, "file_name": "f.jpg", "width": 9, "height": 9}], "annotations": [], '
           '"categories": [{"id": 1, "name": "Größe"}]}')
for encoding in ("utf-8", "utf-8-sig", "utf-16"):
    (root / "annotations/instances_t.json").write_bytes(content.encode(encoding))
    assert read_coco(root, ("t",)).classes == ("Größe",)
"""
    (tmp_path / "program.py").write_text(program, "utf-8")
    command = [sys.executable, "-X", "utf8=0", str(tmp_path / "program.py"), str(tmp_path / "set")]
    done = subprocess.run(command, check=False, text=True, capture_output=True,
                          env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr[-1500:]


def test_pictures_listed_twice_and_in_both_sets_are_remarked(tmp_path):
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (tmp_path / part).mkdir(parents=True)
    for name in "abc":
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        (tmp_path / "Annotations" / f"{name}.xml").write_text("<annotation/>")
    (tmp_path / "ImageSets/Main/t.txt").write_text("a\nb\na\nc\nb\n")
    data = Scenery(source=f"voc:{tmp_path}", train=("t",), test=("t",), classes=("x",))
    images = open_annotated(data, train=True)
    assert len(images.records) == 5
    first = f"{tmp_path}/JPEGImages/a.jpg"
    assert f"2 images listed more than once; each listing counts (such as {first})" in images.remarks
    (tmp_path / "ImageSets/Main/t.txt").write_text("b\nc\n")
    told = remark_on_leakage(images, open_annotated(data, train=False))
    assert told.startswith("2 images used for both training and testing, so the test result is too good (such as ")
