"""Names of classes: what is evaluated stands for what was trained, however the names are spelled."""

import random
import unicodedata
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from resjax import BadInput, Data, Photographs, load, train
from resjax.data import find_images
from resjax.data.classes import place_of
from resjax.data.index import find_split
from resjax.evaluation import measure_networks
from resjax.evaluation.error_rates import class_places
from resjax.network import Network

LETTERS = "aAbBß\u017féÉ \xad_-0\uff11\ufb01İ\u0131Σς\u03c3к猫🐶'%[;"  # by case, form and width, some fold to one


def network(*classes):
    return Network("net", None, Data(), classes, SimpleNamespace(classes=len(classes)), None, None)


@pytest.mark.parametrize("seed", range(50))
def test_the_own_classes_of_a_network_are_found_in_their_order(seed):
    """Whatever names a set of classes has that folders can have: NFC, all apart."""
    draw = random.Random(seed)
    names = {unicodedata.normalize("NFC", "".join(draw.choices(LETTERS, k=draw.randint(1, 3)))).strip()
             for _ in range(40)} - {""}
    classes = tuple(draw.sample(sorted(names), k=min(12, len(names))))
    assert class_places(network(*classes), classes, "set").tolist() == list(range(len(classes)))
    shuffled = tuple(draw.sample(classes, k=len(classes)))
    assert [classes[place] for place in class_places(network(*classes), shuffled, "set")] == list(shuffled)
    decomposed = tuple(unicodedata.normalize("NFD", name) for name in classes)
    assert class_places(network(*classes), decomposed, "set").tolist() == list(range(len(classes)))


@pytest.mark.parametrize(("known", "asked", "places"), [
    (("A", "B", "a", "b"), ("A", "B", "a", "b"), [0, 1, 2, 3]), (("A", "B", "a", "b"), ("b", "A"), [3, 0]),
    (("t shirt", "t_shirt"), ("t_shirt", "t shirt"), [1, 0]), (("white shark", "crane"), ("White_Shark",), [0]),
    (("Größe", "x"), (unicodedata.normalize("NFD", "Größe"),), [0])])
def test_exact_names_come_first(known, asked, places):
    assert class_places(network(*known), asked, "set").tolist() == places


@pytest.mark.parametrize(("known", "asked", "odd"), [
    (("CAT", "Cat", "dog"), ("cat", "dog"), "cat"),  # which of the two?
    (("cat", "dog"), ("cat", "CAT"), "CAT")])        # both would be one
def test_a_folded_name_counts_only_where_it_stands_for_one_class(known, asked, odd):
    with pytest.raises(BadInput, match=f"only one has .*{odd}"):
        class_places(network(*known), asked, "set")
    assert place_of("dog", known) == known.index("dog")


def folders(root, split, names):
    for name in names:
        (root / split / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(root / split / name / f"{i}.png")


def shades(root, names):
    """Write noisy pictures, brighter from class to class, more of them than a few steps tell apart."""
    random = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 5)):
        for number, name in enumerate(sorted(names)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 60, (8, 8, 3)) + 25 * number
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.png")


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    """Train two steps on classes that differ by case, spaces and form; return the data, the network, its result."""
    root = tmp_path_factory.mktemp("letters")
    shades(root / "data", ["A", "B", "a", "b", "t shirt", "t_shirt", "Größe"])
    run = small(data=Data(source=f"folder:{root}/data", pad=1, flip=False), steps=2)
    result = train(run, root / "run", jax.devices()[:1])
    return root / "data", load(root / "run"), result


def check_measured(network, result, *sources):
    """Compare every digit of what `evaluate` finds, on the run's own data and on the same by their place."""
    for source in (None, *sources):
        found = measure_networks([network], "test", "single", 32, source)
        assert (found.top1_error, found.top5_error) == (result["test_top1_error"], result["test_top5_error"])


def test_evaluate_finds_what_the_result_says(finished):
    data, network, result = finished
    assert network.classes == ("A", "B", "Größe", "a", "b", "t shirt", "t_shirt")
    assert 0 < result["test_top1_error"] < 100
    check_measured(network, result, f"folder:{data}", f"folder:{data}/test")


