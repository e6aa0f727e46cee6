"""Averages the class probabilities of every image over its views, and returns the logarithms `[images, classes]`.

Logarithms are used because a class's probability can be smaller than any positive float32. If any logit of an image is
not finite, the probabilities of all classes are NaN for this image.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.sharding import NamedSharding

from resjax.data import ImageFiles, Images, Preprocessing, dimensions, planned_batches
from resjax.evaluation.views import View, whole
from resjax.network import Classifier
from resjax.system.distributed import replicated
from resjax.system.progress import chunks, track

CHUNK = 256  # image headers per task of a worker


def log_probabilities(classifier: Classifier, images: Images, batch_size: int,
                      sharding: NamedSharding | None = None) -> np.ndarray:
    """Evaluate one view of images in memory, stored on every device of `sharding`. Returns `[images, classes]`."""
    count, devices = len(images.labels), sharding.mesh.size if sharding else 1
    size, pixels = devices * -(-min(batch_size, count) // devices), jnp.asarray(images.pixels)
    batches = [at_places(classifier.model, sharding, classifier.variables, classifier.preprocessing, pixels,
                         np.minimum(np.arange(start, start + size), count - 1)) for start in range(0, count, size)]
    return np.concatenate(jax.device_get(batches))[:count]


@partial(jax.jit, static_argnums=(0, 1))
def at_places(model: nn.Module, sharding: NamedSharding | None, variables: Any, preprocessing: Preprocessing,
              pixels: jax.Array, places: jax.Array) -> jax.Array:
    """Evaluate some of the images that are stored on the device."""
    places = places if sharding is None else lax.with_sharding_constraint(places, sharding)
    seen: jax.Array = average_views(model, sharding, variables, preprocessing, pixels[places][:, None])
    return seen


@partial(jax.jit, static_argnums=(0, 1))
def average_views(model: nn.Module, sharding: NamedSharding | None, variables: Any, preprocessing: Preprocessing,
                  pixels: jax.Array) -> jax.Array:
    """Average softmax outputs over the views of `[batch, views, height, width, channels]`: `[batch, classes]`."""
    batch, views, *shape = pixels.shape
    outputs: Any = model.apply(variables, preprocessing.normalize(pixels.reshape(batch * views, *shape)))
    logits = outputs.astype(jnp.float32)  # custom networks may return bfloat16
    usable = jnp.where(jnp.isfinite(logits).all(-1, keepdims=True), jax.nn.log_softmax(logits), jnp.nan)
    averaged = jax.nn.logsumexp(usable.reshape(batch, views, -1), 1) - jnp.log(views)
    return averaged if sharding is None else lax.with_sharding_constraint(averaged, replicated(sharding))


class ViewBatch(NamedTuple):
    """A batch to render, with indices of the images (-1 is padding) and the size of their views."""

    images: np.ndarray
    height: int
    width: int


def log_probabilities_of_views(classifier: Classifier, files: ImageFiles, views: tuple[View, ...], batch_size: int,
                               sharding: NamedSharding, workers: int | None) -> np.ndarray:
    """Average the softmax outputs over the views. Returns float32 log probabilities `[images, classes]` on every host.

    A batch has at most as many pixels as `batch_size` crops of the mean image's size. `batch_size` affects only speed
    and memory use. Raises BadInput for an unreadable image, because every image counts.
    """
    model, variables, preprocessing = classifier
    height, width, _ = preprocessing.image_shape
    shapes = read_dimensions(files, workers).tolist() if any(view.size is None for view in views) else []
    total = np.full((len(files.labels), outputs_of(classifier)), -np.inf, np.float32)
    for view in views:
        sizes = [view.size] * len(total) if view.size else [
            whole(tall, wide, view.side, preprocessing.resize) for tall, wide in shapes]
        plan = plan_batches(sizes, batch_size * height * width // view.number, sharding.mesh.size)
        share = [batch._replace(images=np.split(batch.images, jax.process_count())[jax.process_index()])
                 for batch in plan]
        small = preprocessing.replace(mean=np.zeros(preprocessing.image_shape, np.float32))  # for other processes
        make = partial(render, files, small, view)
        size = max((3 * view.number * len(batch.images) * batch.height * batch.width for batch in share), default=0)
        with planned_batches(share, make, workers, size) as rendered:
            for batch, part in zip(track(plan, f"shorter side {view.side}", len(plan)), rendered, strict=True):
                pixels = jax.make_array_from_process_local_data(sharding, part)
                seen = np.asarray(average_views(model, sharding, variables, preprocessing, pixels))
                real = batch.images >= 0
                total[batch.images[real]] = np.logaddexp(total[batch.images[real]], seen[real] - np.log(len(views)))
    return total


def outputs_of(classifier: Classifier) -> int:
    """Return the number of outputs of a classifier."""
    image = np.zeros((1, *classifier.preprocessing.image_shape), np.float32)
    return int(jax.eval_shape(classifier.model.apply, classifier.variables, image).shape[-1])


def read_dimensions(files: ImageFiles, workers: int | None) -> np.ndarray:
    """Read the height and width of every image: `[images, 2]`."""
    ranges = chunks(len(files.labels), CHUNK)
    with planned_batches(ranges, partial(dimensions_of, files), workers) as sizes:
        return np.concatenate(list(track(sizes, "reading image sizes", len(ranges), CHUNK)))


def dimensions_of(files: ImageFiles, chunk: range) -> np.ndarray:
    """Read the height and width of some images."""
    return np.array([dimensions(files.read(index), files.name(index)) for index in chunk])


def plan_batches(sizes: Sequence[tuple[int, int]], pixels: int, devices: int) -> list[ViewBatch]:
    """Group images whose views have the same size into batches of a limited number of pixels."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        groups[size].append(index)
    plan = []
    for (height, width), images in groups.items():
        fitting = max(1, pixels // (height * width) // devices)
        count = devices * min(fitting, -(-len(images) // devices))
        for start in range(0, len(images), count):
            part = images[start:start + count]
            plan.append(ViewBatch(np.array(part + [-1] * (count - len(part))), height, width))
    return plan


def render(files: ImageFiles, preprocessing: Preprocessing, view: View, batch: ViewBatch) -> np.ndarray:
    """Decode the images of a batch and cut their views: uint8 `[batch, views, height, width, channels]`."""
    channels = preprocessing.image_shape[2]
    pixels = np.zeros((len(batch.images), view.number, batch.height, batch.width, channels), np.uint8)
    for views, index in zip(pixels, batch.images, strict=True):
        if index >= 0:
            image = preprocessing.resized(files.read(index), files.name(index), view.squash or view.side)
            views[:] = view.crop(image, batch.height, batch.width)
    return pixels
