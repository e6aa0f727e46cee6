"""A block of one's own in the paper's networks: its count, its place, its keys."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import resjax
from resjax import Bottleneck, ResNet, Shortcut, Stage, cifar_resnet
from resjax.models.convolutions import convolve
from resjax.models.counts import count_parameters, list_layers

KEY = jax.random.key(0)


class PreActivation(nn.Module):
    """Batch norm and ReLU before each convolution (He et al. 2016, Figure 1b); a projection sees them too."""

    filters: int
    stride: int = 1
    shortcut: Any = "B"
    conv: Any = None
    norm: Any = None

    @nn.compact
    def __call__(self, x, *, train=False):
        y = self.norm(name="bn1", rectify=True)(x)
        same = x.shape[-1] == 4 * self.filters and self.stride == 1
        kept = x if same else self.conv(4 * self.filters, 1, self.stride, name="shortcut")(y)
        y = self.norm(name="bn2", rectify=True)(self.conv(self.filters, 1, name="conv1")(y))
        y = self.norm(name="bn3", rectify=True)(self.conv(self.filters, 3, self.stride, name="conv2")(y))
        return kept + self.conv(4 * self.filters, 1, name="conv3")(y)


class Told(nn.Module):
    """Says its number, the total and a random number, each in a channel of its own."""

    filters: int
    stride: int = 1
    shortcut: Any = "A"
    conv: Any = None
    norm: Any = None

    @nn.compact
    def __call__(self, x, *, number, total, train=False):
        drawn = jax.random.uniform(self.make_rng("dropout")) if train else 0.0
        self.sow("intermediates", "told", jnp.stack([jnp.float32(number), jnp.float32(total), jnp.float32(drawn)]))
        self.param("scale", nn.initializers.zeros, (1,))
        return Shortcut(self.shortcut, self.conv, self.norm)(x, self.filters, self.stride)


def test_pre_activation_resnet_164_has_the_parameters_of_its_authors():
    model = ResNet((18, 18, 18), 16, 10, block=PreActivation, pre_activation=True, unroll=0)
    assert count_parameters(model, (32, 32, 3)) == 1_703_258


@pytest.mark.parametrize("unroll", [0, 8])
def test_every_block_has_its_number_and_a_key_of_its_own_however_it_is_compiled(unroll):
    model, x = ResNet((3, 2), 4, 10, block=Told, unroll=unroll, ghost_batch_size=None), jnp.ones((2, 8, 8, 1))
    variables = model.init(KEY, x)
    _, seen = model.apply(variables, x, train=True, rngs={"dropout": KEY}, mutable=["intermediates", "batch_stats"])
    told = np.concatenate([np.asarray(seen["intermediates"][stage][part]["told"][0]).reshape(-1, 3)
                           for stage in ("stage1", "stage2") for part in ("first", "rest")])
    assert told[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert told[:, 1].tolist() == [5] * 5
    assert len(set(told[:, 2].tolist())) == 5


def test_the_papers_blocks_are_values_of_the_same_kind():
    x = jax.random.normal(KEY, (4, 8, 8, 1))
    named, given = (cifar_resnet(14, "B", filters=4, ghost_batch_size=None, block=block, stride_in=stride_in)
                    for block, stride_in in (("bottleneck", "3x3"), (partial(Bottleneck, stride_in="3x3"), "1x1")))
    variables = named.init(KEY, x)
    np.testing.assert_array_equal(named.apply(variables, x), given.apply(given.init(KEY, x), x))


def test_dropout_differs_from_block_to_block_of_a_stage():
    """Flax's own Dropout in the blocks that run as a loop: the kept units are not the same in two blocks."""
    class Dropping(nn.Module):
        filters: int
        stride: int = 1

        @nn.compact
        def __call__(self, x, *, train=False):
            kept = nn.Dropout(0.5, deterministic=not train)(jnp.ones_like(x))
            self.sow("intermediates", "kept", kept)
            self.param("scale", nn.initializers.zeros, (1,))
            return x

    stage, x = Stage(Dropping, 3, 4, stride=1, unroll=0), jnp.ones((1, 4, 4, 4))
    _, seen = stage.apply(stage.init(KEY, x), x, train=True, rngs={"dropout": KEY}, mutable=["intermediates"])
    kept = np.asarray(seen["intermediates"]["rest"]["kept"][0])
    assert kept.shape[0] == 2
    assert not np.array_equal(kept[0], kept[1])
    assert 0.2 < (kept > 0).mean() < 0.8


class Attention(nn.Module):
    """Sixteen channels: one filter for each, then attention of all 64 pixels to all, by two heads of eight."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (3, 3), feature_group_count=16)(x)
        return nn.MultiHeadDotProductAttention(2)(x.reshape(1, -1, 16))


def test_multiply_adds_of_attention_and_of_grouped_convolutions():
    grouped, *maps, products, out = list_layers(Attention(), (8, 8, 16))
    assert grouped.macs == 64 * 16 * 9
    assert [layer.macs for layer in (*maps, out)] == [64 * 16 * 16] * 4
    assert products.macs == 2 * (64 * 64 * 16)  # the queries with the keys, and the weights with the values


@pytest.mark.parametrize("channels", [4, 64])
@pytest.mark.parametrize("fields", [{"kernel_dilation": 2}, {"input_dilation": 2}, {"feature_group_count": 2}])
def test_dilated_and_grouped_convolutions_are_those_of_flax(fields, channels):
    x = jax.random.normal(KEY, (8, 32, 32, channels))
    ours, flax = resjax.convolution(channels, 3, name="c", **fields), nn.Conv(channels, (3, 3), padding=1,
                                                                             use_bias=False, **fields)
    variables = ours.init(KEY, x)
    np.testing.assert_allclose(ours.apply(variables, x), flax.apply(variables, x), atol=1e-4)


def test_a_kernel_for_other_channels_is_refused():
    with pytest.raises((TypeError, ValueError), match="feature"):
        convolve(jnp.zeros((32, 32, 32, 32)), jnp.zeros((3, 3, 16, 32)), (1, 1), ((1, 1), (1, 1)))
