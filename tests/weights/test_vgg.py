"""VGG: counts, logits equal to PyTorch's and Keras's, weights in and out; narrow nets, as the full ones are 550 MB."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import randomized, same_network
from safetensors.numpy import load_file, save_file
from test_independent import relative, torch_logits

import resjax
from resjax import VGG, Architecture, BadInput, Experiment
from resjax.evaluation import views_of
from resjax.evaluation.probabilities import average_views
from resjax.models import formulas
from resjax.models.counts import count_macs, count_parameters, list_layers
from resjax.models.families import VGG_STAGES
from resjax.weights.export import check_form
from resjax.weights.files import read_tensors
from resjax.weights.vgg import layers

FILTERS, HIDDEN, IMAGE = (4, 6, 8, 8, 8), 24, (224, 224, 3)
PIXELS = np.random.default_rng(1).integers(0, 256, (2, *IMAGE)).astype(np.uint8)


@pytest.mark.parametrize(("depth", "parameters", "macs", "convolutions"), [
    (16, 138_357_544, 15_470_264_320, 13), (19, 143_667_240, 19_632_062_464, 16)])
def test_counts(depth, parameters, macs, convolutions):
    """The paper counts 15.3 and 19.6 billion; PyTorch's own counters say 15.47 and 19.63."""
    model = Architecture(family="vgg", depth=depth).model(1000)
    assert count_parameters(model, IMAGE) == parameters
    assert formulas.count(Architecture(family="vgg", depth=depth), IMAGE, 1000) == (parameters, macs)
    found = list_layers(model, IMAGE)
    assert sum(layer.macs for layer in found) == macs == count_macs(model, IMAGE)
    assert [layer.name for layer in found][-4:] == [f"convolutions/conv5_{convolutions // 4}", "hidden/fc6",
                                                    "hidden/fc7", "fc"]
    assert len(found) == depth
    assert found[0].kernel == (3, 3, 3, 64)
    assert found[0].output == (224, 224, 64)


def test_names_are_those_of_the_others():
    features = [layer.kernel.split(".")[1] for layer in layers("torchvision", 16, True)][:13]
    assert features == [str(number) for number in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]
    assert next(layers("keras", 19, True)).bias == "block1_conv1/bias"


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")


def torch_vgg(torch, depth=16, classes=7):
    from torch_vgg import VGG as TorchVGG

    torch.manual_seed(0)
    return randomized(torch, TorchVGG(depth, FILTERS, HIDDEN, classes))


def logits(network, pixels):
    return jax.jit(network.model.apply)(network.variables, network.preprocessing.normalize(pixels))


@pytest.mark.parametrize("depth", [16, 19])
def test_logits_are_those_of_pytorch(depth, torch, tmp_path):
    theirs = torch_vgg(torch, depth, 1000)
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "vgg.pth")
    network = resjax.load(tmp_path / "vgg.pth")
    assert network.architecture.title() == f"VGG-{depth} in ImageNet form"
    assert network.classes[1] == "n01443537"
    assert network.preprocessing.shorter_side == 256
    wanted = torch_logits(torch, theirs, PIXELS)
    assert relative(logits(network, PIXELS), wanted) < 1e-4
    seen = np.asarray(average_views(
        network.model, None, network.variables, network.preprocessing, jnp.asarray(PIXELS)[:, None]))
    assert np.array_equal(seen.argmax(1), wanted.argmax(1))

    out = resjax.export(network, "torchvision", tmp_path / "ours")
    back = load_file(out / "model.safetensors")
    theirs.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in back.items()})
    assert np.array_equal(torch_logits(torch, theirs, PIXELS), wanted)
    assert same_network(resjax.load(out), network)
    assert f"torchvision.models.vgg{depth}(num_classes=1000)" in (out / "README.md").read_text()


