"""The train state: arrays only. With the experiment it decides every later bit, so it is the checkpoint."""

import hashlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax import lax


@struct.dataclass
class TrainState:
    """What changes from step to step, and the two arrays that stay: the data's key and mean image."""

    step: jax.Array
    key: jax.Array
    mean: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def initial_state(model: nn.Module, optimizer: optax.GradientTransformation, mean: Any,
                  seed: int | jax.Array) -> TrainState:
    """Draw the parameters; `mean` is the mean image `[height, width, channels]` of the training data."""
    model_key, data_key = jax.random.split(jax.random.key(seed))
    variables = model.init(model_key, jnp.zeros((1, *np.shape(mean))))
    params = variables["params"]
    return TrainState(jnp.int32(0), data_key, jnp.asarray(mean), params, variables.get("batch_stats", {}),
                      optimizer.init(params))


draw = jax.jit(initial_state, static_argnums=(0, 1))


@partial(jax.jit, static_argnums=(0, 1, 2))
def draw_onto(sharding: jax.sharding.Sharding, model: nn.Module, optimizer: optax.GradientTransformation, mean: Any,
              seed: int | jax.Array) -> TrainState:
    """Draw the first state onto devices, also those of other processes."""
    return lax.with_sharding_constraint(initial_state(model, optimizer, mean, seed), sharding)


def named_leaves(tree: Any) -> list[tuple[str, np.ndarray]]:
    """List the arrays of a tree, on the host, by path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(jax.device_get(tree))
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]


def state_digest(state: TrainState) -> str:
    """Hash parameters, batch statistics and optimiser state: SHA-256 over names, types, shapes and bytes."""
    sha = hashlib.sha256()
    leaves = named_leaves((state.params, state.batch_stats, state.opt_state))
    for name, leaf in sorted(leaves, key=lambda pair: pair[0]):
        sha.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()
