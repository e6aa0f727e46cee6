"""Networks in the form that others load: whole folders, only where the other side computes the same."""

import json
import locale
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from networks import random_network, same_network
from PIL import Image

from resjax import BadInput, Data, export, load, train
from resjax.console.command_line import execute
from resjax.evaluation import measure_networks
from resjax.network import imagenet_classes
from resjax.training.classifiers import recorded
from resjax.weights import Card, Measured

CALL = """
import sys
import numpy as np
from jax import export
logits = export.deserialize(open(sys.argv[1], "rb").read())
for batch in (1, 3):
    np.save(sys.argv[2] + str(batch), logits.call(np.load(sys.argv[3])[:batch]))
assert not [name for name in sys.modules if name.startswith(("resjax", "flax"))]
"""


@pytest.mark.parametrize("mean_image", [False, True])
def test_stablehlo_computes_the_same_without_resjax_for_any_batch(mean_image, tmp_path):
    network = random_network(std=(50.0, 51.0, 52.0), mean_image=mean_image)
    out = export(network, "stablehlo", tmp_path / "out")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    subprocess.run([sys.executable, "-c", CALL, str(out / "model.stablehlo"), str(tmp_path / "logits"),
                    str(tmp_path / "pixels.npy")], check=True, timeout=300)
    wanted = network.model.apply(network.variables, (pixels - network.mean) / np.float32([50, 51, 52]))
    for batch in (1, 3):
        assert np.allclose(np.load(tmp_path / f"logits{batch}.npy"), wanted[:batch], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("values", "to", "message"), [
    (("imagenet", 50, "B"), "torchvision", "is ResNet B-50 v1 in ImageNet form, .* --to huggingface or keras or resjax "
                                           "or stablehlo"),
    (("imagenet", 18, "A"), "torchvision", "use --to resjax or stablehlo"),
    (("imagenet", 50, "C"), "huggingface", "use --to resjax or stablehlo"),
    (("imagenet", 18, "B"), "keras", "use --to torchvision or huggingface or resjax or stablehlo"),
    (("cifar", 14, "B"), "akamaster", "is ResNet B-14 in CIFAR form, .* use --to torchvision or resjax or stablehlo"),
    (("cifar", 14, "A"), "huggingface", "use --to akamaster or resjax or stablehlo"),
    (("cifar", 14, "plain"), "akamaster", "is plain-14 in CIFAR form"),
    (("cifar", 14, "A"), "caffe", "to is 'caffe'; it must be one of torchvision, huggingface, keras, akamaster"),
])
def test_what_the_other_side_would_compute_otherwise_is_refused(values, to, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        export(random_network(*values), to, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("values", [("cifar", 14, "plain"), ("cifar", 14, "C"), ("imagenet", 18, "A"),
                                    ("imagenet", 50, "B")])
def test_every_network_of_the_paper_goes_to_resjax(values, tmp_path):
    network = random_network(*values)
    back = load(export(network, "resjax", tmp_path / "out"))
    assert back.title == network.title
    assert same_network(back, network._replace(architecture=back.architecture, model=back.model))


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    with pytest.raises(BadInput, match="there already exists; choose a new folder"):
        export(random_network(), "akamaster", tmp_path / "there")
    monkeypatch.setattr(sys.modules["resjax.weights.export"], "model_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(random_network(), "akamaster", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_preprocessing_travels_with_the_weights(tmp_path):
    network = random_network(mean_image=True, std=(50.0, 51.0, 52.0))
    out = export(network, "akamaster", tmp_path / "out")
    assert (out / "mean.npy").is_file()
    assert same_network(load(out), network)
    assert "subtract the image in `mean.npy` and divide by (50.000, 51.000, 52.000)" in (out / "README.md").read_text()


@pytest.mark.parametrize(("to", "depth", "whose", "in_code"), [
    ("torchvision", 18, "torchvision and timm", r"v2\.Normalize\((\[.+?\]), \[1\.0, 1\.0, 1\.0\]\)"),
    ("huggingface", 18, "transformers", ""),
    ("keras", 50, "Keras's load_img", r"::-1\] - (\[.+?\])\) / \[1\.0, 1\.0, 1\.0\]")])
def test_who_knows_no_mean_image_subtracts_its_mean_colour(to, depth, whose, in_code, tmp_path, capsys):
    network = random_network("imagenet", depth, "B", mean_image=True, size=64)
    out = export(network, to, tmp_path / "out")
    card, colour = (out / "README.md").read_text("utf-8"), network.mean.astype(float).mean((0, 1))
    assert "subtract the image in `mean.npy`" in card
    assert f"Difference: {whose}: subtracts the mean colour instead of the mean image." in card
    assert f"{whose}: subtracts the mean colour instead of the mean image, so logits" in capsys.readouterr().err
    if in_code:
        order = -1 if to == "keras" else 1
        assert json.loads(re.search(in_code, card)[1]) == pytest.approx(colour[::order], rel=1e-6)
    if to == "torchvision":
        colours = json.loads((out / "config.json").read_text("utf-8"))["pretrained_cfg"]["mean"]
        assert colours == pytest.approx(colour / 255, rel=1e-6)
    if to == "huggingface":
        colours = json.loads((out / "preprocessor_config.json").read_text("utf-8"))["image_mean"]
        assert colours == pytest.approx(colour / 255, rel=1e-6)
    assert np.array_equal(load(out).mean, network.mean)


@pytest.mark.parametrize(("values", "shape", "to", "message"), [
    (("cifar", 8, "A"), (40, 32, 3), "akamaster", "for images of 40x32x3, .* square colour images; use --to resjax or"),
    (("imagenet", 50, "B"), (24, 48, 3), "keras", "of at least 32x32; use --to huggingface or"),
    (("imagenet", 18, "B"), (64, 64, 4), "huggingface", "for colour or grey images; use --to resjax or")])
def test_images_that_the_other_side_cannot_take_are_refused(values, shape, to, message, tmp_path):
    network = random_network(*values)
    images = network.preprocessing.replace(mean=np.zeros(shape, np.float32), shorter_side=None)
    with pytest.raises(BadInput, match=message):
        export(network._replace(preprocessing=images), to, tmp_path / "out")


def test_the_code_for_transformers_opens_grey_images_for_a_grey_network(tmp_path):
    colour = random_network("imagenet", 18, "B", size=64)
    variables = jax.tree.map(lambda leaf: leaf, colour.variables)
    variables["params"]["conv1"]["kernel"] = variables["params"]["conv1"]["kernel"][:, :, :1]
    images = colour.preprocessing.replace(mean=colour.preprocessing.mean[..., :1])
    for network, mode in (colour, "RGB"), (colour._replace(variables=variables, preprocessing=images), "L"):
        out = export(network, "huggingface", tmp_path / mode)
        assert f'Image.open("photo.jpg").convert("{mode}")' in (out / "README.md").read_text("utf-8")


def test_a_card_is_utf_8_in_any_locale(tmp_path):
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")  # ASCII
    try:
        out = export(random_network(depth=8)._replace(name="Größe"), "akamaster", tmp_path / "out")
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    assert (out / "README.md").read_bytes().startswith("# Größe\n".encode())


def test_the_card_states_what_was_measured(tmp_path):
    measured = Measured("tfds:cifar10, test", "single", 8.75, 0.4, 10_000)
    out = export(random_network(), "akamaster", tmp_path / "out", Card(errors=(measured,), recipe="    steps = 64000"))
    card = (out / "README.md").read_text()
    assert "| tfds:cifar10, test | single | 8.75 | 0.40 | 10,000 |" in card
    assert "ResNet A-14 in CIFAR form, 3 classes: 172,051 parameters" in card
    assert "ResNet(BasicBlock, [2] * 3, num_classes=3)" in card
    assert "steps = 64000" in card
    assert "No errors were" in (export(random_network(), "stablehlo", tmp_path / "b") / "README.md").read_text()


def train_grey(small, tmp_path):
    train(small(), tmp_path / "g", jax.devices()[:1])
    (tmp_path / "g" / "metrics.jsonl").unlink()
    return tmp_path / "g"


def test_a_run_is_exported_measured_and_used_from_the_command_line(small, halves, tmp_path, capsys, one_device):
    run, data = tmp_path / "run", f"folder:{halves}/low"
    result = train(small(steps=40, data=Data(source=data, pad=1, flip=False)), run)
    (run / "measured-ten-crop.json").write_text(json.dumps({
        "top1_error": 5.5, "top5_error": 1.5, "images": 360, "state_digests": [result["state_digest"]]}))
    (run / "measured-multi-scale.json").write_text(json.dumps({
        "top1_error": 6.5, "top5_error": 1.5, "images": 360, "state_digests": ["of another state"]}))
    out = tmp_path / "out"
    execute(["export", str(run), "--to", "akamaster", "--out", str(out)])
    assert capsys.readouterr().out == f"Wrote to {out}: README.md, card.json, mean.npy, model.json, model.safetensors\n"
    card = (out / "README.md").read_text()
    assert f"| {data}, test | single | {result['test_top1_error']:.2f} |" in card
    assert f"| {data}, test | ten-crop | 5.50 | 1.50 | 360 |" in card
    assert "multi-scale" not in card
    assert "optimizer.learning_rate = 0.05" in card
    assert "for an image of 8x8" in card
    execute(["evaluate", str(run)])
    of_run = capsys.readouterr().out
    execute(["evaluate", str(out), "--data", data])
    assert capsys.readouterr().out == of_run
    grey = load(train_grey(small, tmp_path))
    assert "| digits, test | single |" in (export(grey, "stablehlo", tmp_path / "grey", recorded(tmp_path / "g"))
                                            / "README.md").read_text()
    with pytest.raises(BadInput, match=r"akamaster supports only .* for square colour images; use --to resjax"):
        export(grey, "akamaster", tmp_path / "b")
    for network, message in (
            (random_network(classes="0123456789"), "images with 1 channels, but random needs 3"),
            (random_network(), "digits has 10 classes, but random has 3; only one has 0, 1, 2")):
        with pytest.raises(BadInput, match=message):
            execute(["evaluate", str(export(network, "akamaster", tmp_path / message[:3])), "--data", "digits"])


@pytest.fixture(scope="module")
def few(photographs, tmp_path_factory):
    """Copy photographs of one size, so that few programs are compiled."""
    root = tmp_path_factory.mktemp("few")
    for file in sorted((photographs / "folders").glob("*/*/*")):
        with Image.open(file) as image:
            if image.size == (200, 150):
                folder = root / file.parent.relative_to(photographs / "folders")
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, folder)
    return root


@pytest.mark.parametrize("views", ["single", "ten-crop"])
def test_weights_are_measured_as_runs_are(views, few, tmp_path, capsys, one_device):
    network = random_network("imagenet", 18, "B", ("n02000001", "n02000002"), std=(50.0, 55.0, 60.0), size=96)
    out = export(network, "torchvision", tmp_path / "out")
    data = f"folder:{few}"
    execute(["evaluate", str(out / "model.safetensors"), "--data", data, "--views", views, "--batch-size", "8"])
    found = capsys.readouterr().out
    wanted = measure_networks([network], "test", views, 8, data)
    assert found.startswith("random, test")
    assert found.endswith(f"loss {wanted.loss:.4f}, 8 images\n")
    assert wanted.loss > 0.1


def test_a_picture_is_named_in_words(photographs, tmp_path, capsys):
    network = random_network("imagenet", 18, "B", tuple(imagenet_classes()))
    picture = next((photographs / "folders" / "val" / "n02000001").iterdir())
    execute(["predict", str(export(network, "torchvision", tmp_path / "out")), str(picture)])
    out = capsys.readouterr().out
    assert out.startswith(f"{picture}: ")
    assert len(out.split(" %")) == 6
    assert re.search(r": .+ \(n\d{8}\) \d+\.\d %, ", out)


def test_a_folder_for_keras_is_read_back_and_its_card_tells_of_its_colours(tmp_path):
    network = random_network("imagenet", 50, "B", "ab", size=160)
    out = export(network, "keras", tmp_path / "out")
    assert same_network(load(out), load(out / "model.h5"))
    assert np.array_equal(load(out).mean, network.mean)
    blue, green, red = network.mean[0, 0, ::-1]
    card = (out / "README.md").read_text("utf-8")
    assert f"255 in BGR, subtract the colour ({blue:.3f}, {green:.3f}, {red:.3f})" in card
    assert "ResNet50(weights=None, input_shape=(160, 160, 3), classes=2" in card


def test_an_ensemble_looks_at_images_as_each_of_its_networks_does(few):
    small, large = (random_network("imagenet", 18, "B", ("n02000001", "n02000002"), size=size) for size in (96, 128))
    data = f"folder:{few}"
    alone = [measure_networks([network], "test", "single", 8, data) for network in (small, large)]
    both = measure_networks([small, large._replace(classes=())], "test", "single", 8, data)
    assert min(errors.loss for errors in alone) - 0.1 < both.loss < max(errors.loss for errors in alone) + 0.1
    with pytest.raises(BadInput, match="preprocesses images differently from random"):
        measure_networks([small, random_network()], "test", "single", 8, data)
    with pytest.raises(BadInput, match="2 classes, but random has 3"):
        measure_networks([small, random_network("imagenet", 18, "B", "abc", size=96)], "test", "single", 8, data)
