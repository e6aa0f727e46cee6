"""The VGG networks (Simonyan & Zisserman 2015), which the paper compares with in Figure 3 and Tables 7 and 8."""

import jax
from flax import linen as nn

from resjax.models.ops import convolve

STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
FILTERS = (64, 128, 256, 512, 512)
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def halved(x: jax.Array) -> jax.Array:
    """Take the maximum over windows of 2x2: `[batch, height, width, channels]`, without a last odd row or column."""
    pooled: jax.Array = nn.max_pool(x, (2, 2), (2, 2))
    return pooled


class VGGConvolutions(nn.Module):
    """Images `[batch, height, width, channels]` to the last maps at a stride of 16, before the last pooling.

    3x3 convolutions with bias and without batch norm; a 2x2 max pooling between the stages.
    """

    depth: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for stage, (layers, filters) in enumerate(zip(STAGES[self.depth], FILTERS, strict=True), 1):
            x = halved(x) if stage > 1 else x
            for layer in range(1, layers + 1):
                conv = nn.Conv(filters, (3, 3), padding=1, kernel_init=HE, conv_general_dilated=convolve,
                               name=f"conv{stage}_{layer}")
                x = nn.relu(conv(x))
        return x


class VGGHidden(nn.Module):
    """Maps `[batch, 7, 7, channels]` through two fully connected layers to `[batch, hidden]`, with dropout."""

    hidden: int = 4096

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = x.reshape(len(x), -1)
        for name in ("fc6", "fc7"):
            x = nn.relu(nn.Dense(self.hidden, kernel_init=HE, name=name)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return x


class VGG(nn.Module):
    """Images `[batch, 224, 224, channels]` to logits `[batch, classes]`; `depth` is 16 or 19. Dropout in training."""

    depth: int = 16
    classes: int = 1000

    def setup(self) -> None:
        self.convolutions = VGGConvolutions(self.depth)
        self.hidden = VGGHidden()
        self.fc8 = nn.Dense(self.classes, kernel_init=HE)

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        logits: jax.Array = self.fc8(self.hidden(halved(self.convolutions(x)), train=train))
        return logits
