"""Files of weights are told by their content; one network in several files; networks without a last layer; and what is
no network of the paper is refused by what it is.
"""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from networks import in_parts, random_network, same_network
from safetensors.numpy import load_file, save_file

from resjax import BadInput, Optimizer, embed, export, features, load
from resjax.training import build_optimizer
from resjax.training.restoration import initialize_from
from resjax.training.step import initial_state
from resjax.weights.files import read_tensors


@pytest.fixture(scope="module")
def network():
    return random_network(shortcut="B")


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    return export(network, "torchvision", tmp_path_factory.mktemp("weights") / "out")


@pytest.mark.parametrize("name", ["weights", "weights.pth", "weights.h5", "weights.xyz", "weights.pth.tar"])
def test_a_file_is_told_by_its_content(name, exported, tmp_path):
    shutil.copy(exported / "model.safetensors", tmp_path / name)
    assert read_tensors(tmp_path / name).keys() == load_file(exported / "model.safetensors").keys()


def test_headers_of_every_length_are_safetensors(tmp_path):
    """The first byte of a header's length may be that of a pickle, 0x80, or of another kind of file."""
    for length in range(0, 3000, 8):
        save_file({"a": np.zeros(1, np.float32)}, tmp_path / "a", metadata={"m": "x" * length})
        assert list(read_tensors(tmp_path / "a")) == ["a"]


