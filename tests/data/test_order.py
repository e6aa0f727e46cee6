"""The order of images: in every epoch each comes once, at all sizes, streamed and in memory, on one process and two."""

import random

import jax
import numpy as np
import pytest

from resjax import Photographs
from resjax.data import ImageFiles, permute, stream, training_batches

SIZES = [2**16 + 1, 2**18 + 1, 1, 2, 3]
SOME = sorted(random.Random(0).sample(range(4, 3_000), 50))
LARGE = pytest.param(2**16 + 1, id="65537")


@pytest.fixture
def labels_only(monkeypatch):
    """Make an example of its label alone, by threads of this process."""
    monkeypatch.setattr(stream, "training_example", lambda files, data, index, random: stream.HostBatch(
        np.zeros(1, np.uint8), np.int32(index), np.array(-1)))


def visited(images, batch_size, steps, share=(0, 1), seeds=(5, 6)):
    """List the numbers of the images that a process reads in some steps, by batch."""
    files = ImageFiles(np.array([b"x"]), np.arange(images, dtype=np.int32), None)
    data = Photographs(source="folder:x", workers=0)
    with training_batches(files, data, seeds, batch_size, steps, share) as batches:
        return [next(batches).labels for _ in steps]


@pytest.mark.parametrize("images", [*SIZES, *SOME])
def test_an_epoch_is_a_permutation(images):
    one, two, other = (stream.epoch_order(images, seed, epoch) for seed, epoch in ((3, 0), (3, 1), (4, 0)))
    for order in (one, two, other):
        assert np.array_equal(np.sort(order), np.arange(images))
    if images > 20:
        assert max((one == two).mean(), (two == other).mean(), (one == other).mean()) < 0.3  # nor do seeds share any
    assert [stream.image_at(place, images, 3) for place in (0, images - 1, images)] == [one[0], one[-1], two[0]]


@pytest.mark.parametrize("images", [LARGE, *SOME])
def test_streams_visit_each_image_once_an_epoch(labels_only, images):
    batch = 8192 if images > 10_000 else 32
    steps = -(-images // batch)
    alone = np.concatenate(visited(images, batch, range(steps)))
    assert np.array_equal(np.sort(alone[:images]), np.arange(images))
    assert np.array_equal(alone[:images], stream.epoch_order(images, 5, 0))
    if images < 10_000:
        halves = [visited(images, batch, range(2 * steps), (process, 2)) for process in (0, 1)]
        together = np.concatenate([np.concatenate(pair) for pair in zip(*halves, strict=True)])
        assert np.array_equal(together[:len(alone)], alone)
        assert np.array_equal(np.sort(together[images:2 * images]), np.arange(images))
        assert np.array_equal(np.concatenate(visited(images, batch, range(1, 3))), together[batch:3 * batch])


@pytest.mark.parametrize("images", [LARGE, *SOME[::7]])
def test_sets_in_memory_visit_each_image_once_an_epoch(images):
    orders = np.asarray(permute(jax.random.key(7), 2, 2, images).indices).reshape(2, images)
    assert all(np.array_equal(np.sort(order), np.arange(images)) for order in orders)
    assert images == 1 or not np.array_equal(*orders)
