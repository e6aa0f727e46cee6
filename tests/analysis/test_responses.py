"""Figure 7: how strongly each layer responds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax import cifar_resnet
from resjax.analysis import response_deviations
from resjax.data import Images, Preprocessing
from resjax.network import Classifier


def images(count):
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (count, 8, 8, 3), np.uint8), np.zeros(count, np.int32))


@pytest.mark.parametrize("shortcut", ["plain", "B"])
def test_deviations_are_those_of_a_direct_computation(shortcut):
    model, some, mean = cifar_resnet(14, shortcut, ghost_batch_size=4), images(12), jnp.full((8, 8, 3), 100.0)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    variables = {**variables, "batch_stats": jax.tree.map(  # not those of a fresh net
        lambda x: x + jax.random.uniform(jax.random.key(x.size), x.shape), variables["batch_stats"])}
    params, stats = variables["params"], variables["batch_stats"]

    def layer(x, params, stats, name, stride=1):
        x = jax.lax.conv_general_dilated(x, params[f"conv{name}"]["kernel"], (stride, stride), ((1, 1), (1, 1)),
                                         dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return (x - stats[f"bn{name}"]["mean"]) / np.sqrt(stats[f"bn{name}"]["var"] + 1e-5)

    def at(tree, index):
        return jax.tree.map(lambda x: x[index], tree)

    x = np.asarray(some.pixels, np.float32) - mean
    y = layer(x, params, stats, 1)
    expected, x = [y.std()], jax.nn.relu(y)
    for stage in ("stage1", "stage2", "stage3"):
        p, s = params[stage], stats[stage]
        blocks = [(p["first"], s["first"]), (at(p["rest"], 0), at(s["rest"], 0))]
        for index, (bp, bs) in enumerate(blocks):
            stride = 2 if index == 0 and stage != "stage1" else 1
            y1 = layer(x, bp, bs, 1, stride)
            y2 = layer(jax.nn.relu(y1), bp, bs, 2)
            expected += [y1.std(), y2.std()]
            if shortcut == "plain":
                added = 0
            elif stride == 1:
                added = x
            else:
                projection = x[:, ::2, ::2] @ bp["shortcut"]["conv"]["kernel"][0, 0]
                norm = bs["shortcut"]["bn"]
                added = (projection - norm["mean"]) / np.sqrt(norm["var"] + 1e-5)
            x = jax.nn.relu(y2 + added)

    found = response_deviations(Classifier(model, variables, Preprocessing(mean)), some, batch_size=4)
    assert found.shape == (13,)  # every 3x3 layer, and no projection
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_a_batch_size_that_leaves_images_out_is_refused():
    model = cifar_resnet(8)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match="batch_size is 5; it must divide the number of images, 12"):
        response_deviations(Classifier(model, variables, Preprocessing(jnp.zeros((8, 8, 3)))), images(12), batch_size=5)