@pytest.mark.parametrize("seed", range(50))
def test_evaluate_finds_what_the_result_says_whatever_the_classes_are_called(finished, tmp_path, seed):
    """The same run, whose classes are called otherwise in its folder and in its data, in the same order."""
    data, network, result = finished
    draw, names = random.Random(seed), set()
    while len(names) < 7:
        names |= {unicodedata.normalize("NFC", "".join(draw.choices(LETTERS, k=draw.randint(1, 3)))).strip()} - {""}
    classes = tuple(sorted(names))
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for old, new in zip(sorted(path.name for path in (data / split).iterdir()), classes, strict=True):
            written = draw.choice(("NFC", "NFD"))  # as on one system or another
            (tmp_path / split / unicodedata.normalize(written, new)).symlink_to(data / split / old)
    network = network._replace(classes=classes, data=Data(source=f"folder:{tmp_path}", pad=1, flip=False))
    check_measured(network, result, f"folder:{tmp_path}/test")


def test_folders_of_two_unicode_forms_are_one_class(tmp_path):
    names = ["Größe", "é", "猫"]
    folders(tmp_path, "train", names)
    folders(tmp_path, "test", [unicodedata.normalize("NFD", name) for name in names])
    found = find_images(Photographs(source=f"folder:{tmp_path}"))
    assert found.classes == tuple(sorted(names))
    assert np.bincount(found.test.labels).tolist() == [3, 3, 3]
    assert all(found.test.read(i) for i in range(9))
    folders(tmp_path, "train", [unicodedata.normalize("NFD", "é")])
    with pytest.raises(BadInput, match="two folders are named 'é', in different Unicode forms"):
        find_images(Photographs(source=f"folder:{tmp_path}"))


def test_a_flat_folder_of_test_images_is_passed_over_for_a_sorted_one(tmp_path):
    """ImageNet as people have it: its test images are not labelled."""
    for split in ("train", "val"):
        folders(tmp_path, split, ["n01440764", "n01443537"])
    (tmp_path / "test").mkdir()
    for i in range(5):
        Image.new("RGB", (4, 4)).save(tmp_path / "test" / f"{i}.JPEG")
    data = Photographs(source=f"folder:{tmp_path}")
    found = find_images(data)
    assert (len(found.train.labels), len(found.test.labels)) == (6, 6)
    assert found.test.name(0).startswith(f"{tmp_path}/val/")
    told = f"{tmp_path}/test: ignored, because it has no class folders; {tmp_path}/val contains the test images"
    assert found.remark == told
    classes, files, remark = find_split(data, "test")
    assert (classes, len(files.labels), remark) == (found.classes, 6, told)


def test_images_one_folder_too_deep_are_named(tmp_path):
    """Tiny-ImageNet as unpacked: train/CLASS/images."""
    for split in ("train", "test"):
        folders(tmp_path / split / "n01443537", "images", [""])
        folders(tmp_path / split / "n01629819", "images", [""])
    with pytest.raises(BadInput, match="train/n01443537: the class folder contains no images; it contains the folder"):
        find_images(Photographs(source=f"folder:{tmp_path}"))


def test_splits_that_are_called_otherwise_are_named(tmp_path):
    for split in ("Train", "Test"):
        folders(tmp_path / "capitals", split, ["bad", "good"])
    with pytest.raises(BadInput, match=r"Test: .* the folder 'bad'; name a split train, test or val"):
        find_images(Photographs(source=f"folder:{tmp_path}/capitals"))
    for split in ("train", "valid"):
        folders(tmp_path / "valid", split, ["bad", "good"])
    with pytest.raises(BadInput, match="needs a folder 'test' or 'val' beside 'train'; it contains train, valid"):
        find_images(Photographs(source=f"folder:{tmp_path}/valid"))


def test_folders_within_a_class_are_remarked(tmp_path):
    for split in ("train", "test"):
        folders(tmp_path, split, ["cat", "dog"])
        folders(tmp_path, f"{split}/dog", ["beagle"])
    found = find_images(Photographs(source=f"folder:{tmp_path}"))
    assert len(found.train.labels) == 6
    assert "/train: ignored 1 folders inside class folders, such as dog/beagle" in found.remark
    assert "without the extension of an image" not in found.remark
