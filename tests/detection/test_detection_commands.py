"""What every command promises of a run holds for a detector's: resumed, measured again, listed, reported, used."""

import json
import re
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image
from test_detection_training import run, squares, whole  # noqa: F401

import resjax
from resjax import BadInput
from resjax.console.command_line import execute
from resjax.detection import TrainedDetector, evaluate, find_all, images, restore_detector, train_detector
from resjax.detection import detectors as kind_of_detections
from resjax.detection.images import Batches, open_annotated
from resjax.detection.initialize import initial_weights
from resjax.training.run_directory import read_result


@pytest.fixture
def moved(squares, whole, tmp_path):  # noqa: F811
    """Copy the finished run and its images to another place; return both."""
    place = shutil.copytree(squares, tmp_path / "moved")
    return shutil.copytree(whole[0], tmp_path / "run"), f"voc:{place}/"


def test_moved_images_more_steps_and_another_interval_are_the_same_run(run, whole, moved):  # noqa: F811
    folder, source = moved
    there = replace(run, data=replace(run.data, source=source), log_steps=2)
    assert train_detector(there, folder, jax.devices()[:1])["state_digest"] == whole[1]["state_digest"]
    longer = train_detector(replace(there, steps=run.steps + 1), folder, jax.devices()[:1])
    assert longer["steps"] == run.steps + 1
    assert [line["step"] for line in resjax.read_metrics(folder, "train")][-2:] == [run.steps, run.steps + 1]
    place = source.removeprefix("voc:")
    for file in sorted((images.expanded(place) / "Annotations").iterdir()):
        file.write_text(file.read_text().replace("green", "red"))
    with pytest.raises(BadInput, match="the images have changed since this run began"):
        train_detector(replace(there, steps=run.steps + 2), folder, jax.devices()[:1])
    assert read_result(folder)["steps"] == run.steps + 1


def test_a_finished_run_without_its_checkpoints_is_still_told(whole, moved, capsys):  # noqa: F811
    folder, _ = moved
    shutil.rmtree(folder / "checkpoints")
    execute(["train", str(folder / "experiment.json"), "--workdir", str(folder)])
    told = capsys.readouterr()
    assert f"{folder}: nothing drawn ({folder}: no checkpoint yet" in told.err
    assert f"mAP {whole[1]['mean_average_precision']:.1f} % after" in told.out


def test_a_detector_is_measured_again(whole, moved, capsys):  # noqa: F811
    folder, source = moved
    execute(["evaluate", str(folder), "--data", source])
    said = capsys.readouterr().out
    assert f"mean average precision {whole[1]['mean_average_precision']:.2f} %" in said
    found = kind_of_detections.measure([restore_detector(folder)], "test", None, 1, source, None)
    assert found == {key: whole[1][key] for key in found}  # to the last digit
    for flags, message in ((["--views", "ten-crop"], "for a detector, it must be 'single'"),
                           (["--split", "validation"], "it must be 'train' or 'test'"),
                           (["--stride-in", "3x3"], "omit --stride-in"), (["resnet20"], "evaluate them separately")):
        with pytest.raises(BadInput, match=message):
            execute(["evaluate", str(folder), *flags])


def test_test_images_are_known_wherever_they_lie_unless_they_changed(run, moved):  # noqa: F811
    _, source = moved
    there = replace(run, data=replace(run.data, source=source))
    assert kind_of_detections.fingerprint(there) == kind_of_detections.fingerprint(run)
    picture = images.expanded(source.removeprefix("voc:")) / "JPEGImages" / "1.jpg"
    content = picture.read_bytes()
    picture.write_bytes(content)  # anything of this size may have been written
    assert kind_of_detections.fingerprint(there) != kind_of_detections.fingerprint(run)


def test_images_without_any_object_have_no_precision(moved, capsys):
    folder, source = moved
    for file in (images.expanded(source.removeprefix("voc:")) / "Annotations").iterdir():
        file.write_text("<annotation></annotation>")
    execute(["evaluate", str(folder), "--data", source])
    said = capsys.readouterr().out
    assert "no image has an object that counts" in said
    assert "0.00 %" not in said
    assert kind_of_detections.measure([restore_detector(folder)], "test", None, 1, source, None)[
        "mean_average_precision"] is None


