"""A stage: blocks on maps of one size, of the paper or of one's own."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from resjax.models.stacking import FIRST, REST


class Stage(nn.Module):
    """Blocks on maps of one size (Table 1). The first may change the dimensions; the others are identical and stacked.

    Up to `unroll` of them are compiled one by one, which runs faster; more run as a loop, whose compile time does
    not grow with depth. Their parameters carry a leading axis `[blocks - 1, ...]` either way: a checkpoint never
    depends on that choice. Every block has keys of its own, for dropout and whatever else is random in it.

    `block` takes `filters`, `stride` and `name`, and is called as `block(x, train=train)`. One whose `__call__` takes
    `number` and `total` too is told its place in the network, from 1 on (`number` is traced), and how many there are:
    `first` is the number of this stage's first block.

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
