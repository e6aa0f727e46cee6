"""Networks made and saved by PyTorch, transformers and Keras: loaded here they compute the same, and go back unchanged.

Weights and statistics are random and far from their first values.
"""

import os

import numpy as np
import pytest
from networks import disturbed, randomized, same_network

import resjax
from resjax.weights.files import read_tensors

SIZE = 64
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
PIXELS = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)


def relative(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def logits(network, pixels):
    import jax

    seen = (pixels - network.mean[:1, :1]) / np.float32(network.preprocessing.std or 1)
    return jax.jit(network.model.apply)(network.variables, seen)


def torch_logits(torch, model, pixels, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    x = (pixels / np.float32(255) - np.float32(mean)) / np.float32(std)
    with torch.no_grad():
        found = model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    return getattr(found, "logits", found).numpy()


def same_tensors(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) and a[name].dtype == b[name].dtype
                                        for name in a)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")


@pytest.mark.parametrize(("depth", "stride_in"), [(18, "3x3"), (50, "1x1")])  # all depths: torchvision's
def test_transformers(depth, stride_in, torch, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: see PyTorch")
    wide = depth >= 50
    theirs = randomized(torch, transformers.ResNetForImageClassification(transformers.ResNetConfig(
        num_labels=7, depths=BLOCKS[depth], layer_type="bottleneck" if wide else "basic",
        hidden_sizes=[256, 512, 1024, 2048] if wide else [64, 128, 256, 512],
        downsample_in_bottleneck=stride_in == "1x1")))
    theirs.save_pretrained(tmp_path / "theirs")
    network = resjax.load(tmp_path / "theirs")
    assert network.architecture.depth == depth
    assert network.architecture.stride_in == (stride_in if wide else "1x1")
    wanted = torch_logits(torch, theirs, PIXELS)
    assert relative(logits(network, PIXELS), wanted) < 1e-4

    out = resjax.export(network, "huggingface", tmp_path / "ours")
    assert same_tensors(*(read_tensors(folder / "model.safetensors") for folder in (out, tmp_path / "theirs")))
    again, notes = transformers.ResNetForImageClassification.from_pretrained(out, output_loading_info=True)
    assert not any(notes.values()), notes
    assert np.array_equal(torch_logits(torch, again.eval(), PIXELS), wanted)
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    seen = processor(np.zeros((300, 400, 3), np.uint8), return_tensors="np")["pixel_values"]
    assert seen.shape == (1, 3, 224, 224)
    assert np.allclose(seen[0, :, 0, 0], -np.array([0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], atol=1e-5)


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".th"])
@pytest.mark.parametrize(("depth", "stride_in"), [(18, None), (34, None), (50, "3x3"), (50, "1x1"), (101, "3x3"),
                                                  (152, "3x3")])
def test_torchvision(depth, stride_in, ending, torch, tmp_path):
    if ending != ".safetensors" and depth != 18:
        pytest.skip("the other depths are read from one kind of file only")
    from safetensors.torch import load_file, save_file
    from torch_resnets import ResNet

    theirs = randomized(torch, ResNet(BLOCKS[depth], 64, 1000, bottleneck=depth >= 50, stride_in=stride_in))
    file, state = tmp_path / f"weights{ending}", theirs.state_dict()
    if ending == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3} if ending == ".th" else state, file,
                   _use_new_zipfile_serialization=ending == ".pth")
    network = resjax.load(file, stride_in=stride_in)
    assert network.architecture.depth == depth
    assert network.classes[1] == "n01443537"
    assert relative(logits(network, PIXELS), torch_logits(torch, theirs, PIXELS)) < 1e-4
    if stride_in == "1x1":
        with pytest.raises(resjax.BadInput, match=r"ResNet B-50 v1 in ImageNet form, .* but --to torchvision"):
            resjax.export(network, "torchvision", tmp_path / "ours")
        return
    out = resjax.export(network, "torchvision", tmp_path / "ours")
    back = load_file(out / "model.safetensors")
    theirs.load_state_dict(back)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert same_network(resjax.load(out), network)


