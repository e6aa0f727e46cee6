"""The two residual blocks of Figure 5: y = relu(F(x) + shortcut(x))."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import linen as nn

from resjax.models.activation import relu


class BasicBlock(nn.Module):
    """F is two 3x3 convolutions; the first strides. `filters` channels come out."""

    conv: Callable[..., Any]
    norm: Callable[..., Any]
    shortcut: Callable[..., Any]
    filters: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.filters, 3, self.stride, name="conv1")(x)
        y = relu(self.norm(name="bn1")(y))
        y = self.conv(self.filters, 3, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        return relu(y + self.shortcut(name="shortcut")(x, self.filters, self.stride))


class Bottleneck(nn.Module):
    """F is 1x1, 3x3, 1x1: `filters` channels inside and four times as many out.

    The paper strides in the first 1x1 ("v1"); most later code strides in the 3x3 ("v1.5").
    """

    conv: Callable[..., Any]
    norm: Callable[..., Any]
    shortcut: Callable[..., Any]
    filters: int
    stride: int = 1
    stride_in: Literal["1x1", "3x3"] = "1x1"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = (self.stride, 1) if self.stride_in == "1x1" else (1, self.stride)
        y = self.conv(self.filters, 1, first, name="conv1")(x)
        y = relu(self.norm(name="bn1")(y))
        y = self.conv(self.filters, 3, second, name="conv2")(y)
        y = relu(self.norm(name="bn2")(y))
        y = self.conv(4 * self.filters, 1, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        return relu(y + self.shortcut(name="shortcut")(x, 4 * self.filters, self.stride))
