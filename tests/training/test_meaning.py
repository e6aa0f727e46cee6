"""What is meant is compared before anything compiles: networks, labels, arrays and names of one's own."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import linen as nn

import resjax
from resjax import BadInput, Data, Experiment, Optimizer, ResNet, read_metrics, train
from resjax.detection import Scenery
from resjax.models.batch_norm import BatchNorm
from resjax.training import restore
from resjax.training.images import open_images

ONE = jax.devices()[:1]
PIXELS = np.random.default_rng(0).integers(0, 255, (64, 8, 8, 1), np.uint8)
LABELS = np.arange(64) % 10
DIGITS = resjax.dataset((PIXELS, LABELS), (PIXELS[:20], LABELS[:20]))


class Net(nn.Module):
    """A network of one's own: by which batch norm, of how many classes."""

    norm: str = "flax"
    classes: int = 10

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        if self.norm == "flax":
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        elif self.norm == "ours":
            x = BatchNorm(train, name="norm")(x)
        else:
            x = x / (1 + Own(name="norm")(x, train=train))
        return nn.Dense(self.classes, name="fc")(nn.relu(x).mean((1, 2)))


class Own(nn.Module):
    """A normalisation that neither Flax nor resjax knows."""

    @nn.compact
    def __call__(self, x, *, train):
        mean = self.variable("batch_stats", "size", jnp.zeros, x.shape[-1:])
        if train and not self.is_initializing():
            mean.value = 0.5 * mean.value + 0.5 * jnp.abs(x).mean((0, 1, 2))
        return mean.value


class NoTrain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x.reshape(len(x), -1))