@pytest.mark.parametrize(("begin", "message"), [
    (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer; run `git lfs pull`"),
    (b"<!DOCTYPE html>", "a web page; download the file itself"), (b"\x1f\x8b\x08", "compressed with gzip; unpack it"),
    (bytes(257) + b"ustar\0" + bytes(99), "a tar archive; unpack it first"), (b"\x93NUMPY\x01\0", "a NumPy array"),
    (b"GGUF\x03", "a quantised network"), (b"hello", "not a safetensors, PyTorch or Keras HDF5 file"),
])
def test_what_people_have_in_place_of_weights(begin, message, tmp_path):
    (tmp_path / "model.bin2").write_bytes(begin)
    with pytest.raises(BadInput, match=rf"model\.bin2: {message}"):
        load(tmp_path / "model.bin2")


def test_files_larger_than_any_network_are_refused_unread(tmp_path):
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(BadInput, match="10,000,000,000 bytes are more than any network of the paper needs"):
        load(tmp_path / "a.safetensors")


def test_a_network_in_several_files(network, exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "parts")
    places = in_parts(folder)
    for target in (folder, folder / "model.safetensors.index.json"):
        assert same_network(load(target), network)
    index = folder / "model.safetensors.index.json"

    def written(**changes):
        index.write_text(json.dumps({"weight_map": {**places, **changes}}))
        return folder

    one, two = sorted(set(places.values()))
    for changes, message in (
            ({"extra": one}, f"extra is not in {one}"), ({"x": "../a.safetensors"}, "is not a safetensors file"),
            ({"conv1.weight": "gone.safetensors"}, "gone.safetensors, which contains a part"),
            ({next(iter(places)): two}, f"{one} contains {next(iter(places))}, which the index does not list"),
            ({"x": 3}, "3 is not a safetensors file"), ({"x": ["a"]}, r"\['a'\] is not a safetensors file")):
        with pytest.raises(BadInput, match=message):
            load(written(**changes))


def test_odd_names_of_tensors_are_refused(tmp_path):
    for name in ("\x1b[2J", "a" * 1000):
        save_file({name: np.zeros(1, np.float32)}, tmp_path / "a.safetensors")
        with pytest.raises(BadInput, match="is not the name of a tensor") as error:
            load(tmp_path / "a.safetensors")
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 300


def without_head(exported, file, head):
    save_file({name: tensor for name, tensor in load_file(exported / "model.safetensors").items()
               if not name.startswith(head)}, file)
    return file


@pytest.mark.parametrize(("family", "form", "head"), [
    ("cifar", "akamaster", "linear"), ("cifar", "torchvision", "fc"), ("imagenet", "huggingface", "classifier")])
def test_a_network_without_its_last_layer_gives_features(family, form, head, tmp_path):
    small = family == "cifar"
    whole = random_network(family, 8 if small else 18, "A" if form == "akamaster" else "B")
    file = without_head(export(whole, form, tmp_path / "out"), tmp_path / "a.safetensors", head)
    network = load(file, shortcut="A")
    assert network.model.classes == 0
    known = {name: part for name, part in whole.variables["params"].items() if name != "fc"}
    assert jax.tree.all(jax.tree.map(np.array_equal, network.variables["params"], known))
    if small:
        pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
        known = whole._replace(preprocessing=network.preprocessing)
        assert np.array_equal(embed(network, pixels), embed(known, pixels))
        assert np.array_equal(features(network, pixels)[1], features(known, pixels)[1])
        average = network.model.apply(network.variables, network.preprocessing.normalize(pixels))
        assert np.allclose(average, embed(network, pixels), rtol=1e-5, atol=1e-5)
    with pytest.raises(BadInput, match="has no last layer, so it cannot classify"):
        export(network, "torchvision", tmp_path / "again")


def test_transformers_network_without_its_last_layer_by_its_own_names(tmp_path):
    out = export(random_network("imagenet", 18, "B"), "huggingface", tmp_path / "out")
    tensors = load_file(out / "model.safetensors")
    save_file({name.removeprefix("resnet."): tensor for name, tensor in tensors.items() if "classifier" not in name},
              tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").model.classes == 0


def rename(tensors, old, new):
    return {name.replace(old, new): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(("change", "kind"), [
    (lambda t: {**t, "layer1.0.se.fc1.weight": np.zeros((1, 1, 1, 1))}, "squeeze-and-excitation"),
    (lambda t: {**t, "conv1.weight": np.zeros((64, 3, 3, 3)), "layer4.0.conv1.weight": np.zeros((8, 8, 3, 3))},
     "a ResNet with a 3x3 stem before four stages"),
    (lambda t: {**rename(t, "conv1.weight", "conv1.0.weight"), "conv1.3.weight": np.zeros((1, 1, 3, 3))},
     "a ResNet whose stem is three 3x3 convolutions"),
    (lambda t: {**t, "layer1.0.conv2.weight": np.zeros((16, 4, 3, 3))}, "grouped convolutions"),
    (lambda t: {**t, "layer1.0.conv2.weight": np.zeros((128, 128, 3, 3)), "layer1.0.conv3.weight": t["conv1.weight"]},
     "wider bottlenecks"),
    (lambda t: {**t, "layer1.0.conv2.weight": np.zeros((16, 16, 3, 3), np.int8)}, "a quantised network"),
    (lambda t: {**t, "fc.zero_point": np.zeros(1)}, "a quantised network"),
    (lambda t: {"conv2_block1_preact_bn/gamma": np.zeros(1)}, "a ResNet V2 of Keras"),
    (lambda t: {"features.0.weight": np.zeros((1, 1, 1, 1))}, "a VGG, AlexNet or the like"),
    (lambda t: {"features.denseblock1.denselayer1.conv1.weight": np.zeros((1, 1, 1, 1))}, "a DenseNet"),
    (lambda t: {"vit.cls_token": np.zeros(1)}, "a transformer"),
    (lambda t: {"backbone.body.conv1.weight": np.zeros((1, 1, 1, 1))}, "a detector"),
])
def test_other_networks_are_refused_by_what_they_are(change, kind, exported, tmp_path):
    changed = change(load_file(exported / "model.safetensors"))
    save_file({name: tensor.astype(np.int8 if tensor.dtype == np.int8 else np.float32)
               for name, tensor in changed.items()}, tmp_path / "a.safetensors")
    with pytest.raises(BadInput, match=rf"a\.safetensors: .*{kind}.*, which is not a network of the paper"):
        load(tmp_path / "a.safetensors")


def test_what_lies_beside_weights_is_checked(exported, tmp_path):
    def beside(**changes):
        folder = shutil.copytree(exported, tmp_path / "copy", dirs_exist_ok=True)
        description = json.loads((exported / "model.json").read_text())
        for name, value in changes.items():
            description[name] = value
        (folder / "model.json").write_text(json.dumps(description))
        return folder

    preprocessing = json.loads((exported / "model.json").read_text())["preprocessing"]
    for changes, message in (
            ({"classes": ["a"]}, "has 3 classes, but the description beside it names 1"),
            ({"architecture": {"depth": 20}}, "contains ResNet B-14 in CIFAR form, but the description beside it says"),
            ({"architecture": {"depht": 14}}, r"model\.json: Architecture: unknown or missing field: depht"),
            ({"architecture": 3}, r"model\.json: Architecture is 3; it must be an object with fields"),
            ({"classes": 3}, r"model\.json: classes is 3; it must be a list"),
            ({"preprocessing": preprocessing | {"mean": ["x"]}}, r"model\.json: .*mean is 'x'"),
            ({"preprocessing": preprocessing | {"mean": []}}, "give either mean or mean_image"),
            ({"preprocessing": preprocessing | {"mean": [], "mean_image": "gone.npy"}}, r"gone\.npy: not a readable"),
            ({"preprocessing": preprocessing | {"mean": [], "mean_image": "../mean.npy"}}, "a file in the same folder"),
            ({"preprocessing": preprocessing | {"std": [0, 1, 1]}}, "it must be above 0"),
            ({"preprocessing": preprocessing | {"mean": [float("nan"), 1, 1]}}, "it must be finite"),
            ({"preprocessing": preprocessing | {"value_range": float("inf")}}, "value-range is inf"),
            ({"preprocessing": preprocessing | {"mean": [1, 2]}}, r"the mean has shape \(32, 32, 2\)"),
            ({"preprocessing": preprocessing | {"size": 64, "shorter_side": 32}}, "the crop must fit into it")):
        with pytest.raises(BadInput, match=message):
            load(beside(**changes))
    shown = beside(preprocessing=preprocessing | {"mean": [], "mean_image": "mean.npy"})
    for content in (b"", b"x", np.array(["a"]), np.full((32, 32, 3), np.nan), np.zeros((3, 3))):
        if isinstance(content, bytes):
            (shown / "mean.npy").write_bytes(content)
        else:
            np.save(shown / "mean.npy", content)
        with pytest.raises(BadInput, match=r"mean\.npy: (not a readable|contains)|the mean has shape \(3, 3\)"):
            load(shown)
    (tmp_path / "copy" / "model.json").write_text("[" * 100_000)
    with pytest.raises(BadInput, match=r"model\.json: not a readable JSON file"):
        load(tmp_path / "copy")
    (tmp_path / "copy" / "model.json").write_text("{")
    with pytest.raises(BadInput, match=r"model\.json: not a readable JSON file"):
        load(tmp_path / "copy")


def test_what_lies_beside_weights_is_bounded(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "copy")
    description = json.loads((exported / "model.json").read_text())
    preprocessing = description["preprocessing"] | {"size": 20_000, "shorter_side": 20_000}
    (folder / "model.json").write_text(json.dumps(description | {"preprocessing": preprocessing}))
    with pytest.raises(BadInput, match=r"size is 20000; it must be in 1 \.\.\. 4096"):
        load(folder)
    (folder / "model.json").write_text(" " * 10_000_000)
    with pytest.raises(BadInput, match=r"model\.json: not a readable JSON file \(it is too large\)"):
        load(folder)
    preprocessing = description["preprocessing"] | {"mean": [], "mean_image": "mean.npy"}
    (folder / "model.json").write_text(json.dumps(description | {"preprocessing": preprocessing}))
    np.save(folder / "mean.npy", np.zeros((32, 32, 3)))
    content = (folder / "mean.npy").read_bytes()
    (folder / "mean.npy").write_bytes(content.replace(b"(32, 32, 3), }", b"(1<<9**9,), } "))
    with pytest.raises(BadInput, match=r"mean\.npy: not a readable mean image"):
        load(folder)
    (folder / "mean.npy").write_bytes(content.replace(b"(32, 32, 3), }   ", b"(3000000000,), } "))
    with pytest.raises(BadInput, match=r"mean\.npy: not a readable mean image \(it does not contain the numbers"):
        load(folder)


def test_fine_tuning_adds_the_layer_that_a_network_lacks(exported, tmp_path):
    network = load(without_head(exported, tmp_path / "a.safetensors", "fc"))
    model = network.architecture.model(10)
    first = initial_state(model, build_optimizer(Optimizer(), 1), network.mean, 0)
    told = []
    state = initialize_from(network, first, tuple("abcdefghij"), SimpleNamespace(tell=told.append))
    assert np.array_equal(state.params["fc"]["kernel"], first.params["fc"]["kernel"])
    assert np.array_equal(state.params["stage3"]["first"]["conv2"]["kernel"],
                          network.variables["params"]["stage3"]["first"]["conv2"]["kernel"])
    assert "the last layer is initialised at random" in told[0]
