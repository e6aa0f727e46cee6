"""The page about a folder of runs: whole, self-contained, true to the runs; and the same curves for TensorBoard."""

import base64
import hashlib
import html
import json
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser

import jax
import pytest

from resjax import Architecture, BadInput, Data, Experiment, Optimizer, read_metrics, train
from resjax.console.command_line import execute
from resjax.paper import write_report, write_tensorboard
from resjax.paper.report import POINTS, thinned
from resjax.training import read_experiment


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fifty runs: one that was trained, its copies with curves as long as the paper's, and one that is not finished."""
    folder = tmp_path_factory.mktemp("fifty")
    run = Experiment(name="run", architecture=Architecture(depth=8, ghost_batch_size=16),
                     optimizer=Optimizer(learning_rate=0.05), data=Data(pad=1, flip=False), steps=6,
                     batch_size=32, log_steps=2, evaluate_steps=2, evaluate_test=True, precise_batch_norm_steps=2)
    train(run, folder / "run0", jax.devices()[:1])
    for number in range(1, 50):
        copy = folder / f"run{number}"
        shutil.copytree(folder / "run0", copy, ignore=shutil.ignore_patterns("checkpoints"))
        train_line, test_line = (read_metrics(copy, kind)[-1] for kind in ("train", "test"))
        lines = [train_line | {"step": step, "error": 50 / step} for step in range(100, 64_001, 100)]
        lines += [test_line | {"step": step} for step in range(1_000, 64_001, 1_000)]
        (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        record = json.loads((copy / "experiment.json").read_text())
        record["experiment"] |= {"steps": 64_000, "name": "<script>alert(1)</script>" if number == 7 else "run"}
        (copy / "experiment.json").write_text(json.dumps(record))
    (folder / "run49" / "result.json").unlink()
    return folder


class Collector(HTMLParser):
    """Notes elements, what they refer to, and the text."""

    def __init__(self):
        super().__init__()
        self.tags, self.references, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "data", "action", "srcset")]

    def handle_data(self, data):
        self.text.append(data)


def test_a_page_of_fifty_runs_is_small_and_needs_nothing_else(folder, tmp_path):
    write_report(folder, tmp_path / "new" / "report.html")
    page = (tmp_path / "new" / "report.html").read_text()
    seen = Collector()
    seen.feed(page)
    assert len(page) < 5e6
    assert page.count('<section class="run"') == 50
    assert page.count("<tr data-run=") == 50
    assert not {"link", "iframe", "img", "object"} & set(seen.tags)
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert [attributes.strip() for attributes, _ in scripts] == ['type="application/json" id="data"', ""]
    allowed = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in page
    curves = json.loads(scripts[0][1])
    assert len(curves) == 50
    assert curves[1]["curves"]["train"][-1] == [64_000, float(f"{50 / 64_000:.4g}")]
    assert all(reference.startswith("#") for reference in seen.references)
    assert not re.search(r"url\((?!#)|@import", page)
    text = "".join(seen.text)
    result = json.loads((folder / "run0" / "result.json").read_text())
    assert f"<td data-value=\"{result['test_top1_error']}\">{result['test_top1_error']:.2f}</td>" in page
    assert "<script>alert(1)</script>" in text  # as text
    assert "50 runs, 49 of them finished" in text
    assert text.count("not finished") == 1
    run = folder.resolve() / "run0"
    assert f"resjax train {run / 'experiment.json'} --workdir {run}-again" in text


def test_chromium_opens_the_page_without_a_complaint(folder, tmp_path):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("Chromium is not installed")
    write_report(folder, tmp_path / "report.html")
    opened = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path}/report.html"],
        capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in opened.stderr
    assert opened.stdout.count('<section class="run"') == 50
    assert opened.stdout.count('class="curve train') == 4  # the script ran


def test_a_run_is_repeated_from_its_record(folder, tmp_path):
    execute(["train", str(folder / "run0" / "experiment.json"), "--workdir", str(tmp_path / "again")])
    one, again = (read_experiment(workdir) for workdir in (folder / "run0", tmp_path / "again"))
    assert one == again
    assert (tmp_path / "again" / "result.json").exists()


def test_commands_are_quoted_where_a_folder_needs_it(folder, tmp_path):
    place = tmp_path / "my runs; and $HOME"
    shutil.copytree(folder / "run1", place / "run 1")
    write_report(place, tmp_path / "report.html")
    command = html.unescape(re.search(r"<code>(.*?)</code>", (tmp_path / "report.html").read_text())[1])
    assert shlex.split(command) == ["resjax", "train", str(place / "run 1" / "experiment.json"), "--workdir",
                                    f"{place / 'run 1'}-again"]


def test_a_damaged_run_is_named_and_the_others_are_shown(folder, tmp_path):
    shutil.copytree(folder / "run1", tmp_path / "runs" / "whole")
    shutil.copytree(folder / "run1", tmp_path / "runs" / "broken")
    (tmp_path / "runs" / "broken" / "experiment.json").write_text("{")
    write_report(tmp_path / "runs", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr data-run=") == 1
    assert "broken/experiment.json: not a readable JSON file" in page


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no run lies there"):
        write_report(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_curve_keeps_its_ends_and_is_thinned():
    points = [(step, 50.0) for step in range(1, 1001)]
    kept = thinned(points)
    assert len(kept) <= POINTS + 1
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:1]) == points[:1]
    assert thinned([]) == []


def test_tensorboard_logs_hold_every_number(folder, tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    one = tmp_path / "one"
    shutil.copytree(folder / "run0", one / "run0")
    write_tensorboard(one, tmp_path / "logs")
    content = next((tmp_path / "logs" / "run0").glob("events.*")).read_bytes()
    found, start = {}, 0
    while start < len(content):  # records: length (8 bytes), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(content[start:start + 8], "little")
        event = Event.FromString(content[start + 12:start + 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        start += 16 + length
    for line in read_metrics(one / "run0"):
        for key in line.keys() - {"step", "kind"}:
            assert found[f"{line['kind']}/{key}", line["step"]] == pytest.approx(line[key], rel=1e-6)
    with pytest.raises(BadInput, match="holds logs already"):
        write_tensorboard(one, tmp_path / "logs")
