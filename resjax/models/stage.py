"""A stage is a sequence of the paper's blocks, or of custom blocks, on feature maps of one size."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from resjax.models.stacking import FIRST, REST


class Stage(nn.Module):
    """A sequence of blocks on maps of one size (Table 1). The first block may change the dimensions.

    The blocks after the first one all have the same structure. If there are at most `unroll` of them, they are
    unrolled, which runs faster. Otherwise, they run as a loop, whose compile time does not grow with the number of
    blocks. In both cases, the parameters of these blocks are stacked along a leading axis `[blocks - 1, ...]`, so that
    checkpoints do not depend on `unroll`. Every block gets its own random keys, for example for dropout.

    `block` builds a module from `filters`, `name` and `stride`, whose default must be 1. The module is called with `(x,
    train=train)`. If its `__call__` also has the arguments `number` and `total`, it receives the block's index in the
    network as `number`, and the number of blocks in the network as `total`. The index counts from 1 and may be traced
    by JAX. `first` is the index of this stage's first block.

        y = Stage(partial(BasicBlock, norm=norm), blocks=3, filters=16, stride=1, name="stage1")(x, train=train)
    """

    block: Callable[..., nn.Module]
    blocks: int
    filters: int
    stride: int
    unroll: int = 8
    first: int = 1
    total: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        block = self.block(filters=self.filters, stride=self.stride, name=FIRST)
        asks, total = "number" in inspect.signature(type(block).__call__).parameters, self.total or self.blocks

        def apply(block: Any, x: jax.Array, number: Any) -> tuple[jax.Array, None]:
            place = {"number": number, "total": total} if asks else {}
            return block(x, train=train, **place), None

        x, _ = apply(block, x, self.first)
        rest = self.blocks - 1
        if rest:
            loop: Any = nn.scan(apply, length=rest, unroll=rest if rest <= self.unroll else 1, split_rngs={True: True},
                                variable_axes={"params": 0, "batch_stats": 0, "intermediates": 0})
            numbers = self.first + 1 + jnp.arange(rest) if asks else None
            x, _ = loop(self.block(filters=self.filters, name=REST), x, numbers)
        return x
