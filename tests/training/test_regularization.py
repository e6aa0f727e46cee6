"""Losses and augmentations: against NumPy and their distributions, and in runs that are resumed to the same bits."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from scipy import stats

from resjax import BadInput, CutMix, Cutout, Interrupted, LabelSmoothing, Mixup, train
from resjax.training.step import cross_entropy

ONE = jax.devices()[:1]
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(6, 8, 8, 1)).astype(np.float32)
LABELS = np.array([0, 1, 2, 3, 4, 5])
KEYS = jax.random.split(jax.random.key(0), 2000)


def cross_entropies(logits, targets):
    """Return the losses in float64, from the definition."""
    x = np.float64(logits)
    return -(np.float64(targets) * (x - np.log(np.exp(x).sum(-1, keepdims=True)))).sum(-1)


def test_label_smoothing_is_its_formula():
    logits = RANDOM.normal(size=(6, 10))
    targets = np.full((6, 10), 0.01) + 0.9 * np.eye(10)[LABELS]
    found = LabelSmoothing(0.1)(jnp.float32(logits), LABELS)
    np.testing.assert_allclose(found, cross_entropies(logits, targets), rtol=1e-5)
    given = LabelSmoothing(0.1)(jnp.float32(logits), jax.nn.one_hot(LABELS, 10))
    np.testing.assert_allclose(found, given, rtol=1e-6)


def test_mixup_mixes_images_as_their_labels_say():
    """All labels differ, so they tell which images were mixed, and by what weights."""
    for key in KEYS[:20]:
        mixed, targets = map(np.asarray, Mixup(0.5, classes=10)(key, jnp.asarray(IMAGES), jnp.asarray(LABELS)))
        np.testing.assert_allclose(mixed, np.einsum("bc,chwd->bhwd", targets[:, :6], IMAGES), atol=1e-5)
        np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


def test_mixups_loss_is_that_of_both_labels_by_their_weights():
    """The cross-entropy of mixed labels, in float64: weight l(x, y) + (1 - weight) l(x, y')."""
    logits = RANDOM.normal(size=(6, 10))
    each = -(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    for key in KEYS[:20]:
        targets = np.asarray(Mixup(0.5, classes=10)(key, jnp.asarray(IMAGES), jnp.asarray(LABELS))[1])
        wanted = []
        for own, (losses, row) in enumerate(zip(each, targets, strict=True)):
            other = next((label for label in np.flatnonzero(row) if label != own), own)
            wanted.append(row[own] * losses[own] + (1 - row[own]) * losses[other])
        np.testing.assert_allclose(cross_entropy(jnp.float32(logits), targets), wanted, rtol=1e-5)


def test_every_image_is_as_likely_the_other():
    """Of six images each is mixed with the first in a sixth of the draws, itself too."""
    targets = jax.jit(jax.vmap(lambda key: Mixup(0.5, 10)(key, jnp.asarray(IMAGES), jnp.asarray(LABELS))[1][0]))(KEYS)
    others = [next((label for label in np.flatnonzero(row) if label), 0) for row in np.asarray(targets)]
    assert stats.chisquare(np.bincount(others, minlength=6)).pvalue > 1e-3


def cutmix_box(random):
    """Return height, width, top and left of a box of the paper's rule on 16x16 pixels, by NumPy; none is all zeros."""
    side, centre = 16 * np.sqrt(1 - random.beta(1, 1)), 16 * random.random(2)
    inside = [np.flatnonzero(np.abs(np.arange(16) + 0.5 - middle) < side / 2) for middle in centre]
    return [*map(len, inside), *(some[0] if len(some) else 0 for some in inside)]


def test_cutmixs_boxes_are_distributed_as_those_of_its_rule_in_numpy():
    """Areas, shapes and places: two samples, compared by chi-square tests of their tables."""
    ramp = jnp.stack([jnp.zeros((16, 16, 1)), jnp.ones((16, 16, 1))])
    mixed = jax.jit(jax.vmap(lambda key: CutMix(1.0)(key, ramp, jnp.arange(2))[0][0, ..., 0]))(KEYS)
    exchanged = [np.argwhere(image > 0) for image in np.asarray(mixed) if image.any()]  # half are mixed with themselves
    ours = np.array([[*(found.max(0) - found.min(0) + 1), *found.min(0)] for found in exchanged])
    random = np.random.default_rng(1)
    theirs = np.array([box for box in (cutmix_box(random) for _ in range(4000)) if box[0] * box[1]])
    assert 0.4 < len(ours) / len(KEYS) < 0.55
    for value in (lambda box: box[:, 0] * box[:, 1], lambda box: box[:, 0] - box[:, 1], lambda box: box[:, 2],
                  lambda box: box[:, 3]):
        cuts = np.unique(np.quantile(value(theirs), np.linspace(0.1, 0.9, 9)))
        tables = [np.bincount(np.digitize(value(boxes), cuts), minlength=len(cuts) + 1) for boxes in (ours, theirs)]
        assert stats.chi2_contingency([column for column in np.transpose(tables) if column.sum()]).pvalue > 1e-3


def test_mixups_weights_are_distributed_as_beta():
    mixed = jax.jit(jax.vmap(lambda key: Mixup(0.5, 10)(key, jnp.asarray(IMAGES), jnp.asarray(LABELS))[1][0, 0]))(KEYS)
    weights = np.asarray(mixed)[np.asarray(mixed) < 1]  # 1 where the image is mixed with itself
    assert 0.75 < len(weights) / len(KEYS) < 0.9  # 5 of 6
    bins = stats.beta(0.5, 0.5).ppf(np.linspace(0, 1, 11))
    assert stats.chisquare(np.histogram(weights, bins)[0]).pvalue > 1e-3


def test_cutmix_gives_as_much_of_a_label_as_of_the_image():
    flat = jnp.broadcast_to(jnp.asarray(LABELS, jnp.float32)[:, None, None, None], (6, 8, 8, 1))
    for key in KEYS[:20]:
        mixed, targets = map(np.asarray, CutMix(1.0, classes=10)(key, flat, jnp.asarray(LABELS)))
        shares = np.stack([(mixed[..., 0] == label).mean((1, 2)) for label in range(10)], 1)
        np.testing.assert_allclose(targets, shares, atol=1e-6)


def test_cutouts_squares_are_everywhere_alike():
    """A square of one pixel is as often on each of the 64, by a chi-square test; one of 4 keeps the rest."""
    ones = jnp.ones((100, 8, 8, 1))
    holes = sum(np.asarray(Cutout(1)(key, ones, LABELS)[0] == 0).sum(0) for key in KEYS[:64])
    assert holes.sum() == 6400
    assert stats.chisquare(holes.ravel()).pvalue > 1e-3
    inner = np.asarray(Cutout(4)(KEYS[0], ones, LABELS)[0] == 0).sum((1, 2, 3))
    assert inner.max() == 16
    assert set(inner.tolist()) <= {a * b for a in (2, 3, 4) for b in (2, 3, 4)}


def steep(logits, labels, *, power):
    """Return a loss of one's own."""
    return -(jax.nn.log_softmax(logits) * labels).sum(-1) * power


@pytest.mark.parametrize("given", [
    {"loss": LabelSmoothing(0.1), "augment": Mixup(0.2)}, {"loss": partial(steep, power=2.0), "augment": CutMix()}])
def test_a_run_with_its_own_loss_and_augmentation_is_resumed_to_the_same_bits(small, tmp_path, given):
    def cut(line, network):
        if line["step"] == 2:
            raise Interrupted("enough", 2)

    run = small(steps=4)
    whole = train(run, tmp_path / "whole", ONE, **given)
    with pytest.raises(Interrupted):
        train(run, tmp_path / "cut", ONE, **given, callback=cut)
    with pytest.raises(BadInput, match=r"its augment is .* pass the same augment="):
        train(run, tmp_path / "cut", ONE, loss=given["loss"])
    assert train(run, tmp_path / "cut", ONE, **given)["state_digest"] == whole["state_digest"]
    plain = train(run, tmp_path / "plain", ONE)
    assert plain["state_digest"] != whole["state_digest"]
    told = json.loads((tmp_path / "cut" / "experiment.json").read_text())["given"]
    assert told["loss"] in ("LabelSmoothing()", "partial(test_regularization.py:steep, power=2.0)")
    assert told["augment"] in ("Mixup()", "CutMix()")


class Torn(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        raise ValueError("enough")


@pytest.mark.parametrize(("given", "message"), [
    ({"loss": lambda logits, labels: logits.mean()}, r"loss returned .*; it must return one loss per image, \(32,\)"),
    ({"loss": "focal"}, "loss is 'focal'; it must be a function"),
    ({"augment": lambda key, images, labels: images}, "augment returned .*; it must return images"),
    ({"augment": Mixup(classes=3)}, r"augment returned .*\(32, 3\).* labels \(32,\) or \(32, 10\)"),
    ({"loss": lambda logits, labels: logits.argmax(1)}, "loss returned int32, which has no gradient"),
    ({"loss": lambda logits, labels: logits.sum(1) * RANDOM.random()}, "loss computes something else"),
    ({"loss": lambda logits: logits.sum(1)}, r"loss failed: TypeError: .* takes 1 positional argument"),
    ({"loss": optax.softmax_cross_entropy_with_integer_labels, "augment": Mixup()}, "loss failed: TypeError: Expected"),
    ({"loss": lambda logits, labels: np.asarray(logits)},
     r"loss failed \(test_regularization.py, line \d+\): TracerArrayConversionError: The numpy"),
    ({"augment": lambda key, images, labels: (images.astype(jnp.uint8), labels)}, "augment returned images of uint8"),
    ({"augment": lambda key, images, labels: (images, labels / 2)}, r"augment returned labels \(32,\) of float32"),
    ({"augment": lambda key, images, labels: (images + RANDOM.normal(size=images.shape), labels)},
     "augment computes something else when it is called again; .* use its key"),
    ({"model": lambda run: None}, "model failed: TypeError: .* takes 1 positional argument"),
    ({"model": Torn()}, r"model failed \(test_regularization.py, line \d+\): ValueError: enough"),
    ({"optimizer": lambda: None}, "optimizer failed: TypeError: .* takes 0 positional arguments"),
    ({"callback": lambda line: None}, "callback failed: TypeError: too many positional arguments")])
def test_functions_of_another_form_are_named(small, tmp_path, given, message):
    with pytest.raises(BadInput, match=message):
        train(small(), tmp_path, ONE, **given)
    assert not (tmp_path / "experiment.json").exists()


def test_numbers_of_a_callback_take_no_line_of_the_log_away(small, tmp_path):
    with pytest.raises(BadInput, match=r"callback returned .* step and kind are reserved names"):
        train(small(), tmp_path, ONE, callback=lambda line, network: {"step": 7})


def test_a_pure_function_may_tell_what_it_does_and_hold_arrays(small, tmp_path):
    key, told = jax.random.key(1), []

    def loss(logits, labels):
        jax.debug.callback(lambda value: told.append(float(value)), logits.sum())
        return cross_entropy(logits, labels) + 0 * jax.random.normal(key, labels.shape) + np.zeros(len(labels))

    train(small(steps=2), tmp_path, ONE, loss=loss)
    assert told
