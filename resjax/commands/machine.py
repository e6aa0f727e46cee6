"""Commands about this machine: get data, and check what there is: versions, devices, arithmetic, data."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from resjax.data import prepare_cifar10
from resjax.data.prepared import data_directory, find_prepared
from resjax.errors import BadInput
from resjax.models import BatchNorm
from resjax.models.ops import convolve
from resjax.platform import cache_directory
from resjax.progress import working
from resjax.terminal import hung, say, say_end
from resjax.version import __version__

TOLERANCE = 1e-4  # float32 sums of some thousand terms; a wrong kernel is off by 1e-2 and more


def prepare(
    name: Annotated[Literal["cifar10"], tyro.conf.Positional],
    directory: Path | None = None,
    archive: Path | None = None,
) -> None:
    """Get a data set: CIFAR-10, 170 MB.

    It is written as TFDS reads it.

    Args:
        name: The data set.
        directory: Where to; by default RESJAX_DATA, else ~/tensorflow_datasets.
        archive: A local copy of the official cifar-10-binary.tar.gz; without it, it is downloaded.
    """
    folder = prepare_cifar10(data_directory(directory), archive)
    where = "" if directory is None else f" --data.directory {directory}"
    say_end(f"In {folder}: 50,000 training and 10,000 test images", f"resjax train resnet20{where}")


def doctor(directory: Path | None = None) -> None:
    """Check this machine; say what is missing.

    Versions, devices, arithmetic against float64, data. It exits with 1 where the quickstart would not work or not be
    right; what is missing for other things is named, with what it is needed for.

    Args:
        directory: Where prepared TFDS sets lie; by default RESJAX_DATA, else ~/tensorflow_datasets.
    """
    passed = True
    for finding in examine(data_directory(directory)):
        say(hung(finding.mark, finding.text))
        passed &= finding.mark != WRONG
    say("\nNext: resjax quickstart" if passed else f"\nMend what is marked {WRONG} first")
    if not passed:
        sys.exit(1)


RIGHT, MISSING, WRONG = "ok  ", "note", "LOOK"


class Finding(NamedTuple):
    """One line of the report; where it is not right, the text says what it is needed for and what to do."""

    mark: str
    text: str


def examine(directory: Path) -> Iterator[Finding]:
    """Yield the findings, one by one; the data sets are looked for in `directory`."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets")
    yield Finding(RIGHT, f"resjax {__version__}, " + ", ".join(f"{name} {version(name)}" for name in packages))
    with working("starting the devices"):
        devices = jax.devices()
    yield Finding(RIGHT, f"{len(devices)} x {devices[0].device_kind}; XLA_FLAGS={os.environ.get('XLA_FLAGS', '')}")
    with working("computing what the networks compute"):
        errors = arithmetic()
    for name, error in errors.items():
        right = error < TOLERANCE
        yield Finding(RIGHT if right else WRONG, f"{name}: relative error {error:.1e} against float64"
                      + ("" if right else f", above {TOLERANCE:g}: try another version of jaxlib"))
    yield Finding(RIGHT, "digits: embedded, 1797 images")
    for name, used in (("cifar10", "Table 6"), ("imagenet2012", "Tables 2 to 5, unless folder:PATH or tars:PATH")):
        try:
            yield Finding(RIGHT, f"{name}: {find_prepared(name, directory)}")
        except BadInput as error:
            yield Finding(MISSING, f"for {used}: {error}")
    yield cache_folder(cache_directory())
    for module, used in OPTIONAL.items():
        if not find_spec(module):
            yield Finding(MISSING, f"for {used}")
    if devices[0].platform == "cpu":
        yield Finding(MISSING, "for a GPU or TPU here: pip install 'resjax[cuda12]', 'resjax[cuda13]' or 'resjax[tpu]'")


