"""Tries five ideas from later papers, one by one, on a ResNet-14 and scikit-learn's digits (docs/results/ideas.md)."""

from dataclasses import replace
from typing import Any

import jax
import optax
from flax import linen as nn

from resjax import Architecture, Data, Experiment, Mixup, Optimizer, Own, Shortcut, run


class Block(nn.Module):
    """The paper's basic block; `change` modifies F(x), and `depth` is the block's relative depth in (0, 1]."""

    filters: int
    shortcut: str
    conv: Any
    norm: Any
    stride: int = 1

    @nn.compact
    def __call__(self, x, *, number, total, train=False):
        y = self.norm(name="bn1", rectify=True)(self.conv(self.filters, 3, self.stride, name="conv1")(x))
        y = self.change(self.norm(name="bn2")(self.conv(self.filters, 3, name="conv2")(y)), number / total, train)
        return nn.relu(y + Shortcut(self.shortcut, self.conv, self.norm, name="shortcut")(x, self.filters, self.stride))


class Squeeze(Block):
    """Squeeze and excitation (Hu et al. 2018) scales each channel by a factor computed from all channel means."""

    def change(self, y, depth, train):
        means = nn.relu(nn.Dense(self.filters // 4, name="squeeze")(y.mean((1, 2))))
        return y * nn.sigmoid(nn.Dense(self.filters, name="excite")(means))[:, None, None]


class Stochastic(Block):
    """Stochastic depth (Huang et al. 2016) skips F(x) in training with a probability that grows with depth to 1/2."""

    def change(self, y, depth, train):
        return y * (jax.random.bernoulli(self.make_rng("dropout"), 1 - depth / 2) if train else 1 - depth / 2)


def smoothed(logits, labels):
    """Cross-entropy with smoothed labels (Szegedy et al. 2016): a tenth of the probability is shared by all classes."""
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), 0.1))


PAPER = Experiment(name="paper", architecture=Architecture(depth=14), data=Data(source="digits", pad=1, flip=False),
                   optimizer=Optimizer(learning_rate=0.05, decay_steps=(300,)), steps=400, log_steps=20,
                   evaluate_steps=100, evaluate_test=True, checkpoint_steps=100, precise_batch_norm_steps=20)
COSINE = Optimizer(learning_rate=0.05, schedule="cosine", warmup_steps=20)
IDEAS = {"squeeze": {"own": Own(model=lambda run, classes: run.architecture.model(classes).clone(block=Squeeze))},
         "stochastic": {"own": Own(model=lambda run, classes: run.architecture.model(classes).clone(block=Stochastic))},
         "smoothed": {"own": Own(loss=smoothed)}, "mixup": {"own": Own(augment=Mixup(0.2))},
         "cosine": {"optimizer": COSINE}}
EXPERIMENTS = {"paper": PAPER} | {name: replace(PAPER, name=name, **idea) for name, idea in IDEAS.items()}

if __name__ == "__main__":
    run(EXPERIMENTS)
