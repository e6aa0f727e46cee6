"""A batch is a function of (key, step): which images it holds, and how they are cropped and mirrored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax.data import (
    Batching,
    Images,
    Preprocessing,
    add_colour_noise,
    augment,
    batch_at,
    epochs_spanned,
    normalize,
)
from resjax.data import permute as permute_epochs

KEY = jax.random.key(3)
NO_MEAN = Preprocessing(jnp.zeros((1, 1, 1)))
make = jax.jit(batch_at, static_argnums=5)
permute = jax.jit(permute_epochs, static_argnums=(2, 3))
change = jax.jit(augment, static_argnums=(2, 3))


def numbered(count, height=2, width=3):
    """Images whose pixels and labels are their numbers."""
    numbers = np.arange(count)
    pixels = np.broadcast_to(numbers[:, None, None, None], (count, height, width, 1)).astype(np.uint8)
    return Images(jnp.asarray(pixels), jnp.asarray(numbers, jnp.int32))


def run(data, size, steps, key=KEY):
    """The batches of the first steps, unchanged, on one long order."""
    images = len(data.labels)
    order = permute(key, 0, epochs_spanned(steps, size, images), images)
    return [make(jnp.int32(step), key, order, data, NO_MEAN, Batching(size, 0, False))
            for step in range(steps)]


def orders(images, epochs, key=KEY):
    return np.asarray(permute(key, 0, epochs, images).indices).reshape(epochs, images)


def windows(images, pad):
    """Every crop `[images, 2 pad + 1, 2 pad + 1, height, width, channels]` of the images with zeros around them."""
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    count = range(2 * pad + 1)
    height, width = images.shape[1:3]
    return np.stack([np.stack([padded[:, y:y + height, x:x + width] for x in count], 1) for y in count], 1)


def distinct(count, height=4, width=5):
    """Images of which no pixel is zero or like another."""
    return np.random.default_rng(0).permutation(count * height * width * 2).reshape(count, height, width, 2) + 1.0


@pytest.mark.parametrize(("images", "size"), [(10, 4), (7, 7), (3, 20)])
def test_every_epoch_visits_each_image_exactly_once(images, size):
    batches = run(numbered(images), size, steps=-(-4 * images // size))
    visited = np.concatenate([batch.labels for batch in batches])[:4 * images].reshape(4, images)
    np.testing.assert_array_equal(np.sort(visited), np.broadcast_to(np.arange(images), (4, images)))


def test_images_come_with_their_labels_and_in_the_order():
    data, size = numbered(10), 4
    batches = run(data, size, steps=7)
    labels = np.concatenate([batch.labels for batch in batches])
    np.testing.assert_array_equal(labels, orders(10, 3).reshape(-1)[:28])
    pixels = np.concatenate([batch.images for batch in batches])
    np.testing.assert_array_equal(pixels, np.broadcast_to(labels[:, None, None, None], (28, 2, 3, 1)))
    assert (pixels.dtype, labels.dtype) == (np.float32, np.int32)


def test_epochs_and_seeds_differ():
    found = [tuple(order) for seed in range(3) for order in orders(20, 5, jax.random.key(seed))]
    assert len(set(found)) == 15


def test_every_permutation_is_as_likely_as_another():
    found, counts = np.unique(orders(3, 1200), axis=0, return_counts=True)
    assert len(found) == 6
    assert all(150 < count < 250 for count in counts)


@pytest.mark.parametrize(("first_epoch", "epochs"), [(0, 7), (1, 3), (2, 2)])
def test_a_step_gives_the_same_batch_whatever_window_it_is_taken_from(first_epoch, epochs):
    data, step = numbered(10), jnp.int32(7)  # images 28 ... 31: the end of epoch 2 and the beginning of epoch 3
    batches = [make(step, KEY, order, data, NO_MEAN, Batching(4, 2, True))
               for order in (permute(KEY, 0, 4, 10), permute(KEY, first_epoch, epochs, 10))]
    np.testing.assert_array_equal(batches[0].labels, batches[1].labels)
    np.testing.assert_array_equal(batches[0].images, batches[1].images)


def test_epochs_spanned_is_enough_wherever_the_steps_begin_and_never_more_than_can_be_touched():
    for steps, size, images in np.random.default_rng(0).integers(1, [12, 60, 60], (2000, 3)).tolist():
        first = np.arange(images)  # where in an epoch the first of these steps may begin
        touched = (first + steps * size - 1) // images + 1
        assert epochs_spanned(steps, size, images) == touched.max(), (steps, size, images)


def test_normalized_pixels_are_float32_and_go_below_zero():
    found = normalize(jnp.array([[0, 255]], jnp.uint8), jnp.array([200.5, 0.25], jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [[-200.5, 254.75]])


def test_padding_is_zero_after_the_mean_is_subtracted():
    data = Images(jnp.full((1, 2, 2, 1), 7, jnp.uint8), jnp.zeros(1, jnp.int32))
    batch = make(jnp.int32(0), KEY, permute(KEY, 0, 100, 1), data, Preprocessing(jnp.full((2, 2, 1), 10.0)),
                 Batching(100, 1, False))
    assert set(np.unique(batch.images)) == {-3.0, 0.0}


def test_without_padding_and_mirrors_nothing_changes():
    images = distinct(50)
    np.testing.assert_array_equal(change(KEY, images, 0, False), images)


@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_windows_of_the_padded_image_all_as_likely_and_half_of_them_mirrored(flip):
    images, pad = distinct(2500), 2
    found = np.asarray(change(KEY, images, pad, flip))[:, None, None]
    crops = windows(images, pad)
    plain, mirrored = ((found == crop).all((3, 4, 5)) for crop in (crops, crops[..., ::-1, :]))
    assert ((plain | mirrored).sum((1, 2)) == 1).all()  # each is one window of its own image
    counts = np.stack([plain.sum(0), mirrored.sum(0)])  # 100 are expected for each of the 25 windows
    if flip:
        assert (counts > 25).all()
        assert (counts < 80).all()
        assert 1175 < counts[1].sum() < 1325
    else:
        assert counts[1].sum() == 0
        assert ((counts[0] > 65) & (counts[0] < 140)).all()


def test_mirrors_alone():
    images = distinct(1000)
    found = np.asarray(change(KEY, images, 0, True))
    plain, mirrored = ((found == kind).all((1, 2, 3)) for kind in (images, images[:, :, ::-1]))
    assert (plain ^ mirrored).all()
    assert 450 < mirrored.sum() < 550


def test_augmentation_differs_from_step_to_step_and_key_to_key():
    data = Images(jnp.asarray(distinct(1)[..., :1], jnp.uint8), jnp.zeros(1, jnp.int32))
    order = permute(KEY, 0, 64, 1)
    found = [make(jnp.int32(step), key, order, data, NO_MEAN, Batching(32, 2, True)).images
             for step, key in ((0, KEY), (1, KEY), (0, jax.random.key(4)))]
    assert not any(np.array_equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_colour_noise_shifts_whole_images_along_the_principal_colours():
    colours = jnp.array([[3.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    images = jax.random.normal(KEY, (4000, 2, 2, 3))
    shifts = np.asarray(add_colour_noise(KEY, images, colours, 0.1) - images)
    assert np.ptp(shifts, axis=(1, 2)).max() < 1e-5
    covariance = np.cov(shifts[:, 0, 0].T)
    np.testing.assert_allclose(covariance, 0.01 * colours @ colours.T, atol=0.006)
