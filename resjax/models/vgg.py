"""The VGG networks (Simonyan & Zisserman 2015), the paper's baseline in Figure 3 and Tables 3, 4, 7 and 8."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from resjax.models.convolutions import convolve
from resjax.models.families import VGG_FILTERS, VGG_STAGES
from resjax.system.errors import check
from resjax.system.serialization import shortly

SIDE = 7  # side of the maps that the fully connected layers take
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def halved(x: jax.Array) -> jax.Array:
    """Take the maximum of maps `[batch, height, width, channels]` over 2x2 windows, without an odd last row or
    column.
    """
    pooled: jax.Array = nn.max_pool(x, (2, 2), (2, 2))
    return pooled


def windows(x: jax.Array) -> jax.Array:
    """Extract every 7x7 window from maps `[batch, height, width, channels]`, as `[batch, windows, 7, 7, channels]`."""
    rows, columns = (jnp.arange(length - SIDE + 1)[:, None] + jnp.arange(SIDE) for length in x.shape[1:3])
    taken = x[:, rows[:, None, :, None], columns[None, :, None, :]]
    return taken.reshape(len(x), -1, SIDE, SIDE, x.shape[-1])


class VGGConvolutions(nn.Module):
    """VGG's convolutions, from images `[batch, height, width, channels]` to maps at stride 16, before the last pooling.

    The convolutions are 3x3, with bias and without batch norm. Between the stages, there is 2x2 max pooling. With
    `features=True`, the outputs of all stages are returned.
    """

    depth: int = 16
    filters: tuple[int, ...] = VGG_FILTERS

    @nn.compact
    def __call__(self, x: jax.Array, *, features: bool = False) -> Any:
        outputs = []
        for stage, (layers, filters) in enumerate(zip(VGG_STAGES[self.depth], self.filters, strict=True), 1):
            x = halved(x) if stage > 1 else x
            for layer in range(1, layers + 1):
                conv = nn.Conv(filters, (3, 3), padding=1, kernel_init=HE, conv_general_dilated=convolve,
                               name=f"conv{stage}_{layer}")
                x = nn.relu(conv(x))
            outputs.append(x)
        return tuple(outputs) if features else x


class VGGHidden(nn.Module):
    """VGG's two hidden layers with dropout, from maps `[batch, 7, 7, channels]` to `[batch, hidden]`."""

    hidden: int = 4096

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = x.reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            x = nn.relu(nn.Dense(self.hidden, kernel_init=HE, name=name)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return x


class VGG(nn.Module):
    """A VGG network from images `[batch, height, width, channels]` to logits `[batch, classes]`.

    `depth` is 16 or 19. Training uses dropout. Each side of an image must have at least 224 pixels. Smaller images
    raise BadInput, a ValueError. Larger images are evaluated fully convolutionally, as in section 3.2 of the VGG paper:
    the fully connected layers are applied to every 7x7 window of the last maps, and the class scores are averaged. If
    `classes` is 0, the output of the last hidden layer is returned. With `features=True`, the outputs of the five
    stages before their pooling are returned.

    `units` is the number of units in each of the two hidden layers. If it is 0, there are no hidden layers. The last
    layer then takes the average of the last maps, and 32 pixels are enough for each side of an image.
    """

    depth: int = 16
    classes: int = 1000
    filters: tuple[int, ...] = VGG_FILTERS
    units: int = 4096

    __repr__ = shortly

    def setup(self) -> None:
        self.convolutions = VGGConvolutions(self.depth, self.filters)
        if self.units:
            self.hidden = VGGHidden(self.units)
        if self.classes:
            self.fc = nn.Dense(self.classes, kernel_init=HE)

    def __call__(self, x: jax.Array, *, train: bool = False, features: bool = False) -> Any:
        if features:
            return self.convolutions(x, features=True)
        if not self.units:
            averaged = halved(self.convolutions(x)).mean((1, 2))
            return self.fc(averaged) if self.classes else averaged
        height, width = x.shape[1:3]
        check(min(height, width) >= 32 * SIDE, f"images of {height}x{width} are too small for VGG-{self.depth}; its "
                                               f"fully connected layers need at least {32 * SIDE}x{32 * SIDE}")
        seen = windows(halved(self.convolutions(x)))
        batch, positions = seen.shape[:2]
        hidden = self.hidden(seen.reshape(batch * positions, *seen.shape[2:]), train=train)
        scores = self.fc(hidden) if self.classes else hidden
        return scores.reshape(batch, positions, -1).mean(1)
