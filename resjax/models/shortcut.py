"""The three shortcuts of section 3.3, and none."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn

Option = Literal["plain", "A", "B", "C"]
OPTIONS: tuple[str, ...] = get_args(Option)


class Shortcut(nn.Module):
    """What a block adds to F(x): x itself, or x brought to `[batch, height/stride, width/stride, filters]`.

    A: where dimensions change, every stride-th pixel and zeros for the new channels: no parameters.
    B: a projection (1x1 convolution, batch norm) where dimensions change, the identity elsewhere.
    C: a projection everywhere.
    plain: nothing, the net without residual learning.
    """

    option: Option
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, filters: int, stride: int) -> jax.Array:
        same = x.shape[-1] == filters and stride == 1
        match self.option:
            case "plain":
                return jnp.zeros((), x.dtype)
            case "A" | "B" if same:
                return x
            case "A":
                return append_zero_channels(x[:, ::stride, ::stride], filters)
            case _:
                projected: Any = self.conv(filters, 1, stride, name="conv")(x)
                return self.norm(name="bn")(projected)


def append_zero_channels(x: jax.Array, filters: int) -> jax.Array:
    """Widen `[..., channels]` to `[..., filters]` with zeros after the channels, as the authors' Torch peer does."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, filters - x.shape[-1])])
