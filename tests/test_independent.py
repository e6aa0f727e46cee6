"""Logits are those of two independent implementations with the same weights: Hugging Face transformers, and Keras."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax import imagenet_resnet

IMAGE = (2, 96, 128, 3)


def random_variables(model):
    """Draw parameters, and batch-norm parameters and statistics far from their first values."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(IMAGE))
    leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
    random = np.random.default_rng(0)

    def draw(path, leaf):
        match path[-1].key:
            case "kernel":  # a gain a little below He's keeps 152 layers in range
                return random.normal(0, np.sqrt(1.5 / np.prod(leaf.shape[-4:-1] or leaf.shape[:1])), leaf.shape)
            case "var":
                return random.uniform(0.5, 2, leaf.shape)
            case "scale":
                return random.uniform(0.5, 1.2, leaf.shape)
            case _:
                return random.normal(0, 0.2, leaf.shape)

    return jax.tree.unflatten(structure, [draw(path, leaf).astype(np.float32) for path, leaf in leaves])


def blocks(tree, stage):
    """List the blocks of a stage, the stacked ones apart."""
    first, rest = tree[f"stage{stage}"]["first"], tree[f"stage{stage}"].get("rest")
    count = len(jax.tree.leaves(rest)[0]) if rest else 0
    return [first, *(jax.tree.map(lambda x, i=i: x[i], rest) for i in range(count))]


def pairs(variables):
    """Yield for each convolution its place, its kernel and its batch norm: (scale, bias, mean, var)."""
    def pair(place, params, stats, conv, norm):
        values = params[norm]["scale"], params[norm]["bias"], stats[norm]["mean"], stats[norm]["var"]
        return place, params[conv]["kernel"], values

    params, stats = variables["params"], variables["batch_stats"]
    yield pair(("stem",), params, stats, "conv1", "bn1")
    for stage in range(1, 5):
        for number, (block, block_stats) in enumerate(zip(blocks(params, stage), blocks(stats, stage), strict=True)):
            for layer in range(1, 4):
                if f"conv{layer}" in block:
                    yield pair((stage, number, layer), block, block_stats, f"conv{layer}", f"bn{layer}")
            if "shortcut" in block:
                yield pair((stage, number, 0), block["shortcut"], block_stats["shortcut"], "conv", "bn")


def relative(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize(("depth", "stride_in"), [(18, "3x3"), (34, "3x3"), (50, "3x3"), (101, "3x3"), (152, "3x3"),
                                                  (50, "1x1"), (101, "1x1"), (152, "1x1")])
def test_logits_are_those_of_transformers(depth, stride_in):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed, see PyTorch")
    model = imagenet_resnet(depth, "B", classes=7, stride_in=stride_in)
    variables = random_variables(model)
    shape = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
    wide = depth >= 50
    theirs = transformers.ResNetForImageClassification(transformers.ResNetConfig(
        num_labels=7, depths=shape[depth], layer_type="bottleneck" if wide else "basic",
        hidden_sizes=[256, 512, 1024, 2048] if wide else [64, 128, 256, 512],
        downsample_in_bottleneck=stride_in == "1x1")).eval()
    state = {"classifier.1.weight": variables["params"]["fc"]["kernel"].T,
             "classifier.1.bias": variables["params"]["fc"]["bias"]}
    for place, kernel, norm in pairs(variables):
        if place == ("stem",):
            prefix = "resnet.embedder.embedder"
        else:
            stage, number, layer = place
            inner = f"layer.{layer - 1}" if layer else "shortcut"
            prefix = f"resnet.encoder.stages.{stage - 1}.layers.{number}.{inner}"
        state[f"{prefix}.convolution.weight"] = kernel.transpose(3, 2, 0, 1)
        for name, value in zip(("weight", "bias", "running_mean", "running_var"), norm, strict=True):
            state[f"{prefix}.normalization.{name}"] = value
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}
    counters = {name for name in theirs.state_dict() if name.endswith("num_batches_tracked")}
    missing = theirs.load_state_dict(tensors, strict=False)
    assert set(missing.missing_keys) <= counters
    assert not missing.unexpected_keys
    images = np.random.default_rng(1).normal(size=IMAGE).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).logits.numpy()
    assert relative(jax.jit(model.apply)(variables, images), wanted) < 1e-4


@pytest.mark.parametrize("depth", [50, 101, 152])
@pytest.mark.filterwarnings("default")  # Keras's own
def test_logits_are_those_of_keras(depth, monkeypatch):
    if "KERAS_BACKEND" not in os.environ:
        monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install -e '.[test]'")
    model = imagenet_resnet(depth, "B", classes=7)
    variables = random_variables(model)
    make = getattr(keras.applications, f"ResNet{depth}")
    theirs = make(weights=None, classes=7, input_shape=IMAGE[1:], classifier_activation=None)
    found = {layer.name: layer for layer in theirs.layers if layer.weights}
    for place, kernel, norm in pairs(variables):
        prefix = "conv1" if place == ("stem",) else f"conv{place[0] + 1}_block{place[1] + 1}_{place[2]}"
        found.pop(f"{prefix}_conv").set_weights([kernel, np.zeros(kernel.shape[-1])])
        found.pop(f"{prefix}_bn").set_weights(norm)
    found.pop("predictions").set_weights([variables["params"]["fc"]["kernel"], variables["params"]["fc"]["bias"]])
    assert not found
    images = np.random.default_rng(1).normal(size=IMAGE).astype(np.float32)
    assert relative(jax.jit(model.apply)(variables, images), np.asarray(theirs(images, training=False))) < 1e-4
