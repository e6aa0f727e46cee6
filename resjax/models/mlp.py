"""A fully connected residual network. Equation 1 of the paper describes its blocks (section 3.2)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from resjax.models.batch_norm import BatchNorm
from resjax.models.families import Option
from resjax.models.ops import relu
from resjax.models.resnet import Shortcut
from resjax.models.stage import Stage
from resjax.system.serialization import shortly


def without(*, name: str) -> Callable[[jax.Array], jax.Array]:
    """Return the identity function, in place of batch norm."""
    return lambda z: z


class DenseBlock(nn.Module):
    """A block a[l+2] = relu(z[l+2] + shortcut(a[l])), with z[l+2] = W[l+2] relu(W[l+1] a[l] + b[l+1]) + b[l+2].

    If the widths differ, the shortcut is Ws a[l], or a[l] padded with zeros.
    """

    filters: int
    stride: int = 1
    shortcut: Option = "A"
    dense: Callable[..., Any] = nn.Dense
    norm: Callable[..., Any] = without

    @nn.compact
    def __call__(self, a: jax.Array, *, train: bool = False) -> jax.Array:
        def projection(filters: int, size: int, stride: int, *, name: str) -> Any:
            return self.dense(filters, use_bias=False, name=name)

        z = self.norm(name="bn1")(self.dense(self.filters, name="fc1")(a))
        z = self.norm(name="bn2")(self.dense(self.filters, name="fc2")(relu(z)))
        shortcut = Shortcut(self.shortcut, projection, self.norm, name="shortcut")
        return relu(z + shortcut(a, self.filters, self.stride))


class ResidualMLP(nn.Module):
    """A fully connected network from images `[batch, height, width, channels]` to float32 logits `[batch, classes]`.

    Stage i has `blocks[i]` blocks of `widths[i]` units. With one layer before the first stage and one after the last,
    there are 2 sum(blocks) + 2 layers. Without `ghost_batch_size` there is no batch norm. Weights are drawn with
    variance `gain` / fan-in. A gain of 2 is He initialisation, and 1 is LeCun's.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    classes: int
    shortcut: Option = "A"
    ghost_batch_size: int | None = None
    gain: float = 2.0
    norm_momentum: float = 0.9
    unroll: int = 8

    __repr__ = shortly

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        draw = nn.initializers.variance_scaling(self.gain, "fan_in", "normal")
        dense = partial(nn.Dense, kernel_init=draw)

        norm: Any = without
        if self.ghost_batch_size is not None:
            norm = partial(BatchNorm, train, self.ghost_batch_size, self.norm_momentum)
        block = partial(DenseBlock, shortcut=self.shortcut, dense=dense, norm=norm)
        a = x.astype(jnp.float32).reshape(len(x), 1, 1, -1)  # an image of one pixel, to reuse batch norm and shortcut
        a = relu(norm(name="bn1")(dense(self.widths[0], name="fc1")(a)))
        for i, (blocks, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            a = Stage(block, blocks, width, stride=1, unroll=self.unroll, name=f"stage{i + 1}")(a)
        return dense(self.classes, name="fc")(a[:, 0, 0])
