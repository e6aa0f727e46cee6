"""Measures how accurately this machine computes the networks' operations, compared with NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resjax.models import BatchNorm
from resjax.models.convolutions import convolve


def arithmetic() -> dict[str, float]:
    """Run the networks' operations under jit, and return their relative errors against NumPy in float64."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 32, 16, 16, 32)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 32, 32)).astype(np.float32)
    conv = lambda x, kernel: convolve(x, kernel, (1, 1), ((1, 1), (1, 1)), precision="float32")  # noqa: E731
    gradients = jax.jit(lambda x, kernel, dy: jax.vjp(conv, x, kernel)[1](dy))
    dx, dkernel = gradients(x, kernel, dy)

    norm = BatchNorm(train=True, ghost_batch_size=16)
    shifted = x + 100  # a naive one-pass variance would lose all digits here
    variables = norm.init(jax.random.key(0), shifted)
    normalized, _ = jax.jit(lambda v, x: norm.apply(v, x, mutable=["batch_stats"]))(variables, shifted)

    matrix, other = x.reshape(-1, 512), kernel.reshape(512, -1)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="float32"))(matrix, other)
    rows, square = rng.normal(size=(32_769, 3)).astype(np.float32), kernel[0, 0, :3, :3]
    norms = jax.jit(jax.vmap(lambda row: jnp.square(jnp.matmul(square, row, precision="float32")).sum()))(rows)
    return {
        "convolution": relative(jax.jit(conv)(x, kernel), reference_convolution(x, kernel)),
        "convolution, gradient by image": relative(dx, reference_convolution(dy, kernel[::-1, ::-1].swapaxes(2, 3))),
        "convolution, gradient by kernel": relative(dkernel, reference_kernel_gradient(x, dy)),
        "batch norm": relative(normalized, reference_normalization(shifted, 16)),
        "matrix product": relative(product, matrix.astype(np.float64) @ other.astype(np.float64)),
        "matrix-vector products": relative(norms, ((rows.astype(np.float64) @ square.T) ** 2).sum(-1)),
    }


def relative(value: jax.Array, reference: Any) -> float:
    """Return the largest absolute error divided by the largest absolute reference value."""
    return float(np.abs(np.asarray(value, np.float64) - reference).max() / np.abs(reference).max())


def neighbourhoods(x: np.ndarray) -> np.ndarray:
    """Return the 3x3 neighbourhoods of the pixels of `[batch, height, width, channels]`, with shape `[..., 3, 3]`."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))


def reference_convolution(x: np.ndarray, kernel: np.ndarray) -> Any:
    """Convolve 3x3, stride 1, padding 1, in float64."""
    return np.einsum("bhwcij,ijco->bhwo", neighbourhoods(x), kernel.astype(np.float64), optimize=True)


def reference_kernel_gradient(x: np.ndarray, dy: np.ndarray) -> Any:
    """Compute the gradient of `reference_convolution` with respect to its kernel, in float64."""
    return np.einsum("bhwcij,bhwo->ijco", neighbourhoods(x), dy.astype(np.float64), optimize=True)


def reference_normalization(x: np.ndarray, group: int) -> Any:
    """Normalise groups of images to mean 0 and variance 1, in float64."""
    groups = x.astype(np.float64).reshape(-1, group, *x.shape[1:])
    mean, var = groups.mean((1, 2, 3), keepdims=True), groups.var((1, 2, 3), keepdims=True)
    return ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
