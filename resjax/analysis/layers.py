"""Measures gradients, activations and responses, layer by layer, in the order in which the layers run."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from resjax.data import Images
from resjax.models.stacking import is_stage, unstack
from resjax.network import Classifier, Network, as_classifier
from resjax.system.errors import check

WEIGHTS, NORMS = r"(conv|fc)\d", r"bn\d"


def in_order(collection: Any, pattern: str) -> list[Any]:
    """Collect the entries of a collection of variables or intermediates whose layer names match, in layer order.

    Shortcuts are left out. If the pattern matches weights, the fully connected layer comes last. Raises BadInput for
    collections of a VGG or a custom network, which have no stages.
    """
    network = unstack(collection)
    check(any(is_stage(name) for name in network), "layers can only be measured in plain and residual networks")
    modules = [network, *(block for name in sorted(network) if is_stage(name) for block in network[name])]
    layers = [module[name] for module in modules for name in sorted(module) if re.fullmatch(pattern, name)]
    return layers + ([network["fc"]] if pattern == WEIGHTS else [])


@partial(jax.jit, static_argnums=0)
def gradient_norms(model: nn.Module, variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the norm of the loss's gradient with respect to each layer's weights, `[layers]`, in layer order.

    The loss is the mean cross-entropy of images `[batch, height, width, channels]` with labels `[batch]`, in training
    mode. Projections and the parameters of batch norm are left out.
    """

    def loss(params: Any) -> jax.Array:
        logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
        return losses.mean()

    gradients = in_order(jax.grad(loss)(variables["params"]), WEIGHTS)
    return jnp.stack([jnp.linalg.norm(layer["kernel"]) for layer in gradients])


def with_gain(variables: Any, gain: float) -> Any:
    """Rescale He-initialised weights (variance 2 / inputs) to a variance of gain / inputs; biases become zero."""
    return jax.tree_util.tree_map_with_path(
        lambda path, w: w * (gain / 2) ** 0.5 if path[-1].key == "kernel" else w, variables)


@partial(jax.jit, static_argnums=0)
def activation_norms(model: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
    """Return the root mean square of each layer's output, `[layers]`, before batch norm, in training mode."""
    _, seen = model.apply(variables, images, train=True, mutable=["batch_stats", "intermediates"],
                          capture_intermediates=lambda module, _: isinstance(module, nn.Conv | nn.Dense))
    outputs = [layer["__call__"][0] for layer in in_order(seen["intermediates"], WEIGHTS)]
    return jnp.stack([jnp.sqrt(jnp.square(output).mean()) for output in outputs])


def response_deviations(network: Network | Classifier, images: Images, batch_size: int = 100) -> np.ndarray:
    """Return the standard deviation of every convolution's response, `[layers]`, in layer order.

    A response is the output after batch norm and before the ReLU or the addition (section 4.2). The standard deviation
    is computed over all images, pixels and channels. Projections are left out, so a CIFAR network has one value per 3x3
    layer, as in Figure 7; a bottleneck also has those of its 1x1 layers, and an ImageNet network that of its 7x7 stem.
    Raises ValueError if `batch_size` does not divide the number of images.
    """
    count = len(images.labels)
    if count % batch_size:
        raise ValueError(f"batch_size is {batch_size}; it must divide the number of images, {count}")
    model, variables, preprocessing = as_classifier(network)
    sums, squares = mean_moments(model, count // batch_size, variables, preprocessing, images)
    return np.sqrt(np.asarray(squares, np.float64) - np.square(np.asarray(sums, np.float64)))


@partial(jax.jit, static_argnums=(0, 1))
def mean_moments(model: nn.Module, batches: int, variables: Any, preprocessing: Any, images: Images) -> Any:
    """Average the responses and their squares, `[layers]`, over several batches of equal size."""

    def moments(batch: Images) -> tuple[jax.Array, jax.Array]:
        _, seen = model.apply(variables, preprocessing.normalize(batch.pixels), mutable=["intermediates"])
        responses = [layer["response"][0] for layer in in_order(seen["intermediates"], NORMS)]
        first, second = (jnp.stack([(response**power).mean() for response in responses]) for power in (1, 2))
        return first, second

    split = jax.tree.map(lambda x: x.reshape(batches, -1, *x.shape[1:]), images)
    return jax.tree.map(lambda x: x.mean(0), lax.map(moments, split))
