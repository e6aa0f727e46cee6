"""Where images are found: what lies in a folder, one split without the other, classes by name; a run knows its own."""

import json
import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from networks import random_network
from PIL import Image
from test_prepared import numbered, write_set
from test_sources import paint, paint_splits

from resjax import BadInput, Data, Photographs, load_data, read_metrics, train
from resjax.console.command_line import execute
from resjax.data import find_images, find_split
from resjax.evaluation import log_probabilities, measure_networks
from resjax.evaluation.error_rates import class_places
from resjax.evaluation.probabilities import plan_batches
from resjax.network import imagenet_classes

pytestmark = pytest.mark.usefixtures("one_device")


def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path):
    paint_splits(tmp_path)
    for name in (".DS_Store", "Thumbs.db", "._00.png"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"x")
    for folder in ("__MACOSX", "@eaDir", ".ipynb_checkpoints", "lost+found", "System Volume Information"):
        (tmp_path / "train" / folder).mkdir()
    found = find_images(Data(source=f"folder:{tmp_path}"))
    assert (found.classes, len(found.train.labels), found.remark) == (("cat", "dog"), 2, "")


def test_what_is_not_used_is_counted_and_said_once(tmp_path, capsys, small):
    paint_splits(tmp_path, count=20, size=(8, 8))
    for name in ("notes.txt", "labels.csv", "raw.cr2"):
        (tmp_path / "train" / "cat" / name).touch()
    train(small(data=Data(source=f"folder:{tmp_path}", pad=1), steps=2, precise_batch_norm_steps=0), tmp_path / "run")
    said = [line for line in capsys.readouterr().err.splitlines() if "ignored" in line]
    assert len(said) == 1
    assert "3 files without the extension of an image, such as cat/labels.csv" in said[0]


def test_classes_that_sort_otherwise_as_numbers_are_pointed_out(tmp_path):
    paint_splits(tmp_path, classes=("0", "1", "10", "2"))
    found = find_images(Data(source=f"folder:{tmp_path}"))
    assert found.classes == ("0", "1", "10", "2")
    assert "sorted by name as text, not as numbers: 0, 1, 10, 2" in found.remark


@pytest.mark.parametrize("spoil", [
    lambda file: file.symlink_to(file.with_name("gone.png")), lambda file: file.mkdir(),
    lambda file: file.write_bytes(b"")], ids=["a link to nothing", "a folder", "an empty file"])
def test_what_is_called_an_image_and_is_none_is_unreadable(tmp_path, spoil):
    paint_splits(tmp_path)
    spoil(tmp_path / "train" / "cat" / "odd.png")
    found = find_images(Data(source=f"folder:{tmp_path}"))
    names = [found.train.name(i) for i in range(len(found.train.labels))]
    odd = names.index(str(tmp_path / "train" / "cat" / "odd.png"))
    with pytest.raises(BadInput, match=r"cat/odd\.png: damaged image"):
        load_data(Data(source=f"folder:{tmp_path}"))
    if not (tmp_path / "train" / "cat" / "odd.png").is_file():
        with pytest.raises(BadInput, match=r"cat/odd\.png: damaged image"):
            found.train.read(odd)


@pytest.mark.parametrize(("folders", "split", "count"), [
    (("val",), "test", 12), (("test",), "test", 12), ((".",), "test", 12), ((".",), "train", 12),
    (("train", "test"), "train", 12), (("train",), "train", 12)])
def test_one_split_is_found_without_the_other(tmp_path, folders, split, count):
    paint_splits(tmp_path, folders, count=6)
    classes, files, _ = find_split(Data(source=f"folder:{tmp_path}"), split)
    assert (classes, len(files.labels)) == (("cat", "dog"), count)


def test_a_split_that_is_not_there_is_named(tmp_path):
    paint_splits(tmp_path, ("train",))
    with pytest.raises(BadInput, match="contains no folder 'test'"):
        find_split(Data(source=f"folder:{tmp_path}"), "test")