OPTIONAL = {"tensorboardX": "resjax report --tensorboard: pip install 'resjax[tensorboard]'",
            "pycocotools": "Table 8, on COCO: pip install 'resjax[coco]'"}


def cache_folder(folder: Path) -> Finding:
    """See whether decoded data and compiled programs can be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable, free = os.access(folder, os.W_OK), shutil.disk_usage(folder).free / 1e9
    except OSError:
        writable, free = False, 0.0
    if writable and free > 1:
        return Finding(RIGHT, f"cache: {folder}, {free:.0f} GB free")
    return Finding(MISSING, f"for quick starts: the cache {folder} cannot be written or has under 1 GB; RESJAX_CACHE "
                            "names another folder")


def arithmetic() -> dict[str, float]:
    """Compute what the networks compute, jitted, and compare with NumPy in float64: relative errors."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 32, 16, 16, 32)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 32, 32)).astype(np.float32)
    conv = lambda x, kernel: convolve(x, kernel, (1, 1), ((1, 1), (1, 1)), precision="float32")  # noqa: E731
    gradients = jax.jit(lambda x, kernel, dy: jax.vjp(conv, x, kernel)[1](dy))
    dx, dkernel = gradients(x, kernel, dy)

    norm = BatchNorm(train=True, ghost_batch_size=16)
    shifted = x + 100  # one-pass statistics lose all digits here
    variables = norm.init(jax.random.key(0), shifted)
    normalized, _ = jax.jit(lambda v, x: norm.apply(v, x, mutable=["batch_stats"]))(variables, shifted)

    matrix, other = x.reshape(-1, 512), kernel.reshape(512, -1)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision="float32"))(matrix, other)
    rows, square = rng.normal(size=(32_769, 3)).astype(np.float32), kernel[0, 0, :3, :3]
    norms = jax.jit(jax.vmap(lambda row: jnp.square(jnp.matmul(square, row, precision="float32")).sum()))(rows)
    return {
        "convolution": relative(jax.jit(conv)(x, kernel), reference_convolution(x, kernel)),
        "its gradient by the image": relative(dx, reference_convolution(dy, kernel[::-1, ::-1].swapaxes(2, 3))),
        "its gradient by the kernel": relative(dkernel, reference_kernel_gradient(x, dy)),
        "batch norm": relative(normalized, reference_normalization(shifted, 16)),
        "matrix product": relative(product, matrix.astype(np.float64) @ other.astype(np.float64)),
        "matrix-vector products": relative(norms, ((rows.astype(np.float64) @ square.T) ** 2).sum(-1)),
    }


def relative(found: jax.Array, reference: Any) -> float:
    """Compute the largest error over the largest value."""
    return float(np.abs(np.asarray(found, np.float64) - reference).max() / np.abs(reference).max())


def neighbourhoods(x: np.ndarray) -> np.ndarray:
    """View `[batch, height, width, channels]` as its 3x3 surroundings `[batch, height, width, channels, 3, 3]`."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))


def reference_convolution(x: np.ndarray, kernel: np.ndarray) -> Any:
    """Convolve 3x3, stride 1, padding 1, in float64."""
    return np.einsum("bhwcij,ijco->bhwo", neighbourhoods(x), kernel.astype(np.float64), optimize=True)


def reference_kernel_gradient(x: np.ndarray, dy: np.ndarray) -> Any:
    """Compute the gradient of that by its kernel, in float64."""
    return np.einsum("bhwcij,bhwo->ijco", neighbourhoods(x), dy.astype(np.float64), optimize=True)


def reference_normalization(x: np.ndarray, group: int) -> Any:
    """Normalise groups of images to mean 0 and variance 1, in float64."""
    groups = x.astype(np.float64).reshape(-1, group, *x.shape[1:])
    mean, var = groups.mean((1, 2, 3), keepdims=True), groups.var((1, 2, 3), keepdims=True)
    return ((groups - mean) / np.sqrt(var + 1e-5)).reshape(x.shape)
