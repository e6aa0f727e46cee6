"""Errors by class, confusions, the most confident mistakes, saliency: each against an independent computation."""

import csv
import re
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image
from sklearn.metrics import confusion_matrix

import resjax
from resjax import BadInput, Data, Network, evaluate
from resjax.console.command_line import execute
from resjax.data import Images, Preprocessing
from resjax.evaluation.drawings import draw_saliency
from resjax.network import Classifier, label_of
from resjax.paper.figures import save_figure
from resjax.paper.mean_curves import Curve, draw_curves

COUNT, CLASSES = 211, 5


class Table(nn.Module):
    """A network whose logits are the pixels, which are grey."""

    classes: int = CLASSES

    @nn.compact
    def __call__(self, x):
        return x.reshape(len(x), -1)


def network(names=("a", "b", "c", "d", "e")):
    return Network("table", None, Data(), names, Table(), {"params": {}}, Preprocessing(jnp.zeros((1, CLASSES, 1))))


@pytest.fixture
def images():
    """Images of all classes but the last, most of them right."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, CLASSES - 1, COUNT).astype(np.int32)
    pixels = rng.integers(0, 9, (COUNT, 1, CLASSES, 1)).astype(np.uint8)
    pixels[np.arange(COUNT), 0, labels, 0] += rng.integers(0, 9, COUNT).astype(np.uint8)
    return Images(pixels, labels)


def test_confusion_and_errors_by_class(images):
    found = evaluate(network(), images, 50)
    guessed = np.argsort(-images.pixels.reshape(COUNT, CLASSES).astype(int), axis=1, kind="stable")[:, 0]
    np.testing.assert_array_equal(found.confusion, confusion_matrix(images.labels, guessed, labels=range(CLASSES)))
    assert found.top1_error == pytest.approx(100 * (guessed != images.labels).mean())
    assert found.rates == found[:4]
    for label, row in enumerate(found.class_errors):
        of_class = guessed[images.labels == label].tolist()
        wrong = Counter(guess for guess in of_class if guess != label)
        assert (row.name, row.images, row.wrong) == ("abcde"[label], len(of_class), sum(wrong.values()))
        assert row.error == (pytest.approx(100 * sum(wrong.values()) / len(of_class)) if of_class else None)
        assert row.times == max(wrong.values(), default=0)
        assert row.taken_for in {"abcde"[guess] for guess, times in wrong.items() if times == row.times} | {
            "" if not wrong else None}
    assert found.class_errors[-1] == ("e", 0, 0, None, "", 0)


def test_the_most_confident_mistakes_come_first(images):
    found = evaluate(network(), images).mistakes()
    powers = np.exp(images.pixels.reshape(COUNT, CLASSES).astype(np.float64))
    parts = powers / powers.sum(1, keepdims=True)
    wrong = [i for i in range(COUNT) if parts[i].argmax() != images.labels[i]]
    assert sorted(mistake.image for mistake in found) == wrong
    assert all(mistake.true == images.labels[mistake.image] for mistake in found)
    assert all(mistake.guessed == parts[mistake.image].argmax() for mistake in found)
    np.testing.assert_allclose([mistake.probability for mistake in found], sorted(parts[wrong].max(1))[::-1], rtol=1e-5)
    assert evaluate(network(), images).mistakes(3) == found[:3]


def test_what_is_not_a_number_is_wrong_and_taken_for_nothing(images):
    logits = np.log(np.full((3, CLASSES), 1 / CLASSES))
    logits[1] = np.nan
    found = resjax.evaluation.outcomes.evaluation(logits, [0, 0, 1], "abcde", lambda _: None)
    assert found.confusion.sum() == 2
    assert found.class_errors[0] == ("a", 2, 1, 50, "", 0)
    assert [mistake.image for mistake in found.mistakes()] == [2]


def test_tables_and_pictures_are_written(images, tmp_path):
    found = evaluate(network(("a", "b, with a comma", "c", "d", "e")), images)
    files = found.save(tmp_path / "new")
    assert [file.name for file in files] == ["confusion.csv", "classes.csv", "mistakes.csv", "confusion.png",
                                             "mistakes.png"]
    head, *rows = csv.reader(files[0].read_text().splitlines())
    assert head == ["true", *found.classes]
    assert [row[0] for row in rows] == [*found.classes]
    np.testing.assert_array_equal([[int(cell) for cell in row[1:]] for row in rows], found.confusion)
    assert sum(int(row["wrong"]) for row in csv.DictReader(files[1].read_text().splitlines())) == len(found.mistakes())
    assert len(files[2].read_text().splitlines()) == 1 + len(found.mistakes())
    for file in files[3:]:
        with Image.open(file) as picture:
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100
    right = Images(images.pixels, images.pixels.reshape(COUNT, CLASSES).argmax(1).astype(np.int32))
    assert [file.name for file in evaluate(network(), right).save(tmp_path / "new")][-1] == "confusion.png"
    assert not (tmp_path / "new" / "mistakes.png").exists()


def test_a_confusion_matrix_of_many_classes_is_drawn(tmp_path):
    many = 150
    rng = np.random.default_rng(0)
    found = resjax.evaluation.outcomes.evaluation(np.log(rng.dirichlet(np.ones(many), 300)), rng.integers(0, many, 300),
                                                  [f"class {i}" for i in range(many)], lambda _: np.zeros((4, 4, 1)))
    assert len(found.save(tmp_path)) == 5


class TwoLayers(nn.Module):
    """tanh between two fully connected layers."""

    @nn.compact
    def __call__(self, x):
        hidden = jnp.tanh(nn.Dense(4)(x.reshape(len(x), -1)))
        return nn.Dense(3)(hidden)


def test_saliency_is_the_gradient_worked_out_by_hand():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(12, 4)) / 50, rng.normal(size=(4, 3))
    variables = {"params": {"Dense_0": {"kernel": jnp.float32(first), "bias": jnp.full(4, 0.1)},
                            "Dense_1": {"kernel": jnp.float32(second), "bias": jnp.zeros(3)}}}
    mean, std = rng.uniform(0, 255, (2, 2, 3)), (2.0, 4.0, 8.0)
    net = Classifier(TwoLayers(), variables, Preprocessing(jnp.float32(mean), std))
    pixels = rng.integers(0, 256, (5, 2, 2, 3), np.uint8)
    hidden = np.tanh(((pixels - mean) / std).reshape(5, -1) @ first + 0.1)
    likeliest = (hidden @ second).argmax(1)
    for labels in (None, np.array([0, 1, 2, 1, 0])):
        chosen = second[:, likeliest if labels is None else labels].T
        expected = np.abs((((1 - hidden**2) * chosen) @ first.T).reshape(5, 2, 2, 3) / std).max(-1)
        np.testing.assert_allclose(resjax.saliency(net, pixels, labels), expected, rtol=2e-4)


def test_saliency_of_a_trained_network_is_how_its_logit_moves():
    net = resjax.load("resnet20")
    pixels = np.random.default_rng(0).integers(60, 190, (1, 32, 32, 3)).astype(np.float32)
    found = np.asarray(resjax.saliency(net, pixels, [3]))[0]
    place = np.unravel_index(found.argmax(), found.shape)

    def logit(moved):
        return float(net.model.apply(net.variables, net.preprocessing.normalize(moved))[0, 3])

    moves = []
    for channel in range(3):
        step = np.zeros_like(pixels)
        step[(0, *place, channel)] = 0.25
        moves.append(abs(logit(pixels + step) - logit(pixels - step)) / 0.5)
    assert max(moves) == pytest.approx(found.max(), rel=0.05)


def test_wrong_labels_and_classes_are_named():
    net = resjax.load("resnet20")
    with pytest.raises(BadInput, match=r"labels are \[10\]; they must be class numbers below 10, one per image"):
        resjax.saliency(net, np.zeros((1, 32, 32, 3)), [10])
    with pytest.raises(BadInput, match=r"pixels are \[32, 32, 3\]"):
        resjax.saliency(net, np.zeros((32, 32, 3)))
    assert label_of(net, "Cat") == 3
    with pytest.raises(BadInput, match=r"'shp' is not a class of resnet20.* did you mean 'ship'"):
        label_of(net, "shp")
    assert label_of(network(()), "4") == 4
    with pytest.raises(BadInput, match="a number below 5"):
        label_of(network(()), "5")


@pytest.fixture
def folder(tmp_path):
    """Pictures that no network can tell apart, of three classes of CIFAR-10."""
    for name in ("cat", "ship", "truck"):
        place = tmp_path / "test" / name
        place.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (32, 32), (80, 60 + 20 * number, 200)).save(place / f"{name}{number}.png")
    return tmp_path


def test_the_commands(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "of another.txt").touch()
    execute(["evaluate", "resnet20", "--data", f"folder:{folder}", "--by-class"])
    said = capsys.readouterr().out
    wrong = {row["class"]: int(row["wrong"]) for row in csv.DictReader(
        (folder / "evaluation/classes.csv").read_text().splitlines())}
    assert set(wrong) == {"cat", "ship", "truck"}
    assert sum(wrong.values()) == 6  # every picture is there under each name
    for name, count in wrong.items():
        assert re.search(rf"^{name} +3 +{count} +{100 * count / 3:.2f} +(\w+ \(\d\)|-)$", said, re.MULTILINE)
    assert "Wrote to evaluation: classes.csv, confusion.csv, confusion.png, mistakes.csv, mistakes.png" in said
    execute(["saliency", "resnet20", "test/cat", "--of", "cat"])
    said = capsys.readouterr().out
    assert re.search(r"^test/cat/cat0.png: cat [\d.]+ %, saliency/cat0.png$", said, re.MULTILINE)
    assert len(list((folder / "saliency").glob("*.png"))) == 3
    with pytest.raises(SystemExit):
        execute(["saliency", "resnet20", "test/cat", "--of", "cow"])
    assert "'cow' is not a class of resnet20" in capsys.readouterr().err


def test_dollar_signs_in_names_are_no_formulas(tmp_path):
    names = ("$_$", "a$^$b", r"$\x$")
    found = resjax.evaluation.outcomes.evaluation(np.log(np.eye(3) + 1e-9), np.array([1, 2, 0]), names,
                                                  lambda _: np.zeros((4, 4, 1)))
    assert len(found.save(tmp_path)) == 5
    draw_saliency(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4)), "$_$.png: cat", tmp_path / "saliency.png")
    curve = Curve("$_$", "test error, %", np.array([1, 2]), np.array([[2.0, 1.0]]))
    save_figure(draw_curves([[curve]]), tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().count("<!-- $_$ (n=1) -->") == 1