def test_the_validation_archive_alone_can_be_tested_on(photographs, tmp_path):
    shutil.copytree(photographs / "tars", tmp_path / "tars")
    (tmp_path / "tars" / "ILSVRC2012_img_train.tar").unlink()
    data = Photographs(source=f"tars:{tmp_path}/tars")
    _, files, _ = find_split(data, "test")
    assert len(files.labels) == 24
    with pytest.raises(BadInput, match=r"ILSVRC2012_img_train\.tar is missing"):
        find_images(data)


def test_a_prepared_set_of_one_split_can_be_tested_on(tmp_path):
    write_set(tmp_path, validation=numbered(7))
    classes, files, _ = find_split(Data(source="tfds:tiny", directory=tmp_path), "test")
    assert (len(classes), len(files.labels)) == (3, 7)


def test_a_network_is_measured_on_a_folder_that_is_itself_the_split(tmp_path, capsys):
    """Classes in another order and fewer than the network's, and images of another size."""
    network = random_network(classes=("owl", "cat", "dog"))
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(tmp_path / name / f"{i}.png")
    found = measure_networks([network], "test", "single", 4, f"folder:{tmp_path}")
    assert found.images == 10
    assert "matched its 2 classes by name to the 3 of random" in capsys.readouterr().err
    _, files, _ = find_split(Data(source=f"folder:{tmp_path}"), "test")
    pixels = np.stack([network.preprocessing.prepare(files.read(i), "") for i in range(10)])
    logits = network.model.apply(network.variables, (pixels - network.mean).astype(np.float32))
    best = np.array([1, 2])[np.asarray(logits)[:, 1:].argmax(1)] - 1
    assert found.top1_error == 100 * np.mean(best != files.labels)


def test_imagenets_classes_are_known_by_any_of_their_names():
    network = random_network("imagenet", 18, "B", tuple(imagenet_classes()), size=32)
    assert class_places(network, ("n01440764", "Great White shark", "stingray"), "x").tolist() == [0, 2, 6]
    with pytest.raises(BadInput, match="only one has crane"):  # a bird and a machine
        class_places(network, ("tench", "crane"), "x")


def test_unnamed_classes_are_matched_by_number_alone():
    network = random_network(classes=("a", "b", "c"))._replace(classes=())
    assert class_places(network, ("x", "y", "z"), "folder").tolist() == [0, 1, 2]
    with pytest.raises(BadInput, match="has 2 classes, but random has 3 without names"):
        class_places(network, ("x", "y"), "folder")


@pytest.fixture
def begun(tmp_path, small):
    """A run on a folder of images, stopped after two of four steps."""
    paint_splits(tmp_path / "images", count=20, size=(8, 8))
    run = small(data=Data(source=f"folder:{tmp_path}/images", pad=1), steps=4, precise_batch_norm_steps=0)
    result = train(replace(run, steps=2), tmp_path / "run")
    assert result["steps"] == 2
    return run


@pytest.mark.parametrize(("change", "message"), [
    (lambda root: [(root / split / "cat").rename(root / split / "ant") for split in ("train", "test")],
     r"classes: \['cat', 'dog'\] -> \['ant', 'dog'\]"),
    (lambda root: paint(root / "train" / "cat" / "new.png", size=(8, 8)), "training images: 40 -> 41"),
    (lambda root: (root / "test" / "dog" / "00.png").unlink(), "test images: 40 -> 39"),
    (lambda root: paint(root / "train" / "cat" / "00.png", (1, 2, 3), (8, 8)), "names, sizes or labels have changed")])
def test_other_images_are_refused_with_what_has_changed(begun, tmp_path, change, message):
    change(tmp_path / "images")
    before = (tmp_path / "run" / "experiment.json").read_text()
    with pytest.raises(BadInput, match=message):
        train(begun, tmp_path / "run")
    assert (tmp_path / "run" / "experiment.json").read_text() == before


