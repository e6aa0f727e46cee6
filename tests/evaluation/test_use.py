"""A trained network in one call: probabilities, names, folders of files, JSON and CSV."""

import csv
import json
import os
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

import resjax
from resjax import BadInput, Data, Network, train
from resjax.console.command_line import execute
from resjax.data import Batch, Images, Preprocessing
from resjax.evaluation import measure_networks
from resjax.network import TOGETHER, named_classes
from resjax.system import terminal
from resjax.training.step import state_of, train_step


class Table(nn.Module):
    """A network whose logits are the pixels of the first row."""

    classes: int = 3

    @nn.compact
    def __call__(self, x):
        return x[:, 0, :, 0]


def table(mean=0.0, classes=("low", "high", "other")):
    return Network("table", None, Data(), classes, Table(), {"params": {}}, Preprocessing(jnp.full((1, 3, 1), mean)))


def test_probabilities_are_the_softmax_of_any_number_of_images():
    pixels = np.random.default_rng(0).integers(0, 9, (TOGETHER + 3, 1, 3, 1), np.uint8)
    powers = np.exp(pixels[:, 0, :, 0].astype(np.float64))
    expected = powers / powers.sum(1, keepdims=True)
    for count in (0, 1, TOGETHER, TOGETHER + 3):
        np.testing.assert_allclose(table()(pixels[:count]), expected[:count], rtol=1e-5)
    assert table().predict(pixels) == [("low", "high", "other")[i] for i in expected.argmax(1)]
    assert table().predict(pixels[:0]) == []
    np.testing.assert_allclose(jax.jit(table().__call__)(pixels[:5]), expected[:5], rtol=1e-5)


class Half(nn.Module):
    """A network whose logits are too coarse for a logarithm of probabilities."""

    @nn.compact
    def __call__(self, x, *, train=False):
        return x[:, 0, :, 0].astype(jnp.bfloat16)


def test_logits_of_half_the_precision_give_float32_probabilities():
    network = table()._replace(model=Half())
    pixels, labels = np.array([[[[3], [1], [0]]], [[[1], [1], [3]]]], np.uint8), np.array([0, 1])
    assert network(pixels).dtype == jnp.float32
    np.testing.assert_allclose(network(pixels), table()(pixels), rtol=1e-6)
    loss = resjax.evaluate(table(), Images(pixels, labels)).loss
    assert resjax.evaluate(network, Images(pixels, labels)).loss == pytest.approx(loss, rel=1e-6)
    optimizer = optax.with_extra_args_support(optax.sgd(0.1))
    state = state_of({"params": {}}, optimizer, np.zeros((1, 3, 1)), jax.random.key(0))
    _, metrics = train_step(Half(), optimizer, state, Batch(jnp.float32(pixels), labels))
    assert metrics.loss.dtype == jnp.float32
    assert metrics.loss / 2 == pytest.approx(loss, rel=1e-6)


def test_a_pair_of_arrays_is_evaluated_and_other_things_are_named():
    pixels, labels = np.array([[[[3], [1], [0]]], [[[1], [1], [3]]]], np.uint8), np.array([0, 1])
    assert resjax.evaluate(table(), (pixels, labels)).top1_error == 50
    for images, message in ((resjax.dataset((pixels, labels)), "images is of type Dataset; .* such as data.test"),
                            (pixels, "images is of type ndarray; .* or a pair"), ((pixels, [0]), "images: labels are")):
        with pytest.raises(BadInput, match=message):
            resjax.evaluate(table(), images)


def test_wrong_pixels_are_named():
    with pytest.raises(BadInput, match=r"pixels are \[1, 3, 1\]; they must be \[batch, height, width, 1\]; for one"):
        table()(np.zeros((1, 3, 1)))
    with pytest.raises(BadInput, match=r"pixels are \[2, 1, 3, 3\]"):
        table()(np.zeros((2, 1, 3, 3)))
    for function in (resjax.features, resjax.embed):
        with pytest.raises(BadInput, match=r"pixels are \[1, 3, 1\]"):
            function(table(), np.zeros((1, 3, 1)))
    assert table().predict([]) == []
    assert np.isnan(table(np.nan)(np.zeros((1, 1, 3, 1)))).all()
    with pytest.raises(BadInput, match="table computes logits that are NaN"):
        table(np.nan).predict(np.zeros((1, 1, 3, 1)))


