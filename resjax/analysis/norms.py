"""How large gradients and activations are, layer by layer."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from resjax.analysis.order import WEIGHTS, in_order


@partial(jax.jit, static_argnums=0)
def gradient_norms(model: nn.Module, variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the norm of the loss's gradient in each layer's weights, `[layers]`, in the order of the layers.

    The loss is the mean cross-entropy of images `[batch, height, width, channels]` with labels `[batch]`, in training
    mode. Projections and the parameters of batch norm are left out.
    """

    def loss(params: Any) -> jax.Array:
        logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    gradients = jax.grad(loss)(variables["params"])
    norms = jax.tree_util.tree_map_with_path(lambda path, g: _norm(g, stacked=_in_loop(path)), gradients)
    return in_order(norms, WEIGHTS, "kernel")


@partial(jax.jit, static_argnums=0)
def activation_norms(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Return the root mean square of each layer's output, `[layers]`, before batch norm, in training mode."""
    _, seen = model.apply(variables, images, train=True, mutable=["batch_stats", "intermediates"],
                          capture_intermediates=lambda module, _: isinstance(module, nn.Conv | nn.Dense))
    sizes = jax.tree_util.tree_map_with_path(
        lambda path, y: _norm(y, stacked=_in_loop(path)) / jnp.sqrt(y[0].size if _in_loop(path) else y.size),
        seen["intermediates"])
    return in_order(sizes, WEIGHTS, "__call__")


def _in_loop(path: tuple[Any, ...]) -> bool:
    """Tell whether a leaf holds the stacked blocks of a stage."""
    return any(getattr(part, "key", None) == "rest" for part in path)


def _norm(x: jax.Array, stacked: bool) -> jax.Array:
    """Norm of an array, or of each along the leading axis."""
    return jnp.sqrt(jnp.square(x).sum(tuple(range(int(stacked), x.ndim))))
