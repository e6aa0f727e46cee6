"""The page about a folder of runs: whole, self-contained, true to the runs; and the same curves for TensorBoard."""

import base64
import hashlib
import html
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import jax
import optax
import pytest

import resjax
from resjax import Architecture, BadInput, Data, Experiment, Optimizer, cifar_resnet, read_metrics, train
from resjax.console.command_line import execute
from resjax.paper import write_report, write_tensorboard
from resjax.paper.report import table_section
from resjax.paper.run_curves import POINTS, curves_in, last_before, quantities, thinned
from resjax.system.files import write_json
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
        result = json.loads((copy / "result.json").read_text())
        (copy / "result.json").write_text(json.dumps(result | {"steps": 64_000}))
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
    curves, quantities = (json.loads(scripts[0][1])[key] for key in ("runs", "quantities"))
    assert len(curves) == 50
    assert curves[1]["curves"]["error, %"]["train"][-1] == [64_000, float(f"{50 / 64_000:.4g}")]
    assert quantities == ["error, %", "loss", "learning rate", "top-5 error, %"]
    assert all(reference.startswith("#") for reference in seen.references)
    assert not re.search(r"url\((?!#)|@import", page)
    text = "".join(seen.text)
    result = json.loads((folder / "run0" / "result.json").read_text())
    error = result["test_top1_error"]
    assert f'<td class="number" data-value="{error}">{error:.2f}</td>' in page
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


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """A run that was tested once, with a callback, an own network and an own optimizer; a longer one, stopped."""
    folder = tmp_path_factory.mktemp("truth")
    run = Experiment(name="own", architecture=Architecture(depth=8, ghost_batch_size=16), data=Data(pad=1, flip=False),
                     steps=4, batch_size=32, log_steps=2, precise_batch_norm_steps=1)
    train(run, folder / "own", jax.devices()[:1], model=cifar_resnet(8, filters=4, ghost_batch_size=16),
          optimizer=optax.adamw(1e-3), callback=lambda line, network: {"depth below zero": -3e6 * line["step"]})
    train(replace(run, name="longer"), folder / "longer", jax.devices()[:1])
    record = json.loads((folder / "longer" / "experiment.json").read_text())
    record["experiment"]["steps"] = 100
    (folder / "longer" / "experiment.json").write_text(json.dumps(record))
    line = read_metrics(folder / "longer", "train")[-1]
    with (folder / "longer" / "metrics.jsonl").open("a") as log:
        log.write(json.dumps(line | {"step": 60, "error": 12.34}) + "\n")
    write_report(folder, folder / "report.html")
    return folder


def test_a_stopped_run_is_not_paired_with_the_test_of_another_step(truth):
    longer = re.search(r'<tr data-run="0".*?</tr>', (truth / "report.html").read_text(), re.DOTALL)[0]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", longer)
    assert cells[1:] == ["ResNet A-8 in CIFAR form", "100", "12.34", "-", "-", "-", "-", "not finished: step 60"]
    assert resjax.runs(truth)[0]["test_top1_error"] is None
    assert "2 runs, 1 of them finished" in (truth / "report.html").read_text()


