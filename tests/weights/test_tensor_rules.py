"""Tensors under the names that scripts give them: prefixes, wrappers, heads of other names, and what lies beside."""

import re

import numpy as np
import pytest
from networks import random_network
from safetensors.numpy import save_file

from resjax import BadInput, load
from resjax.weights.convert import to_tensors
from resjax.weights.tensor_names import FAMILIES

CLASSES = 3
HEAD = ("fc.weight", "fc.bias")


@pytest.fixture(scope="module")
def network():
    return random_network(depth=8, shortcut="B")


@pytest.fixture(scope="module")
def tensors(network):
    return to_tensors(network.variables, FAMILIES["torchvision"], network.model)


def loads_as(network, tensors, folder, head=True):
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, folder / "a.safetensors")
    found, wanted = load(folder / "a.safetensors").variables["params"], network.variables["params"]
    assert np.array_equal(found["stage3"]["first"]["conv2"]["kernel"], wanted["stage3"]["first"]["conv2"]["kernel"])
    assert ("fc" in found) == head
    if head:
        assert np.array_equal(found["fc"]["kernel"], wanted["fc"]["kernel"])
    return found


@pytest.mark.parametrize("prefix", ["", "module.", "net.", "backbone.", "encoder.", "resnet.", "base_model.", "body.",
                                    "_fsdp_wrapped_module.", "student.net.module.", "timm_model."])
def test_any_prefix_that_the_network_shares(prefix, network, tensors, tmp_path):
    loads_as(network, {prefix + name: tensor for name, tensor in tensors.items()}, tmp_path)


@pytest.mark.parametrize("inner", ["layer1._orig_mod.0", "layer1.0._checkpoint_wrapped_module",
                                   "_fsdp_wrapped_module.layer1._fsdp_wrapped_module.0"])
def test_wrappers_within_names(inner, network, tensors, tmp_path):
    loads_as(network, {re.sub(r"^layer1\.0", inner, name): tensor for name, tensor in tensors.items()}, tmp_path)


@pytest.mark.parametrize("name", ["fc.1", "head", "classifier.fc", "model.head.linear", "last_linear"])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_one_fully_connected_layer_is_the_last_whatever_it_is_called(name, prefix, network, tensors, tmp_path):
    changed = {name if name in HEAD else prefix + name: tensor for name, tensor in tensors.items()}
    for leaf in ("weight", "bias"):
        changed[f"{name}.{leaf}"] = changed.pop(f"fc.{leaf}")
    found = loads_as(network, changed, tmp_path)
    assert np.array_equal(found["fc"]["bias"], network.variables["params"]["fc"]["bias"])


def test_a_last_layer_without_bias_has_one_of_zeros(network, tensors, tmp_path):
    found = loads_as(network, {name: tensor for name, tensor in tensors.items() if name != "fc.bias"}, tmp_path)
    assert not found["fc"]["bias"].any()


def mlp(tensors):
    return tensors | {"fc.0.weight": np.ones((8, 64)), "fc.0.bias": np.ones(8), "fc.2.weight": np.ones((3, 8)),
                      "fc.2.bias": np.ones(3)}


def normed(tensors):
    ones = np.ones(64)
    return tensors | {"fc.0.weight": ones, "fc.0.bias": ones, "fc.0.running_mean": ones, "fc.0.running_var": ones,
                      "fc.1.weight": np.ones((3, 64)), "fc.1.bias": np.ones(3)}


@pytest.mark.parametrize("change", [mlp, normed])
def test_a_deeper_head_is_dropped_and_said(change, network, tensors, tmp_path, capsys):
    body = {name: tensor for name, tensor in tensors.items() if name not in HEAD}
    loads_as(network, change(body), tmp_path, head=False)
    assert re.search(r"skipped tensors that are not part of the network: fc\.0, fc\.[12]; a head of several layers",
                     capsys.readouterr().err)


@pytest.mark.parametrize("beside", ["criterion.weight", "class_weights", "loss_fn.pos_weight", "criterion.centers"])
def test_what_belongs_to_no_layer_is_left_out_and_said(beside, network, tensors, tmp_path, capsys):
    shape = (3, 64) if beside.endswith("centers") else (3,)
    loads_as(network, tensors | {beside: np.ones(shape)}, tmp_path)
    assert "skipped tensors that are not part of the network: " in capsys.readouterr().err


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t | {"decoder.0.weight": np.ones((8, 64, 3, 3))}, r"contains other convolutions \(decoder\.0\)"),
    (lambda t: {f"{side}.{name}": tensor for name, tensor in t.items() for side in ("student", "teacher")},
     r"contains 2 networks, with the prefixes student\., teacher\.; save only one"),
    (lambda t: t | {"layer1.0.se.weight": np.ones(3)}, "squeeze-and-excitation"),
    (lambda t: t | {"layer1.0.act.weight": np.ones(3)}, r"the network has no parameter for layer1\.0\.act\.weight"),
    (lambda t: t | {"transition1.0.0.weight": np.ones((3, 3, 3, 3))}, "an HRNet, which is not a network of the paper"),
    (lambda t: {"features.denseblock1.denselayer1.norm1.weight": np.ones(3)}, "a DenseNet"),
    (lambda t: {"conv1_conv/kernel": np.ones((7, 7, 3, 64)), "pool2_conv/kernel": np.ones((1, 1, 8, 8))}, "a DenseNet"),
    (lambda t: t | {"conv1.weight": np.ones((16, 1, 3, 3))},
     r'the number of image channels is 1, .*a\.json: \{"preprocessing": \{"mean": \[1 numbers\]')])
def test_what_is_another_network_is_named(change, message, tensors, tmp_path):
    changed = {name: np.asarray(tensor, np.float32) for name, tensor in change(tensors).items()}
    save_file(changed, tmp_path / "a.safetensors")
    with pytest.raises(BadInput, match=message):
        load(tmp_path / "a.safetensors")


def test_a_grey_network_loads_with_the_remedy_that_the_message_names(tensors, tmp_path):
    save_file(tensors | {"conv1.weight": np.ones((16, 1, 3, 3), np.float32)}, tmp_path / "a.safetensors")
    (tmp_path / "a.json").write_text('{"preprocessing": {"mean": [0.5], "std": [0.25], "value_range": 1, "size": 32}}')
    network = load(tmp_path / "a.safetensors")
    assert network.preprocessing.image_shape == (32, 32, 1)
    assert network.mean[0, 0].tolist() == [127.5]
