"""Training steps against PyTorch's autograd and SGD, from the same weights on the same images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from networks import random_network
from safetensors.torch import load_file
from torch.nn import functional
from torch_resnets import ResNet

import resjax
from resjax.data import Batch
from resjax.experiment import Optimizer
from resjax.training.optimizer import build_optimizer
from resjax.training.step import state_of, train_step


@pytest.mark.parametrize("option", ["plain", "B"])
def test_steps_are_those_of_pytorch(option, tmp_path):
    """Section 4.2: batch norm over half a batch, as on two GPUs, rate 0.1, momentum 0.9, weight decay for all."""
    network, half, steps = random_network(depth=8, shortcut=option), 4, 4
    random = np.random.default_rng(0)
    images, labels = random.normal(0, 50, (steps, 2 * half, 32, 32, 3)).astype(np.float32), np.arange(2 * half) % 3
    theirs = ResNet((1, 1, 1), 16, 3, option, stem=3)
    theirs.load_state_dict(load_file(resjax.export(network, "resjax", tmp_path / "before") / "model.safetensors"))
    sgd = torch.optim.SGD(theirs.train().parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    optimizer = build_optimizer(Optimizer(learning_rate=0.1, momentum=0.9, weight_decay=1e-4), 100)
    step = jax.jit(partial(train_step, network.model.clone(ghost_batch_size=half), optimizer))
    state, ours, other = state_of(network.variables, optimizer, network.mean, jax.random.key(0)), [], []
    for batch in images:
        state, metrics = step(state, Batch(jnp.asarray(batch), jnp.asarray(labels)))
        ours.append(float(metrics.loss) / len(labels))
        x = torch.tensor(batch).permute(0, 3, 1, 2)
        loss = functional.cross_entropy(torch.cat([theirs(x[:half]), theirs(x[half:])]), torch.tensor(labels))
        other.append(loss.item())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
    np.testing.assert_allclose(ours, other, rtol=1e-4)
    after = resjax.export(network._replace(variables=state.variables), "resjax", tmp_path / "after")
    for name, tensor in load_file(after / "model.safetensors").items():
        if "running" not in name and "num_batches" not in name:
            expected = theirs.state_dict()[name]
            assert (tensor - expected).abs().max() <= 1e-3 * expected.abs().max(), name
