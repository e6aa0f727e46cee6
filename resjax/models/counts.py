"""Counts parameters and multiply-adds by tracing the computation instead of by a formula."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn


class Layer(NamedTuple):
    """A convolution or the last layer; `macs` includes all `repeats` in a loop."""

    name: str
    kernel: tuple[int, ...]
    output: tuple[int, ...]
    repeats: int
    macs: int
    stride: int = 1


def count_parameters(model: nn.Module, image: tuple[int, int, int]) -> int:
    """Count the trainable parameters: kernels, batch norm's scales and biases, and the last layer's bias."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variable_shapes(model, image)["params"]))


def count_macs(model: nn.Module, image: tuple[int, int, int]) -> int:
    """Count the multiply-adds of all convolutions and of the last layer, for one image `(height, width, channels)`."""
    return sum(layer.macs for layer in list_layers(model, image))


def list_layers(model: nn.Module, image: tuple[int, int, int]) -> list[Layer]:
    """List the layers with multiply-adds, in execution order, for one image `(height, width, channels)`."""
    traced = jax.make_jaxpr(model.apply)(variable_shapes(model, image), one_image(image))
    layers: dict[str, Layer] = {}
    for layer in _multiplications(traced.jaxpr, "", 1):
        if layer.name in layers:  # another block of an unrolled stage
            before = layers[layer.name]
            layer = layer._replace(repeats=before.repeats + layer.repeats, macs=before.macs + layer.macs)
        layers[layer.name] = layer
    return list(layers.values())


def variable_shapes(model: nn.Module, image: tuple[int, int, int]) -> Any:
    """Return the shapes of a network's parameters and batch statistics, for images `(height, width, channels)`."""
    return jax.eval_shape(model.init, jax.random.key(0), one_image(image))


def one_image(image: tuple[int, int, int]) -> jax.ShapeDtypeStruct:
    """Return the shape of a batch of one image."""
    return jax.ShapeDtypeStruct((1, *image), jnp.float32)


def _multiplications(jaxpr: Any, path: str, repeats: int) -> Iterator[Layer]:
    for equation in jaxpr.eqns:
        name = f"{path}/{equation.source_info.name_stack}".strip("/")
        inner = repeats * equation.params["length"] if equation.primitive.name == "scan" else repeats
        parts = list(equation.params.values())
        if equation.primitive.name == "cond":  # one branch per platform; the last branch is the default
            parts = [equation.params["branches"][-1]]
        for part in jax.tree.leaves(parts, is_leaf=lambda x: hasattr(x, "eqns")):
            if hasattr(part, "eqns"):
                yield from _multiplications(getattr(part, "jaxpr", part), name, inner)
        if equation.primitive.name in ("conv_general_dilated", "convolution", "dot_general"):
            kernel, output = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
            stride = max(equation.params.get("strides", equation.params.get("window_strides", (1,))))
            macs = math.prod(output) * math.prod(kernel[axis] for axis in _summed_axes(equation))
            layer = "/".join(part for part in name.split("/")[1:] if "." not in part)  # without model and loop
            yield Layer(layer, kernel, output[1:], repeats, repeats * macs, stride)


def _summed_axes(equation: Any) -> Sequence[int]:
    """Return the axes of the second operand over which a product or a convolution sums."""
    axes = equation.params.get("dimension_numbers")
    if equation.primitive.name == "dot_general":
        (_, summed), _ = axes
        return tuple(summed)
    return tuple(axes.rhs_spec[1:]) if axes else (0, 1, 2)  # in the specification, the axis of filters comes first
