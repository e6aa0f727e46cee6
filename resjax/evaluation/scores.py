"""Class probabilities of every test image: what views, scales and networks are averaged in."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax import lax
from jax.sharding import NamedSharding

from resjax.data import Images, subtract
from resjax.evaluation.evaluate import Errors
from resjax.evaluation.views import View, whole
from resjax.photographs import Photos, decode, dimensions, planned_batches, resize_shorter_side
from resjax.processes import everywhere
from resjax.progress import parts, shown

CHUNK = 256  # images whose headers a worker reads at once


class Glance(NamedTuple):
    """A batch to look at: the images (-1 fills it up) and the size of their views."""

    images: np.ndarray
    height: int
    width: int


def class_probabilities(model: nn.Module, variables: Any, mean: jax.Array, photos: Photos, views: tuple[View, ...],
                        batch_size: int, sharding: NamedSharding, workers: int | None) -> np.ndarray:
    """Average the softmax outputs over the views: float32 `[images, classes]`, on every host.

    At most `batch_size` crops of the mean image's size, or as many pixels, are looked at together; that changes the
    speed and nothing else. Raises BadInput for an unreadable image: every image counts.
    """
    devices, crop = sharding.mesh.size, mean.shape[0]
    processes, process = jax.process_count(), jax.process_index()
    total = np.zeros((len(photos.labels), model.classes), np.float32)
    shapes = read_dimensions(photos, workers) if any(view.size is None for view in views) else None
    for view in views:
        sizes = [view.size] * len(total) if view.size else [whole(*shape, view.side) for shape in shapes.tolist()]
        plan = planned(sizes, batch_size * crop**2 // view.count, devices)
        share = [glance._replace(images=np.split(glance.images, processes)[process]) for glance in plan]
        with planned_batches(share, partial(look, photos, view), workers) as pixels:
            for glance, part in zip(shown(plan, f"shorter side {view.side}", len(plan)), pixels, strict=True):
                batch = jax.make_array_from_process_local_data(sharding, part)
                seen = np.asarray(softmax_of_views(model, sharding, variables, mean, batch))
                real = glance.images >= 0
                total[glance.images[real]] += seen[real] / len(views)
    return total


def read_dimensions(photos: Photos, workers: int | None) -> np.ndarray:
    """Read height and width of every image: `[images, 2]`."""
    chunks = parts(len(photos.labels), CHUNK)
    with planned_batches(chunks, partial(dimensions_of, photos), workers) as found:
        return np.concatenate(list(shown(found, "sizes of the images", len(chunks), CHUNK)))


def dimensions_of(photos: Photos, chunk: range) -> np.ndarray:
    """Read height and width of some images."""
    return np.array([dimensions(photos.read(index), photos.name(index)) for index in chunk])


def planned(sizes: Sequence[tuple[int, int]], pixels: int, devices: int) -> list[Glance]:
    """Put images whose views are of one size together, so many pixels at a time."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, size in enumerate(sizes):
        groups[size].append(index)
    plan = []
    for (height, width), images in groups.items():
        count = devices * max(1, pixels // (height * width) // devices)
        for start in range(0, len(images), count):
            part = images[start:start + count]
            plan.append(Glance(np.array(part + [-1] * (count - len(part))), height, width))
    return plan


def look(photos: Photos, view: View, glance: Glance) -> np.ndarray:
    """Decode the images of a batch and cut their views: uint8 `[batch, views, height, width, 3]`."""
    pixels = np.zeros((len(glance.images), view.count, glance.height, glance.width, 3), np.uint8)
    for views, index in zip(pixels, glance.images, strict=True):
        if index >= 0:
            image = resize_shorter_side(decode(photos.read(index), view.side, photos.name(index)), view.side)
            views[:] = view.crop(image, glance.height, glance.width)
    return pixels


def image_probabilities(model: nn.Module, variables: Any, mean: jax.Array, images: Images,
                        batch_size: int) -> np.ndarray:
    """Compute the softmax outputs for images in memory, seen once each: float32 `[images, classes]`."""
    return np.concatenate([softmax_of_views(model, None, variables, mean, images.pixels[part.start:part.stop, None])
                           for part in parts(len(images.labels), batch_size)])


@partial(jax.jit, static_argnums=(0, 1))
def softmax_of_views(model: nn.Module, sharding: NamedSharding | None, variables: Any, mean: jax.Array,
                     pixels: jax.Array) -> jax.Array:
    """Average the softmax outputs of `[batch, views, height, width, 3]` over the views: `[batch, classes]`.

    Views of another size than the crops of the training have the mean image resized to theirs.
    """
    batch, views, *shape = pixels.shape
    images = subtract(pixels.reshape(batch * views, *shape), jax.image.resize(mean, shape, "linear"))
    logits = model.apply(variables, images)
    probabilities = jax.nn.softmax(logits).reshape(batch, views, -1).mean(1)
    if sharding is None:
        return probabilities
    return lax.with_sharding_constraint(probabilities, everywhere(sharding))


def errors_of(probabilities: np.ndarray, labels: np.ndarray) -> Errors:
    """Measure the errors of `[images, classes]` against `[images]`.

    An image is right within the first k where fewer than k classes are likelier; of equal ones the earlier is.
    """
    images, classes = probabilities.shape
    true = probabilities[np.arange(images), labels][:, None]
    earlier = np.arange(classes) < labels[:, None]
    likelier = ((probabilities > true) | ((probabilities == true) & earlier)).sum(1)
    likelier = np.where(np.isfinite(probabilities).all(1), likelier, classes)
    loss = -np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean()
    return Errors(100 * float((likelier >= 1).mean()), 100 * float((likelier >= 5).mean()), float(loss), images)