class Dotted(nn.Module):
    """Two parameters that Orbax joins to one name."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Dense(4, name="b")(x.reshape(len(x), -1))
        return nn.Dense(10, name="a")(x) + self.param("a.kernel", nn.initializers.zeros, (4, 10)).sum(0)


class Noisy(nn.Module):
    """A network with a random stream or a collection of its own, in training or in testing."""

    stream: str = "noise"
    train: bool = True

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Dense(10)(x.mean((1, 2)))
        if train == self.train and self.stream:
            x = x + jax.random.normal(self.make_rng(self.stream), x.shape)
        if not self.stream:
            x = x + self.variable("memory", "mean", jnp.zeros, (10,)).value
        return x


@dataclass
class Thawed:
    """An augmentation that Python cannot hash."""

    size: float = 1.0

    def __call__(self, key, images, labels):
        return images, labels


@pytest.mark.parametrize(("given", "message"), [
    ({"model": "resnet18"}, "model is 'resnet18'; it must be a Flax Linen module"),
    ({"model": torch.nn.Linear(2, 2)}, "model is Linear.*; it must be a Flax Linen module"),
    ({"model": Net}, "pass an instance, not the class"),
    ({"model": NoTrain()}, r"model: NoTrain.__call__ must accept train; training calls model\(images, train=True\)"),
    ({"model": ResNet((1, 1, 1), 4, 10, block=Net)},
     "model.block is <class .*Net'>; .* with the fields .*filters, stride, shortcut, conv missing"),
    ({"model": ResNet((1, 1, 1), 4, 10, block="se")}, "model.block is 'se'; it must be one of 'basic', 'bottleneck'"),
    ({"model": Net(classes=5)}, r"model returned \(32, 5\) for images \(32, 8, 8, 1\); .* there are 10 classes"),
    ({"model": Net(classes=12)}, r"model returned \(32, 12\) for images \(32, 8, 8, 1\); .* there are 10 classes"),
    ({"model": Net(norm=np.zeros(2))}, "model is a Net that cannot be hashed; .* its fields must be numbers, strings"),
    ({"model": Noisy()}, r"model failed \(test_meaning.py.*\): InvalidRng.*noise.*; a network can use"),
    ({"model": Noisy(train=False)}, r"InvalidRng.*noise.* 'dropout', in training only, and the collections 'params'"),
    ({"model": Noisy("dropout", train=False)}, "InvalidRng.*dropout.* in training only"),
    ({"model": Noisy("")}, "model failed .*memory.*the collections 'params' and 'batch_stats'"),
    ({"augment": Thawed()}, "augment is a Thawed that cannot be hashed; a dataclass needs frozen=True"),
    ({"model": Dotted()}, "two of its arrays would be saved as 'params.a.kernel'"),
    ({"optimizer": 1e-3}, r"optimizer is 0.001; it must be an optax optimizer, such as optax.sgd\(0.1\)"),
    ({"optimizer": optax.lbfgs()}, r"optimizer failed: TypeError.*'grad'.*optax.lbfgs"),
    ({"optimizer": optax.lookahead(optax.sgd(0.1), 5, 0.5)}, "optimizer failed: .* optax.lookahead do not work"),
    ({"optimizer": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.1))}, "contains optax.contrib.sam, which resjax does"),
    ({"data": (PIXELS, LABELS)}, r"data is <class 'tuple'>; it must be resjax.dataset"),
    ({"callback": "print"}, "callback is 'print'; it must be a function"),
])
def test_what_is_no_part_of_a_run_is_told_in_a_line(small, tmp_path, given, message):
    with pytest.raises(BadInput, match=message) as error:
        train(small(steps=2), tmp_path, ONE, **{"data": DIGITS, **given})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "experiment.json").exists()


def test_a_callback_that_returns_no_numbers_is_told_in_a_line(small, tmp_path):
    with pytest.raises(BadInput, match="callback returned 'done'; it must return a dict of names and numbers, or None"):
        train(small(steps=2), tmp_path, ONE, data=DIGITS, model=Net("none"), callback=lambda *_: "done")


@pytest.mark.parametrize(("values", "message"), [
    (Data(size=16), "data.size is 16, but the arrays are 8x8"),
    (Data(source="arrays", std=(1.0, 2.0, 3.0)), "data.std has 3 values, but the arrays .* 1 channels")])
def test_values_of_the_experiment_are_compared_with_arrays(small, tmp_path, values, message):
    with pytest.raises(BadInput, match=message):
        train(small(steps=2, data=values), tmp_path, ONE, data=DIGITS)


@pytest.mark.parametrize(("pixels", "labels", "message"), [
    (PIXELS, 1 + LABELS, "labels are 1 ... 10; they must start at 0, because otherwise the first of 11 classes"),
    (np.zeros((50, 3, 32, 32), np.uint8), np.zeros(50, int), r"pixels are \[50, 3, 32, 32\], that is, 32 channels"),
    (np.zeros((50, 1, 28, 28), np.uint8), np.zeros(50, int), "that is, 28 channels; if there are 1,")])
def test_arrays_that_mean_something_else_are_refused(pixels, labels, message):
    with pytest.raises(BadInput, match=message):
        resjax.dataset((pixels, labels))


@pytest.mark.parametrize(("arguments", "message"), [
    ((PIXELS, LABELS), r"data, train: ndarray is not a pair; .* as in resjax.dataset\(\(pixels, labels\), "),
    (((PIXELS, LABELS), PIXELS), "data, test: ndarray is not a pair"),
    (((PIXELS, LABELS, LABELS),), "data, train: tuple is not a pair"),
    ((([PIXELS[0], PIXELS[0, :5]], [0, 1]),), "data, train: .*all images must have the same size"),
    (((PIXELS, [[0, 1], [2]]),), "data, train: .*and a label each"),
    (((PIXELS, LABELS), None, ("a", "b", "a")), "data: 3 classes, but 'a' is the name of several"),
    (((PIXELS, LABELS), None, ("\u00e9", "e\u0301")), "2 classes, but '\u00e9' is the name of several")])
def test_arrays_in_no_pair_and_names_of_several_classes_are_refused(arguments, message):
    with pytest.raises(BadInput, match=message):
        resjax.dataset(*arguments)


def test_names_of_several_classes_of_objects_are_refused():
    with pytest.raises(BadInput, match=r"data.classes is \('cat', 'cat'\); it must contain no name twice"):
        Scenery(source="voc:x", classes=("cat", "cat"))


def test_arrays_that_were_right_still_are():
    assert resjax.dataset((PIXELS, 1 + LABELS), classes=tuple("abcdefghijk")).classes == tuple("abcdefghijk")
    assert resjax.dataset((np.zeros((2, 3, 3, 3), np.uint8), np.arange(2))).train.pixels.shape == (2, 3, 3, 3)
    assert resjax.dataset((np.zeros((2, 9, 9, 12), np.uint8), np.arange(2))).train.pixels.shape == (2, 9, 9, 12)


@pytest.mark.parametrize("norm", ["flax", "ours"])
def test_precise_batch_norm_reaches_any_network(small, tmp_path, norm):
    """One batch is the whole set, so the precise statistics are those of all images, in float64."""
    run = small(steps=1, batch_size=64, data=Data(pad=0, flip=False), precise_batch_norm_steps=3,
                optimizer=Optimizer(learning_rate=0.01, decay_steps=(9,)))
    train(run, tmp_path, ONE, data=DIGITS, model=Net(norm))
    state = restore(tmp_path, model=Net(norm)).state
    x = np.float64(PIXELS) - np.float64(PIXELS).mean(0)
    maps = np.asarray(nn.Conv(4, (3, 3)).apply({"params": state.params["conv"]}, jnp.float32(x)), np.float64)
    np.testing.assert_allclose(state.batch_stats["norm"]["mean"], maps.mean((0, 1, 2)), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(state.batch_stats["norm"]["var"], maps.var((0, 1, 2)), rtol=1e-4)


def test_a_normalisation_that_nobody_knows_keeps_its_averages_and_is_told(small, tmp_path, capsys):
    states = []
    for count in (0, 3):
        run = small(steps=2, precise_batch_norm_steps=count)
        train(run, tmp_path / str(count), ONE, data=DIGITS, model=Net("own"))
        states.append(restore(tmp_path / str(count), model=Net("own")).state.batch_stats)
    assert np.array_equal(states[0]["norm"]["size"], states[1]["norm"]["size"])
    assert "1 of 1 batch statistics, such as ['norm']['size'], stay moving averages" in capsys.readouterr().err


def test_an_optimizer_of_ones_own_is_no_mistake(small, tmp_path):
    result = train(small(steps=2), tmp_path, ONE, data=DIGITS, model=Net(), optimizer=optax.adam(1e-3))
    assert result["steps"] == read_metrics(tmp_path, "train")[-1]["step"] == 2


def test_the_channels_of_a_prepared_set_are_known_when_it_is_opened():
    grey = Experiment(name="x", data=Data(source="tfds:mnist", size=32, std=(78.6,)))
    with pytest.raises(BadInput, match="has 3 values, but the images have 1 channels"):
        open_images(replace(grey, data=replace(grey.data, std=(1.0, 2.0, 3.0))), ONE, None, DIGITS)