def test_larger_images_are_seen_fully_convolutionally(torch, tmp_path):
    theirs = torch_vgg(torch)
    torch.save(theirs.state_dict(), tmp_path / "vgg.pth")
    network = resjax.load(tmp_path / "vgg.pth")
    pixels = np.random.default_rng(2).integers(0, 256, (1, 256, 320, 3)).astype(np.uint8)
    theirs.forward = theirs.convolutional
    assert relative(logits(network, pixels), torch_logits(torch, theirs, pixels)) < 1e-4
    assert [view.side for view in views_of("multi-scale", network.preprocessing)] == [224, 256, 384, 480, 640]
    with pytest.raises(BadInput, match=r"images of 192x320 are too small for VGG-16; .* at least 224x224"):
        logits(network, pixels[:, :192])
    assert [maps.shape[1:] for maps in resjax.features(network, PIXELS[:1])] == [
        (224 // 2**stage, 224 // 2**stage, width) for stage, width in enumerate(FILTERS)]
    assert resjax.embed(network, PIXELS[:1]).shape == (1, HIDDEN)


def test_only_images_of_224_go_to_others_who_pool_larger_ones_in_another_way(tmp_path):
    save_file(narrow(), tmp_path / "vgg.safetensors")
    network = resjax.load(tmp_path / "vgg.safetensors")
    large = network._replace(preprocessing=network.preprocessing.replace(mean=np.zeros((256, 256, 3), np.float32)))
    for to in ("torchvision", "keras", "onnx"):
        check_form(network, to)
        with pytest.raises(BadInput, match=r"of 256x256x3, .* VGG for images of 224x224.*; use --to resjax or stable"):
            check_form(large, to)


@pytest.mark.parametrize("depth", [16, 19])
@pytest.mark.filterwarnings("default")  # Keras's own
def test_logits_are_those_of_keras(depth, monkeypatch, tmp_path):
    if "KERAS_BACKEND" not in os.environ:
        monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install -e '.[test]'")

    def build():
        """Build Keras's VGG of another width: its layers, by its names, in its order."""
        x = image = keras.Input(IMAGE)
        for stage, (count, width) in enumerate(zip(VGG_STAGES[depth], FILTERS, strict=True), 1):
            for layer in range(1, count + 1):
                name = f"block{stage}_conv{layer}"
                x = keras.layers.Conv2D(width, 3, activation="relu", padding="same", name=name)(x)
            x = keras.layers.MaxPooling2D(2, strides=2, name=f"block{stage}_pool")(x)
        x = keras.layers.Flatten(name="flatten")(x)
        for name in ("fc1", "fc2"):
            x = keras.layers.Dense(HIDDEN, activation="relu", name=name)(x)
        return keras.Model(image, keras.layers.Dense(7, name="predictions")(x))

    theirs, random = build(), np.random.default_rng(0)
    for layer in theirs.layers:
        layer.set_weights([0.2 * random.normal(size=weight.shape) for weight in layer.get_weights()])
    file = tmp_path / ("theirs.h5" if depth == 16 else "theirs.keras")
    theirs.save(file)
    network = resjax.load(file)
    assert network.architecture == Architecture(family="vgg", depth=depth, shortcut="plain")
    seen = keras.applications.vgg16.preprocess_input(PIXELS.astype(np.float32))
    wanted = np.asarray(theirs(seen))
    assert relative(logits(network, PIXELS), wanted) < 1e-4

    out = resjax.export(network, "keras", tmp_path / "ours")
    again = build()
    again.load_weights(out / "model.h5")
    assert np.array_equal(np.asarray(again(seen)), wanted)
    assert same_network(resjax.load(out), network)
    theirs, ours = read_tensors(file), read_tensors(out / "model.h5")
    assert theirs.keys() == ours.keys()
    assert all(np.array_equal(theirs[name], ours[name]) for name in theirs)
    assert f"keras.applications.VGG{depth}(weights=None" in (out / "README.md").read_text()


def narrow(family="torchvision", depth=16):
    """The tensors of a narrow VGG, all the same number."""
    shapes = jax.eval_shape(VGG(depth, 7, FILTERS, HIDDEN).init, jax.random.key(0), jnp.zeros((1, *IMAGE)))["params"]
    tensors = {}
    for layer in layers(family, depth, True):
        place = shapes
        for part in layer.path:
            place = place[part]
        shape = place["kernel"].shape
        axes = (3, 2, 0, 1) if len(shape) == 4 else (1, 0)
        tensors[layer.kernel] = np.full([shape[axis] for axis in axes], 0.01, np.float32)
        tensors[layer.bias] = np.zeros(place["bias"].shape, np.float32)
    return tensors


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop("features.5.bias"), r"features.5.bias is missing, which corresponds to convolutions/conv2_1"),
    (lambda t: t.update({"features.2.weight": np.zeros((4, 5, 3, 3), np.float32)}),
     r"features.2.weight has shape \(4, 5, 3, 3\), but convolutions/conv1_2/kernel in resjax has \(3, 3, 4, 4\)"),
    (lambda t: t.update({"features.0.weight": np.zeros(4, np.float32)}), r"features.0.weight has shape \(4,\)"),
    (lambda t: t.update({"classifier.6.bias": np.full(7, np.nan, np.float32)}), "classifier.6.bias contains a value"),
    (lambda t: t.update({"features.2.extra": np.zeros(3, np.float32)}), "VGG-16 has no parameter for features.2.extra"),
    (lambda t: t.update({"features.1.running_mean": np.zeros(3, np.float32)}), "a VGG with batch norm"),
    (lambda t: t.pop("features.28.weight"), "a VGG, AlexNet or the like"),
    (lambda t: t.pop("classifier.0.weight"), r"classifier.0.weight is missing, .* hidden/fc6"),
])
def test_what_does_not_fit_is_refused(change, message, tmp_path):
    tensors = narrow()
    change(tensors)
    save_file(tensors, tmp_path / "vgg.safetensors")
    with pytest.raises(BadInput, match=message):
        resjax.load(tmp_path / "vgg.safetensors")


def test_without_its_last_layer_it_embeds(tmp_path):
    tensors = {name: tensor for name, tensor in narrow().items() if not name.startswith("classifier.6")}
    save_file(tensors, tmp_path / "vgg.safetensors")
    network = resjax.load(tmp_path / "vgg.safetensors")
    assert network.model.classes == 0
    assert resjax.embed(network, PIXELS[:1]).shape == (1, HIDDEN)


def test_vgg_is_a_reference_and_not_trained():
    with pytest.raises(BadInput, match="depth is 20; for VGG it must be 16 or 19"):
        Architecture(family="vgg", depth=20)
    with pytest.raises(BadInput, match=r"architecture\.family is 'vgg', which resjax can evaluate and export"):
        Experiment(name="x", architecture=Architecture(family="vgg", depth=16))
