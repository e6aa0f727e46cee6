"""ONNX: the whole function from pixels to logits, as ONNX Runtime computes it, and what the folders of others say."""

import json

import jax
import numpy as np
import pytest
from networks import random_network

from resjax import BadInput, export
from resjax.models import VGG
from resjax.weights.onnx_graph import to_onnx

runtime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install -e '.[peers]'")
pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[test]'")


def agrees(network, height=None):
    shape = network.preprocessing.image_shape
    session = runtime.InferenceSession(to_onnx(network))
    pixels = np.random.default_rng(1).integers(0, 256, (3, *shape)).astype(np.uint8)
    wanted = np.asarray(jax.jit(network.model.apply)(network.variables, network.preprocessing.normalize(pixels)))
    for batch in (1, 3):
        found = session.run(None, {"pixels": pixels[:batch]})[0]
        assert np.abs(found - wanted[:batch]).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("values", [
    {"depth": 8}, {"depth": 14, "shortcut": "plain", "std": (50.0, 51.0, 52.0)},
    {"depth": 8, "shortcut": "C", "mean_image": True},
    {"family": "imagenet", "depth": 18, "shortcut": "B", "size": 64},
    {"family": "imagenet", "depth": 50, "shortcut": "B", "size": 64},
    {"family": "imagenet", "depth": 50, "shortcut": "B", "size": 64, "stride_in": "3x3"}], ids=str)
def test_networks_of_the_paper_compute_the_same_for_any_batch(values):
    agrees(random_network(**values))


@pytest.mark.parametrize("units", [24, 0])
def test_vgg(units):
    model = VGG(16, 7, (4, 6, 8, 8, 8), units)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: np.float32(random.normal(0, 0.2, leaf.shape)), shapes)
    network = random_network("imagenet", 18, "B")
    agrees(network._replace(model=model, variables=variables))


def test_the_folder_says_how_it_is_used_and_without_the_package_what_is_missing(tmp_path, monkeypatch):
    out = export(random_network(), "onnx", tmp_path / "out")
    assert sorted(file.name for file in out.iterdir()) == ["README.md", "card.json", "model.onnx"]
    assert "onnxruntime.InferenceSession" in (out / "README.md").read_text()
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(BadInput, match=r"--to onnx needs the package onnx: pip install 'resjax\[onnx\]'"):
        export(random_network(), "onnx", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_timm_finds_its_config_beside_torchvisions_weights(tmp_path, capsys):
    network = random_network("imagenet", 18, "B", "ab", size=96, std=(60.0, 61.0, 62.0))
    out = export(network, "torchvision", tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("resnet18", 2)
    assert config["pretrained_cfg"]["input_size"] == [3, 96, 96]
    assert config["pretrained_cfg"]["std"] == pytest.approx([60 / 255, 61 / 255, 62 / 255])
    assert "timm: resizes images with bilinear instead of area" in capsys.readouterr().err
    assert "Difference: torchvision and timm: resizes images with" in (out / "README.md").read_text()
    assert 'timm.create_model("local-dir:.", pretrained=True)' in (out / "README.md").read_text()
