"""Weights from files: what fits is loaded whole, and everything else is one clear error and nothing loaded."""

import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from networks import random_network, same_network
from safetensors.numpy import load_file, save_file

from resjax import BadInput, embed, export, features, load
from resjax.network import imagenet_classes
from resjax.weights.convert import reorder, unstack_stages
from resjax.weights.files import read_tensors
from resjax.weights.metadata import known_classes


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    return export(network, "akamaster", tmp_path_factory.mktemp("weights") / "out")


def changed(exported, folder, change):
    """Copy weights without what lies beside them, changed."""
    tensors = load_file(exported / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def rename(old, new):
    def change(tensors):
        tensors[new] = tensors.pop(old)

    return change


def put(name, value):
    return lambda tensors: tensors.__setitem__(name, np.float32(value))


def test_a_network_comes_back_as_it_was(network, exported):
    assert same_network(load(exported), network)
    assert same_network(load(exported / "model.safetensors"), network)
    assert load(exported).name == "random"


def test_what_tensors_cannot_tell_is_asked_for(exported, network, tmp_path):
    file = changed(exported, tmp_path, lambda tensors: None)
    with pytest.raises(BadInput, match="a plain network or uses option A; pass --shortcut plain or --shortcut A"):
        load(file)
    assert load(file, shortcut="plain").model.shortcut == "plain"
    assert load(file, shortcut="A").classes == ()
    wide = export(random_network("imagenet", 50, "B", "ab"), "huggingface", tmp_path / "wide")
    (wide / "model.json").unlink()
    for target in (wide, wide / "model.safetensors"):
        assert load(target).architecture.stride_in == "1x1"  # as config.json says
        assert load(target).classes == ("a", "b")
    with pytest.raises(BadInput, match=r"stride_in is 'v1\.5'; it must be one of \('1x1', '3x3'\)"):
        load(wide, stride_in="v1.5")
    bare = shutil.copy(wide / "model.safetensors", tmp_path / "bare.safetensors")
    with pytest.raises(BadInput, match="the tensors do not show which convolution has the stride; pass --stride"):
        load(bare)
    assert load(bare, stride_in="3x3").architecture.title() == "ResNet B-50 v1.5 in ImageNet form"


@pytest.mark.parametrize(("classes", "maker", "mean", "std"), [  # as the logs of their trainings say
    (10, "pytorch-cifar-models for CIFAR-10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    (100, "pytorch-cifar-models for CIFAR-100", (0.507, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761))])
def test_colours_that_nobody_told_are_chosen_by_the_classes_and_said(classes, maker, mean, std, tmp_path, capsys):
    network = random_network(shortcut="B", classes=tuple(map(str, range(classes))))
    exported = export(network, "torchvision", tmp_path / "out")
    found = load(shutil.copy(exported / "model.safetensors", tmp_path / "bare.safetensors"))
    assert found.mean[0, 0].tolist() == pytest.approx([255 * value for value in mean])
    assert found.preprocessing.std == pytest.approx([255 * value for value in std])
    assert f"bare.safetensors: no file states the preprocessing; using that of {maker}: RGB" in (
        capsys.readouterr().err)
    load(exported)
    assert capsys.readouterr().err == ""


def test_a_folder_that_lost_its_description_is_said_to_be_prepared_by_what_is_usual(tmp_path, capsys):
    folder = export(random_network("imagenet", 18, "B", "ab"), "huggingface", tmp_path / "out")
    (folder / "model.json").unlink()
    (folder / "preprocessor_config.json").unlink()
    load(folder)
    said = capsys.readouterr().err
    assert "using that of transformers' ConvNextImageProcessor: RGB from 0 to 1, mean (0.485, " in said
    assert "resized to a shorter side of 256 (torch-bicubic) and cropped to its centre of 224x224 (floor)" in said


def test_a_stem_that_does_not_fit_is_told_before_anybody_is_asked_about_images(exported, tmp_path):
    def widen(tensors):
        tensors["conv1.weight"] = np.ones((16, 3, 7, 7), np.float32)
        for name in [name for name in tensors if name.startswith("layer1.")]:
            tensors[name.replace("layer1.", "layer4.")] = tensors[name]

    with pytest.raises(BadInput) as told:
        load(changed(exported, tmp_path, widen), shortcut="A")
    assert "preprocessing" not in str(told.value)


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_prefixes_of_parallel_training_are_dropped(prefix, network, exported, tmp_path):
    def wrap(tensors):
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)

    loaded = load(changed(exported, tmp_path, wrap), shortcut="A")
    assert np.array_equal(loaded.variables["params"]["fc"]["kernel"], network.variables["params"]["fc"]["kernel"])


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop("layer2.1.bn2.running_mean"), r"layer2.1.bn2.running_mean is missing, which "
     r"corresponds to batch_stats/stage2/1/bn2/mean \(32,\) in resjax"),
    (put("linear.bias", np.zeros(4)), r"linear.bias has shape \(4,\), but params/fc/bias in resjax has \(3,\)"),
    (put("layer1.0.conv2.weight", np.zeros((16, 16, 1, 1))), r"layer1.0.conv2.weight has shape \(16, 16, 1, 1\), but "
     r"params/stage1/0/conv2/kernel in resjax has \(3, 3, 16, 16\)"),
    (put("layer1.0.conv2.weight", np.zeros(16)), r"layer1.0.conv2.weight has shape \(16,\)"),
    (put("conv1.weight", np.zeros(3)), r"the first kernel has shape \(3,\)"),
    (put("layer1.0.extra.weight", np.zeros(3)), r"the network has no parameter for layer1.0.extra.weight"),
    (put("module.conv1.weight", np.zeros(3)), "conv1.weight and module.conv1.weight are the same tensor"),
    (put("bn1.bias", np.full(16, np.nan)), "bn1.bias contains a value that is not finite"),
    (rename("linear.weight", "head.weight"), r"linear\.bias is the bias of a layer without a kernel"),
    (rename("conv1.weight", "stem.weight"), "unknown tensor names"),
    (put("linear.weight", np.zeros((3, 63))), r"linear.weight has shape \(3, 63\), but the last maps have 64 channels"),
    (put("linear.weight", np.zeros((0, 64))), r"the last \(0, 64\)"),
    (put("conv1.weight", np.zeros((1, 2000, 1, 1))), "2,000 channels; the limit is 1024"),
    (put("layer2.0.shortcut.0.weight", np.zeros((32, 16, 1, 1))), r"project in the blocks \[\(2, 0\)\] .*; option B "
     r"would project in \[\(2, 0\), \(3, 0\)\]"),
    (lambda t: [t.pop(name) for name in list(t) if name.startswith("layer3.1")], r"basic blocks \(2, 2, 1\) form "),
    (lambda t: [t.pop(name) for name in list(t) if name.startswith("layer3")], r"basic blocks \(2, 2\) form neither"),
    (lambda t: t.clear(), "contains no tensors"),
])
def test_what_does_not_fit_is_named_on_both_sides(change, message, exported, tmp_path):
    file = changed(exported, tmp_path, change)
    with pytest.raises(BadInput, match=message) as error:
        load(file, shortcut="A")
    assert str(file) in str(error.value)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("none.safetensors", None, "not found; a network is a run directory"),
    ("weights.npz", b"x", "not a safetensors, PyTorch or Keras HDF5 file"),
    ("weights.safetensors", b"", "the file is empty; download it again"),
    ("weights.safetensors", b"\xff" * 100, "not a safetensors, PyTorch or Keras HDF5 file"),
    ("weights.safetensors", b"\x99" + b"\0" * 7 + b"{" * 9, "incomplete or invalid safetensors file"),
    ("weights.h5", b"x" * 100, "not a safetensors, PyTorch or Keras HDF5 file"),
    ("weights.h5", b"\x89HDF\r\n\x1a\n" * 9, "incomplete or invalid Keras weights file"),
])
def test_files_that_are_none(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        load(tmp_path / name)


def test_other_floats_are_read_and_other_things_are_not(exported, network, tmp_path):
    for kind in (np.float16, ml_dtypes.bfloat16, np.float64):
        file = changed(exported, tmp_path, lambda tensors, kind=kind: tensors.update(
            {name: tensor.astype(kind) for name, tensor in tensors.items()}))
        found = load(file, shortcut="A").variables["params"]["fc"]["kernel"]
        assert np.allclose(found, network.variables["params"]["fc"]["kernel"], rtol=0.01, atol=1e-3)
    file = changed(exported, tmp_path, lambda tensors: tensors.update(
        {"bn1.bias": tensors["bn1.bias"].astype(ml_dtypes.float8_e4m3fn)}))
    with pytest.raises(BadInput, match=r"weights\.safetensors: "):
        load(file, shortcut="A")


def test_truncated_files(exported, tmp_path):
    wide = export(random_network("imagenet", 50, "B", "ab"), "keras", tmp_path / "wide")
    for file in (exported / "model.safetensors", wide / "model.h5"):
        content = file.read_bytes()
        for part in (0.1, 0.5, 0.99):
            cut = tmp_path / f"cut{file.suffix}"
            cut.write_bytes(content[:int(part * len(content))])
            with pytest.raises(BadInput, match=f"cut{file.suffix}: incomplete"):
                read_tensors(cut)


def test_a_name_twice_in_a_safetensors_file(exported, tmp_path):
    content = (exported / "model.safetensors").read_bytes()
    twice = content.replace(b'"layer3.1.bn2.bias"', b'"layer3.1.bn1.bias"', 1)
    assert twice != content
    (tmp_path / "weights.safetensors").write_bytes(twice)
    with pytest.raises(BadInput, match=r"weights\.safetensors: "):
        load(tmp_path / "weights.safetensors", shortcut="A")


def test_reordering_channels_is_undone(network):
    variables = jax.tree.map(np.copy, network.variables)
    apart = unstack_stages(variables)
    reorder(apart, network.model, back=False)
    assert not np.array_equal(variables["params"]["fc"]["kernel"], network.variables["params"]["fc"]["kernel"])
    assert not np.array_equal(variables["params"]["stage2"]["rest"]["conv1"]["kernel"],
                              network.variables["params"]["stage2"]["rest"]["conv1"]["kernel"])
    reorder(apart, network.model, back=True)
    assert same_network(network._replace(variables=variables), network)


def test_imagenets_classes():
    classes = imagenet_classes()
    assert len(classes) == 1000
    assert list(classes) == sorted(classes)
    assert [list(classes.values())[i] for i in (0, 134, 517, 999)] == [
        "tench, Tinca tinca", "crane", "crane", "toilet tissue, toilet paper, bathroom tissue"]
    assert known_classes((), 1000) == known_classes(tuple(classes.values()), 1000) == tuple(classes)
    others = tuple(map(str, range(1000)))
    assert known_classes(others, 1000) == others
    assert known_classes(("cat", "dog"), 1000) == ("cat", "dog")  # which is refused where the weights are loaded
    assert known_classes((), 10) == ()


def test_features_and_embeddings():
    network = random_network("imagenet", 18, "B", "ab")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 64, 3)).astype(np.uint8)
    stages = features(network, pixels)
    assert [stage.shape for stage in stages] == [(2, 24, 16, 64), (2, 12, 8, 128), (2, 6, 4, 256), (2, 3, 2, 512)]
    logits = network.model.apply(network.variables, pixels - network.mean[:1, :1])
    fc = network.variables["params"]["fc"]
    assert np.allclose(embed(network, pixels) @ fc["kernel"] + fc["bias"], logits, rtol=1e-4, atol=1e-4)