def test_the_same_images_elsewhere_go_on_and_a_run_can_be_made_longer(begun, tmp_path, monkeypatch):
    whole = train(begun, tmp_path / "whole")
    (tmp_path / "images").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    moved = replace(begun, data=replace(begun.data, source="folder:moved/"), log_steps=1, checkpoint_steps=1)
    result = train(moved, tmp_path / "run")
    assert result["state_digest"] == whole["state_digest"]
    assert [line["step"] for line in read_metrics(tmp_path / "run", "train")] == [2, 3, 4]
    with pytest.raises(BadInput, match="steps: 4 -> 3"):
        train(replace(moved, steps=3), tmp_path / "run")


def test_a_picture_that_cannot_be_read_is_named_and_the_others_are_classified(begun, tmp_path, capsys):
    good = tmp_path / "images" / "test" / "cat" / "00.png"
    bad = tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:40])
    with pytest.raises(SystemExit) as stop:
        execute(["predict", str(tmp_path / "run"), str(bad), str(good), str(tmp_path / "none.png")])
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}: ")
    assert f"{bad}: damaged image" in err
    assert "none.png: cannot read this image (No such file or directory)" in err


def test_strips_are_told_apart_by_prediction_as_in_training(tmp_path, small, capsys):
    """Images of 16x48 whose classes differ in their outermost columns only."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 40), ("test", 10)):
        for number, name in enumerate(("left", "right")):
            (tmp_path / "strips" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 40, (16, 48, 3)).astype(np.uint8)
                pixels[:, :14], pixels[:, -14:] = (10, 230) if number else (230, 10)
                Image.fromarray(pixels).save(tmp_path / "strips" / split / name / f"{index:03d}.png")
    run = small(data=Data(source=f"folder:{tmp_path}/strips", pad=0, flip=False), steps=20)
    assert train(run, tmp_path / "run")["test_top1_error"] == 0
    execute(["export", str(tmp_path / "run"), "--to", "resjax", "--out", str(tmp_path / "out")])
    described = json.loads((tmp_path / "out" / "model.json").read_text())["preprocessing"]
    assert (described["size"], described["width"]) == (16, 48)
    capsys.readouterr()
    files = [str(tmp_path / "strips" / "test" / name / "000.png") for name in ("left", "right")]
    for network in ("run", "out"):
        execute(["predict", str(tmp_path / network), *files])
        left, right = capsys.readouterr().out.splitlines()
        assert left.startswith(f"{files[0]}: left ")
        assert right.startswith(f"{files[1]}: right ")


def test_a_small_evaluation_costs_what_it_holds():
    assert [len(batch.images) for batch in plan_batches([(64, 64)] * 8, 128 * 64 * 64, 1)] == [8]
    assert [len(batch.images) for batch in plan_batches([(64, 64)] * 8, 128 * 64 * 64, 5)] == [10]
    network = random_network()
    seen = []
    model = type("Counting", (), {"apply": lambda self, v, x: seen.append(len(x)) or np.zeros((len(x), 3))})()
    images = load_data(Data(source="digits")).test
    log_probabilities(network.classifier._replace(model=model, preprocessing=network.preprocessing.replace(
        mean=np.zeros((8, 8, 1)))), type(images)(images.pixels[:8], images.labels[:8]), 128)
    assert seen == [8]


def test_the_rule_of_resizing_can_be_chosen(tmp_path, capsys):
    from resjax import export

    network = random_network("imagenet", 18, "B", "ab", size=32)
    network.variables["params"]["fc"]["kernel"] *= 0.01  # so that no probability is 0 or 1
    out = export(network, "torchvision", tmp_path / "out")
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    answers = set()
    for flags in ([], ["--resize", "area"], ["--resize", "pillow-bilinear"], ["--resize", "pillow-bicubic"]):
        execute(["predict", str(out), str(tmp_path / "noise.png"), *flags])
        answers.add(capsys.readouterr().out)
    assert len(answers) == 3  # area is what the network was exported with


def test_names_that_are_no_text_are_read(tmp_path):
    if sys.platform != "linux":
        pytest.skip("other systems refuse such names")
    paint_splits(tmp_path)
    folder = tmp_path / "train" / "cat"
    os.rename(os.fsencode(folder / "00.png"), os.fsencode(folder) + b"/\xff.png")
    assert len(load_data(Data(source=f"folder:{tmp_path}")).train.labels) == 2