@pytest.mark.parametrize(("depth", "option"), [(20, "A"), (20, "plain"), (20, "B")])
def test_cifar_nets_of_pytorch(depth, option, torch, tmp_path):
    """pytorch_resnet_cifar10 has option A's zero channels on both sides; pytorch-cifar-models has option B."""
    from safetensors.torch import load_file
    from torch_resnets import ResNet

    family, parts = ("torchvision", {}) if option == "B" else ("akamaster", {"head": "linear", "shortcut": "shortcut"})
    theirs = randomized(torch, ResNet(((depth - 2) // 6,) * 3, 16, 10, option, stem=3, **parts))
    state = theirs.state_dict()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "best_prec1": 91.2},
               tmp_path / "resnet.th")
    network = resjax.load(tmp_path / "resnet.th", shortcut=None if option == "B" else option)
    assert (network.architecture.family, network.architecture.depth, network.architecture.shortcut) == (
        "cifar", depth, option)
    pixels = PIXELS[:, :32, :32]
    colours = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)) if option == "B" else ()
    assert relative(logits(network, pixels), torch_logits(torch, theirs, pixels, *colours)) < 1e-4
    if option == "plain":
        with pytest.raises(resjax.BadInput, match=r"plain-20 in CIFAR form, .* use --to resjax or stablehlo"):
            resjax.export(network, "akamaster", tmp_path / "ours")
        family, theirs = "resjax", ResNet(((depth - 2) // 6,) * 3, 16, 10, option, stem=3)  # by torchvision's names
    out = resjax.export(network, family, tmp_path / "ours")
    back = load_file(out / "model.safetensors")
    theirs.load_state_dict(back)
    assert option == "plain" or all(torch.equal(back[name], state[name]) for name in state)
    assert relative(logits(network, pixels), torch_logits(torch, theirs.eval(), pixels, *colours)) < 1e-4
    assert same_network(resjax.load(out), network)


@pytest.mark.parametrize("depth", [50])
@pytest.mark.filterwarnings("default")  # Keras's own
def test_keras(depth, monkeypatch, tmp_path):
    if "KERAS_BACKEND" not in os.environ:
        monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install -e '.[test]'")
    make = getattr(keras.applications, f"ResNet{depth}")

    def build():
        return make(weights=None, classes=7, input_shape=(SIZE, SIZE, 3), classifier_activation=None)

    theirs, random = build(), np.random.default_rng(0)
    for layer in theirs.layers:
        layer.set_weights([disturbed(weight.path, np.asarray(weight), random) for weight in layer.weights])
        if len(layer.weights) == 4:  # small variances, by which Keras's epsilon of 1.001e-5 differs from 1e-5
            gamma, *others, variance = layer.get_weights()
            layer.set_weights([0.05 * gamma, *others, 10 ** random.uniform(-4, 0, variance.shape)])
    theirs.save(tmp_path / "theirs.h5")
    network = resjax.load(tmp_path / "theirs.h5")
    assert (network.architecture.depth, network.architecture.stride_in) == (depth, "1x1")
    wanted = np.asarray(theirs(keras.applications.resnet.preprocess_input(PIXELS.astype(np.float32)), training=False))
    assert relative(logits(network, PIXELS), wanted) < 1e-4

    out = resjax.export(network, "keras", tmp_path / "ours")
    again = build()
    again.load_weights(out / "model.h5")
    found = np.asarray(again(keras.applications.resnet.preprocess_input(PIXELS.astype(np.float32)), training=False))
    assert relative(found, wanted) < 1e-4
    one, two = (read_tensors(file) for file in (tmp_path / "theirs.h5", out / "model.h5"))
    assert one.keys() == two.keys()
    for name in one:  # a convolution's bias is now in the mean that its batch norm subtracts
        if name.endswith("moving_variance"):  # has had the difference of the epsilons added, and subtracted again
            np.testing.assert_array_max_ulp(one[name], two[name], maxulp=1)
            assert (one[name] != two[name]).mean() < 0.01
        elif not name.endswith(("_conv/bias", "moving_mean")):
            assert np.array_equal(one[name], two[name])
    for name in (name for name in one if name.endswith("moving_mean")):
        bias = name.replace("_bn/moving_mean", "_conv/bias")
        assert np.array_equal(two[name], one[name] - one[bias])
        assert not two[bias].any()
    back = resjax.load(out / "model.h5")
    assert same_network(back, network)
    assert same_tensors(two, read_tensors(resjax.export(back, "keras", tmp_path / "again") / "model.h5"))
