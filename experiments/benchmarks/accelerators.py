"""stock"""
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class StockBottleneck(nn.Module):
    """1x1, 3x3 (which strides), 1x1, and a projection where dimensions change, of Flax's own parts."""

    filters: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(nn.Conv, use_bias=False, dtype=jnp.bfloat16)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=jnp.bfloat16)
        y = nn.relu(norm()(conv(self.filters, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.filters, (3, 3), self.stride, padding=1)(y)))
        y = norm()(conv(4 * self.filters, (1, 1))(y))
        if x.shape != y.shape:
            x = norm()(conv(4 * self.filters, (1, 1), self.stride)(x))
        return nn.relu(y + x)


class StockResNet50(nn.Module):
    """ResNet-50 v1.5 as Flax's users write it: `nn.Conv`, `nn.BatchNorm`, `nn.relu`, `nn.max_pool`, in bfloat16."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.Conv(64, (7, 7), 2, padding=3, use_bias=False, dtype=jnp.bfloat16)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=jnp.bfloat16)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                x = StockBottleneck(64 * 2**stage, 2 if stage and not block else 1)(x, train)
        return nn.Dense(1000)(x.mean((1, 2)).astype(jnp.float32))


def stock_resnet50(): return StockResNet50()