def test_what_a_network_knows_is_said():
    assert resjax.load("resnet20").knows == (
        "10 classes: airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck")
    assert table(classes=()).knows == "3 classes"
    assert named_classes([f"c{i}" for i in range(1000)], 1000) == "1,000 classes: c0, c1, c2, c3, c4, ..., c999"
    assert "3 classes: low, high, other" in repr(table())


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for name, colour in (("b.png", (90, 120, 200)), ("in/a.jpg", (20, 120, 20)), ("in/deeper/c.JPG", (0, 0, 0))):
        Image.new("RGB", (60, 40), colour).save(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("none")
    (tmp_path / "in" / "._a.jpg").write_text("of a Mac")
    return tmp_path


def test_folders_are_looked_at_and_results_written(pictures, capsys, monkeypatch):
    monkeypatch.chdir(pictures)
    execute(["predict", "resnet20", "b.png", "in", "--top", "2", "--json", "out.json", "--csv", "out.csv"])
    said = capsys.readouterr()
    assert "resnet20, step 64000 recognises 10 classes: airplane, automobile" in said.err
    found = json.loads((pictures / "out.json").read_text())
    assert [one["file"] for one in found] == ["b.png", "in/a.jpg", "in/deeper/c.JPG"]
    network = resjax.load("resnet20")
    assert [one["found"][0]["class"] for one in found] == network.predict(["b.png", pictures / "in"])
    for one, line in zip(found, said.out.splitlines(), strict=True):
        seen = np.asarray(network(network.preprocessing.prepare((pictures / one["file"]).read_bytes(), "")[None]))[0]
        best = np.argsort(-seen)[:2]
        assert [each["class"] for each in one["found"]] == [network.classes[i] for i in best]
        np.testing.assert_allclose([each["probability"] for each in one["found"]], seen[best], rtol=1e-6)
        assert line == f"{one['file']}: " + ", ".join(f"{network.classes[i]} {100 * seen[i]:.1f} %" for i in best)
    rows = list(csv.DictReader((pictures / "out.csv").read_text().splitlines()))
    assert [(row["file"], row["class"], float(row["probability"])) for row in rows] == [
        (one["file"], each["class"], each["probability"]) for one in found for each in one["found"]]
    execute(["predict", "resnet20", "b.png", "--json", "-"])
    (alone,) = json.loads(capsys.readouterr().out)
    assert len(alone["found"]) == 5


def test_lines_fit_a_narrow_terminal(pictures, capsys, monkeypatch):
    monkeypatch.chdir(pictures)
    monkeypatch.setattr("resjax.console.pictures.room", lambda stream: 60)
    execute(["predict", "resnet20", "b.png"])
    said = capsys.readouterr()
    assert max(map(len, said.out.splitlines())) <= 60
    assert re.fullmatch(r"b\.png: (\w+ [\d.]+ %(, ?|$))+", " ".join(said.out.split()))
    assert max(len(line) for line in said.err.splitlines() if "loading" not in line and "looking" not in line) <= 60
    assert terminal.wrapped("a b", float("inf")) == "a b"


def test_wrong_folders_and_numbers_are_refused(pictures, monkeypatch):
    monkeypatch.chdir(pictures)
    (pictures / "empty").mkdir()
    for words, message in ((["empty"], "contains no images"), (["b.png", "--top", "0"], "it must be at least 1"),
                           ([], "give at least one image file")):
        with pytest.raises(BadInput, match=message):
            execute(["predict", "resnet20", *words])
    (pictures / "file").write_text("mine")
    for words, message in (("--json b.png", "b.png is one of the images"), ("--csv no/out.csv", "does not exist"),
                           ("--json - --csv -", "two results would be written to -"), ("--csv in", "this is a folder")):
        with pytest.raises(BadInput, match=message):
            execute(["predict", "resnet20", "b.png", *words.split()])
    for command, network in (("saliency", "resnet20"), ("detect", "bccd")):
        for out, message in ((".", "b.png is one of the images"), ("file", "--out file is not a folder")):
            with pytest.raises(BadInput, match=message):
                execute([command, network, "b.png", "--out", out])
    with pytest.raises(BadInput, match="--out file is not a folder"):
        execute(["evaluate", "resnet20", "--by-class", "--out", "file"])
    assert Image.open("b.png").getpixel((0, 0)) == (90, 120, 200)
    (pictures / "in" / "broken.png").write_text("none")
    with pytest.raises(SystemExit):
        execute(["predict", "resnet20", "in", "--json", "out.json"])
    assert len(json.loads((pictures / "out.json").read_text())) == 2
    os.mkfifo(pictures / "pipe.png")
    with pytest.raises(BadInput, match=r"pipe\.png"):
        resjax.load("resnet20").predict("pipe.png")


@pytest.mark.parametrize(("command", "network"), [
    ("predict", "resnet20"), ("saliency", "resnet20"), ("detect", "bccd")])
def test_a_link_to_itself_cannot_be_read(command, network, tmp_path, monkeypatch, capsys):
    """Before Python 3.13, `Path.resolve` raises RuntimeError for such a link."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(SystemExit):
        execute([command, network, "loop.png"])
    assert "resjax: loop.png: cannot " in capsys.readouterr().err


@pytest.mark.parametrize(("network", "shape", "labels", "message"), [
    (table(), (0, 1, 3, 1), [], "images contains no image"),
    (table(), (2, 1, 3, 3), [0, 1], r"pixels are \[2, 1, 3, 3\]"),
    (table(), (2, 1, 3, 1), [0, 3], r"labels are in 0 ... 3; they must be in 0 ... 2, because table has 3 classes"),
    (table(), (2, 1, 3, 1), [-1, 1], r"labels are in -1 ... 1"),
    (table()._replace(model=Table(0), classes=()), (2, 1, 3, 1), [0, 1], "table has no last layer")])
def test_images_that_a_network_cannot_be_measured_on_are_refused(network, shape, labels, message):
    with pytest.raises(BadInput, match=message):
        resjax.evaluate(network, Images(np.zeros(shape, np.uint8), np.array(labels, int)))


def test_a_model_alone_and_its_batches_are_checked_too():
    classifier, images = table().classifier, Images(np.zeros((2, 1, 3, 1), np.uint8), np.array([0, 3]))
    with pytest.raises(BadInput, match=r"labels are in 0 ... 3; they must be in 0 ... 2, because Table has 3 classes"):
        resjax.evaluate(classifier, images)
    with pytest.raises(BadInput, match="batch_size is 0; it must be at least 1"):
        resjax.evaluate(table(), images, batch_size=0)


def test_networks_without_features_are_named():
    for function in (resjax.features, resjax.embed):
        with pytest.raises(BadInput, match="table is a Table; only a ResNet or a VGG has features"):
            function(table(), np.zeros((1, 1, 3, 1)))


def test_files_may_come_from_a_generator(tmp_path):
    for name in ("a", "b"):
        Image.new("L", (3, 1)).save(tmp_path / f"{name}.png")
    assert table().predict(tmp_path.glob("*.png")) == ["low", "low"]


def test_files_for_a_network_of_four_channels_are_refused(tmp_path):
    Image.new("RGBA", (3, 3)).save(tmp_path / "a.png")
    four = table()._replace(preprocessing=Preprocessing(jnp.zeros((3, 3, 4))))
    with pytest.raises(BadInput, match="image files have 1 or 3 channels, but the network needs 4; pass arrays"):
        four.predict(tmp_path / "a.png")


def test_a_folder_is_the_runs_own_however_its_path_is_written(tmp_path, monkeypatch):
    for label in ("a", "b"):
        (tmp_path / "flat" / label).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (3, 1), (number, 0, 0)).save(tmp_path / "flat" / label / f"{number}.png")
    (tmp_path / "link").symlink_to(tmp_path / "flat")
    monkeypatch.chdir(tmp_path)
    network = table(classes=("a", "b", "other"))._replace(data=Data(source="folder:flat"),
                                                          preprocessing=Preprocessing(jnp.zeros((1, 3, 3))))
    for source in ("folder:flat", "folder:flat/", "folder:./flat", f"folder:{tmp_path}/flat", "folder:link"):
        counted = [measure_networks([network], split, "single", 8, source).images for split in ("train", "test")]
        assert counted == [16, 4], source


def test_training_images_are_not_evaluated_as_test_images_if_files_were_added(small, tmp_path, capsys):
    """Which images are held out depends on the list of files, so a new one would move others into the test split."""
    for label in ("a", "b"):
        (tmp_path / "flat" / label).mkdir(parents=True)
        for number in range(10):
            Image.new("L", (8, 8), 20 * number).save(tmp_path / "flat" / label / f"{number}.png")
    run = small(data=Data(source=f"folder:{tmp_path}/flat", pad=1, flip=False), steps=1, precise_batch_norm_steps=0)
    train(run, tmp_path / "run", jax.devices()[:1])
    execute(["evaluate", str(tmp_path / "run")])
    assert "4 images" in capsys.readouterr().out
    shutil.copytree(tmp_path / "flat", tmp_path / "other")
    Image.new("L", (8, 8)).save(tmp_path / "flat" / "a" / "00.png")
    for how in ([], ["--split", "train", "--data", f"folder:{tmp_path}/run/../flat"]):
        with pytest.raises(BadInput, match=r"images have changed since this run began: training images: 16 -> 17"):
            execute(["evaluate", str(tmp_path / "run"), *how])
    execute(["evaluate", str(tmp_path / "run"), "--data", f"folder:{tmp_path}/other"])
    assert "20 images" in capsys.readouterr().out


def test_networks_of_different_sizes_are_no_ensemble():
    other = table()._replace(preprocessing=Preprocessing(jnp.zeros((2, 3, 1))), name="other")
    with pytest.raises(BadInput, match=r"other takes images \(2, 3, 1\), but table takes \(1, 3, 1\); evaluate them"):
        measure_networks([table(), other], "test", "single", 8)