def test_what_was_given_in_python_stands_in_place_of_the_defaults(truth):
    page = html.unescape((truth / "report.html").read_text())
    own = re.search(r'<section class="run" data-run="1">.*?</section>', page, re.DOTALL)[0]
    values = dict(re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", own))
    assert values["network"] == "ResNet(blocks=(1, 1, 1), filters=4, classes=10, ghost_batch_size=16)"
    assert values["optimizer"].startswith("ScaleByAdam")
    assert not [name for name in values if name.startswith(("architecture.", "optimizer."))]
    assert "Parts of this run were passed in Python" in own
    assert '<td class="number" data-value="4">4</td>' in page
    longer = re.search(r'<section class="run" data-run="0">.*?</section>', page, re.DOTALL)[0]
    assert "<td>architecture.depth</td><td>8</td>" in longer


def test_curves_are_sorted_by_what_is_measured():
    log = [{"step": 1, "kind": "train", "loss": 2.0, "error": 90.0, "learning_rate": 0.1, "images_per_second": 7.0},
           {"step": 2, "kind": "train", "loss": 1.0, "error": 80.0, "images_per_second": 7.0},
           {"step": 2, "kind": "own", "sharpness": 5.0, "broken": float("nan"), "error": 0.5, "average_precision": 0.5},
           {"step": 2, "kind": "validation", "top1_error": 70.0, "top5_error": 9.0, "loss": 3.0},
           {"step": 2, "kind": "compile", "seconds": 5.0},
           {"step": 2, "kind": "detection", "mean_average_precision": None, "eleven_point": 40.0,
            "average_precision": {"cat": 41.0, "dog": None}}]
    found = curves_in(log)
    assert found == {
        "loss": {"train": [(1, 2.0), (2, 1.0)], "validation": [(2, 3.0)]}, "learning rate": {"train": [(1, 0.1)]},
        "error, %": {"train": [(1, 90.0), (2, 80.0)], "validation": [(2, 70.0)]},
        "sharpness": {"own": [(2, 5.0)]}, "error": {"own": [(2, 0.5)]}, "average_precision": {"own": [(2, 0.5)]},
        "top-5 error, %": {"validation": [(2, 9.0)]},
        "mAP by 11 points, %": {"test": [(2, 40.0)]}, "AP of cat, %": {"test": [(2, 41.0)]}}
    assert quantities([found]) == ["error, %", "loss", "learning rate", "top-5 error, %", "mAP by 11 points, %",
                                   "sharpness", "error", "average_precision", "AP of cat, %"]
    assert last_before(log, 1)["error"] == 90
    assert last_before([], None) == {}


def test_chromium_draws_one_point_and_numbers_below_zero(truth, tmp_path):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("Chromium is not installed")
    page = (truth / "report.html").read_text()
    shown = {}
    for name in ("error, %", "depth below zero"):  # the first is drawn
        changed = re.sub(r'"quantities":\[', rf'"quantities":["{name}",', page)
        (tmp_path / "page.html").write_text(changed)
        opened = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
             "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
             f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=60, check=True)
        assert "CONSOLE" not in opened.stderr
        shown[name] = re.search(r'<div class="plot".*?</div>', opened.stdout, re.DOTALL)[0]
        legend = re.search(r'<ul class="legend".*?</ul>', opened.stdout, re.DOTALL)[0]
        assert ("test 12.34" in legend, "train 12.34, test" in legend) == (False, name == "error, %")
        if name == "error, %":
            assert re.search(r"train 12\.34, test [\d.]+ \(at 4\)", legend)  # of the step that it was measured at
    assert shown["error, %"].count('<circle class="point test') == 2
    heights = [float(y) for y in re.findall(r"[ML][\d.]+ (-?[\d.]+)", re.search(
        r'class="curve own[^>]*d="([^"]*)"', shown["depth below zero"])[1])]
    height = float(re.search(r'height="(\d+)"', shown["depth below zero"])[1])
    assert len(heights) == 2
    assert all(0 < y <= height - 40 for y in heights)
    assert ">-1e7<" in shown["depth below zero"]


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
    shutil.copytree(folder / "run1", tmp_path / "runs" / "huge")
    with (tmp_path / "runs" / "huge" / "metrics.jsonl").open("a") as log:
        log.write(f'{{"step": 1, "kind": "own", "size": 1{"0" * 400}}}\n')
    write_report(tmp_path / "runs", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr data-run=") == 1
    assert "broken/experiment.json: not a readable JSON file" in page
    assert "int too large to convert to float" in page


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no runs found"):
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
    with pytest.raises(BadInput, match="already contains logs"):
        write_tensorboard(one, tmp_path / "logs")


def test_several_measures_of_a_table_are_named(tmp_path):
    measures = [{"title": f"top-{k} error", "paper": "1", "ours": "2", "values": [2.0]} for k in (1, 5)]
    row = {"experiment": "a", "title": "A", "layers": 18, "steps": 9, "parameters": 1, "training_errors": [3.0],
           "holds": None, "verdict": "", "measures": measures}
    write_json(tmp_path / "table3.json", {"title": "Table 3", "protocol": "ten crops", "scale": 1, "rows": [row],
                                          "figures": [], "command": "resjax reproduce table3"})
    assert "over n seeds, of top-1 error / top-5 error.</p>" in table_section(tmp_path / "table3.json", tmp_path)