def test_a_detector_is_listed_compared_and_reported(whole, moved, capsys):  # noqa: F811
    folder, _ = moved
    (one,) = resjax.runs(folder.parent)
    assert one["mean_average_precision"] == whole[1]["mean_average_precision"]
    assert one["step"] == whole[1]["steps"]
    execute(["report", str(folder.parent)])
    page = (folder.parent / "report.html").read_text()
    assert page.count("<tr data-run=") == 1
    assert "Faster R-CNN, tiny" in page
    assert "mAP %" in page
    assert '"test":[[' in page  # its curve
    execute(["compare", str(folder.parent)])
    assert "| squares | Faster R-CNN, tiny |" in capsys.readouterr().out


def test_pictures_are_looked_at_and_export_says_what_it_writes(moved, squares, tmp_path, monkeypatch,  # noqa: F811
                                                               capsys):
    folder, _ = moved
    monkeypatch.chdir(tmp_path)
    picture = squares / "JPEGImages" / "0.jpg"
    execute(["detect", str(folder), str(picture)])
    drawn = tmp_path / "detections" / "0.png"
    with Image.open(drawn) as opened:
        assert opened.size == (64, 48)
    before = drawn.read_bytes()
    execute(["predict", str(folder), str(drawn)])  # draws nothing, so that it does not replace the image
    assert re.search(rf"{drawn}: \d+ objects\n", capsys.readouterr().out)
    assert drawn.read_bytes() == before
    with pytest.raises(BadInput, match="is a detector, which no other library can load"):
        execute(["export", str(folder), "--to", "torchvision", "--out", str(tmp_path / "out")])
    with pytest.raises(BadInput, match="contains a run of a detector, not of a classifier"):
        resjax.restore(folder)


def test_a_detector_starts_from_a_detector(run, whole):  # noqa: F811
    folder, _ = whole
    pictures = open_annotated(run.data, train=True)
    before = restore_detector(folder)
    again = initial_weights(replace(run, initialize_from=str(folder)), pictures)
    for mine, theirs in zip(jax.tree.leaves(again.params), jax.tree.leaves(before.variables["params"]), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    others = type("Others", (), {"classes": ("one", "two", "three"), "records": pictures.records})
    drawn_anew = before.variables["params"].keys() - initial_weights(
        replace(run, initialize_from=str(folder)), others).params.keys()
    assert drawn_anew == {"scores", "boxes"}
    with pytest.raises(BadInput, match=r"contains another detector \(detector\.rpn_channels: 16 -> 8\)"):
        initial_weights(replace(run, initialize_from=str(folder), detector=replace(run.detector, rpn_channels=8)),
                        pictures)


def test_weights_are_uploaded_once_and_an_epoch_is_drawn_once(run, whole, monkeypatch):  # noqa: F811
    trained = restore_detector(whole[0])
    host = TrainedDetector(*trained[:3], *jax.device_get(trained[3:]))
    seen, plain = [], evaluate.detections
    monkeypatch.setattr(evaluate, "detections", lambda model, run, variables, mean, pyramid: seen.append(
        jax.tree.leaves(variables)[0]) or plain(model, run, variables, mean, pyramid))
    pictures = open_annotated(run.data, train=False, classes=trained.classes)
    find_all(host, pictures)
    assert len(seen) == 3
    assert all(leaf is seen[0] and isinstance(leaf, jax.Array) for leaf in seen)
    epochs = []
    draw = images.epoch_rows
    monkeypatch.setattr(images, "epoch_rows", lambda groups, size, seed, epoch: epochs.append(epoch) or draw(
        groups, size, seed, epoch))
    train = open_annotated(run.data, train=True)
    list(Batches(train, run.data, 1, 0, np.zeros(3)).steps(range(20)))
    assert epochs == [0, 1]  # of twelve images


def test_a_described_run_names_its_kind(whole):  # noqa: F811
    record = json.loads((whole[0] / "experiment.json").read_text())
    assert record["kind"] == "detection"
    assert not (whole[0] / "detection.json").exists()
