"""One's own network, images, optimizer and callback go through the one loop: the same folder, and exact resume."""

import json
import re
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import resjax
from resjax import BadInput, BasicBlock, Bottleneck, Data, Interrupted, cifar_resnet, load_data, read_metrics, train
from resjax.experiment import Own
from resjax.experiment_files import find
from resjax.paper.run_curves import curves_in
from resjax.training import restore
from resjax.training.classifiers import recorded
from resjax.training.python_objects import called, changed_objects, provenance_of, with_objects

ONE = jax.devices()[:1]


class Wide(nn.Module):
    """A network of one's own, with dropout, and with blocks as they come."""

    width: int = 8

    @nn.compact
    def __call__(self, x, *, train=False):
        x = BasicBlock(filters=self.width)(x, train=train)
        x = Bottleneck(filters=2, stride=2)(x, train=train).mean((1, 2))
        return nn.Dense(10)(nn.Dropout(0.2, deterministic=not train)(x))


class Linear(nn.Module):
    """One fully connected layer."""

    @nn.compact
    def __call__(self, x, *, train=False):
        return nn.Dense(10, kernel_init=nn.initializers.zeros)(x.reshape(len(x), -1) / 64)


@pytest.fixture(scope="module")
def digits():
    data = load_data(Data())
    return resjax.dataset((data.train.pixels[..., 0], data.train.labels), tuple(data.test), data.classes)


@pytest.fixture(scope="module")
def parts(digits):
    return {"model": Wide(), "data": digits, "optimizer": optax.adamw(optax.cosine_decay_schedule(3e-3, 6))}


def norm(line, network):
    return {"norm": sum(float(jnp.square(w).sum()) for w in jax.tree.leaves(network.variables["params"]))}


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory, parts, digits):
    """Four runs: everything of one's own, a narrow ResNet, and twice a linear network by the experiment's optimizer."""
    root = tmp_path_factory.mktemp("runs")
    train(small(), root / "a", ONE, **parts, callback=norm)
    train(small(steps=2), root / "b", ONE, model=cifar_resnet(8, filters=4, ghost_batch_size=None), data=digits,
          optimizer=optax.sgd(0.1))
    for seed in (0, 1):
        train(small(steps=2, seed=seed), root / f"linear{seed}", ONE, model=Linear())
    return root


def test_a_run_with_everything_of_ones_own_is_cut_off_and_goes_on(small, tmp_path, folder, parts):
    """The same bits and the same log as without a stop: of the network the dropout, of the optimizer the schedule."""
    def cut(line, network):
        if line["step"] == 4:
            raise Interrupted("enough", 2)
        return norm(line, network)

    with pytest.raises(Interrupted):
        train(small(), tmp_path, ONE, **parts, callback=cut)
    assert int(restore(tmp_path, model=Wide()).state.step) == 2
    resumed = train(small(), tmp_path, ONE, **parts, callback=norm)
    assert resumed["state_digest"] == json.loads((folder / "a" / "result.json").read_text())["state_digest"]
    whole, cut_off = ([line for line in read_metrics(place) if line["kind"] != "compile"]
                      for place in (folder / "a", tmp_path))
    for lines in (whole, cut_off):
        assert [(line["kind"], line["step"]) for line in lines] == [
            (kind, step) for step in (2, 4, 6) for kind in ("train", "own")] + [("test", 6)]
    assert [line["norm"] for line in whole[1:-1:2]] == [line["norm"] for line in cut_off[1:-1:2]]
    cosine = [1.5e-3 * (1 + np.cos(np.pi * (step - 1) / 6)) for step in (2, 4, 6)]  # of each line's last update
    np.testing.assert_allclose([line["learning_rate"] for line in whole[:-1:2]], cosine, rtol=1e-5)


def test_what_was_given_is_told_and_asked_for_again(small, folder, parts, digits):
    given = json.loads((folder / "a" / "experiment.json").read_text())["given"]
    assert given == {"model": "Wide()",
                     "optimizer": "ScaleByAdam, ScaleBySchedule: given in Python; its values are not stored"}
    for changed, message in (({"model": Wide(width=4)}, r"its model is Wide\(\), but you passed Wide\(width=4\)"),
                             ({"model": None}, "but you passed none; pass the same model= as before"),
                             ({"optimizer": None}, "ScaleByAdam.* pass the same optimizer= as before"),
                             ({"data": replace(digits, train=digits.test)}, "training images: 1437 -> 360"),
                             ({"data": None}, "data.source: 'arrays' -> 'digits'")):
        with pytest.raises(BadInput, match=message):
            train(small(), folder / "a", ONE, **parts | changed)
    with pytest.raises(BadInput, match=r"passed in Python \(Wide\(\)\); pass it again, as in resjax.restore"):
        resjax.load(folder / "a")


def smoothed(amount):
    return lambda logits, labels: optax.softmax_cross_entropy(
        logits, optax.smooth_labels(jax.nn.one_hot(labels, 10), amount))


def scaled(weights):
    return jax.jit(lambda logits, labels: (logits * weights).sum(1))


class Scaled(nn.Module):
    """A layer whose initialiser its fields do not show."""

    scale = 1.0

    @nn.compact
    def __call__(self, x, *, train=False):
        return nn.Dense(10, kernel_init=nn.initializers.constant(self.scale))(x.reshape(len(x), -1))


@pytest.mark.parametrize(("part", "object_of"), [
    ("loss", smoothed), ("loss", lambda value: scaled(jnp.arange(10.0).at[3].set(value))),
    ("augment", lambda value: lambda key, x, y: (x * value, y)),
    ("optimizer", optax.sgd), ("optimizer", lambda value: lambda run: optax.chain(
        optax.add_noise(value, 0.5, key=run.seed), optax.sgd(0.1))),
    ("model", lambda value: type("Scaled", (Scaled,), {"scale": value})())])
def test_objects_with_one_name_are_told_apart_by_what_they_compute(part, object_of, small, tmp_path):
    def provenance(value, seed=0):
        return provenance_of(small(seed=seed, own=Own(**{part: object_of(value)})), (8, 8, 1), 10)

    first, other = provenance(0.1), provenance(0.2)
    assert first == provenance(0.1, seed=1)
    assert first["given"] == other["given"]
    assert first["programs"] != other["programs"]
    (tmp_path / "experiment.json").write_text(json.dumps(first))
    assert changed_objects(tmp_path, first) == ""
    told = changed_objects(tmp_path, other)
    assert told.startswith(f"{part} (jax {jax.__version__}) has changed since this run began;")
    (tmp_path / "experiment.json").write_text(json.dumps(first | {"programs": {f"{part} (jax 0.1)": "0"}}))
    assert changed_objects(tmp_path, other) == ""  # by another JAX, which may trace another program


def test_functions_are_described_without_addresses_and_numbers_of_cells(tmp_path):
    assert called(partial(scaled, norm, 2, then=norm)) == (
        "partial(test_own.py:scaled, test_own.py:norm, 2, then=test_own.py:norm)")
    names = {}
    for file in ("<ipython-input-3-5c2f>", str(tmp_path / "ipykernel_71" / "29.py"), "<stdin>"):
        exec(compile("def loss(logits, labels): ...", file, "exec"), names)
        assert called(names["loss"]) == "loss"


def test_a_resnet_of_ones_own_width_is_read_back_without_being_given(folder, digits, tmp_path):
    network = resjax.load(folder / "b")
    assert network.model == cifar_resnet(8, filters=4, ghost_batch_size=None)
    assert network.title == repr(network.model) == (
        "ResNet(blocks=(1, 1, 1), filters=4, classes=10, ghost_batch_size=None)")
    result = json.loads((folder / "b" / "result.json").read_text())
    assert resjax.evaluate(network, digits.test).top1_error == result["test_top1_error"]
    with pytest.raises(BadInput, match="this run got its model and optimizer in Python"):
        find(str(folder / "b" / "experiment.json"))
    with pytest.raises(BadInput, match="your own network, which --to torchvision does not support"):
        resjax.export(network, "torchvision", tmp_path / "out")
    assert resjax.embed(network, digits.test.pixels[:2]).shape == (2, 16)


def test_ones_own_optimizer_makes_the_steps_of_optax(small, tmp_path, digits):
    """Two steps of Adam, against optax on gradients in closed form: of a linear network and whole sets as batches."""
    some = resjax.dataset((digits.train.pixels[:32], digits.train.labels[:32]), classes=digits.classes)
    run = small(steps=2, data=Data(pad=0, flip=False))
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.01)
    result = train(run, tmp_path, ONE, model=Linear(), data=some, optimizer=optimizer)
    assert "test_top1_error" not in result  # no test images
    found = restore(tmp_path, model=Linear()).state.params["Dense_0"]["kernel"]
    x = (np.float64(some.train.pixels) - np.float64(some.train.pixels).mean(0)).reshape(32, -1) / 64
    kernel, bias, adam = np.zeros((64, 10)), np.zeros(10), optax.adam(0.01)
    state = adam.init((kernel, bias))
    for _ in range(2):
        p = jax.nn.softmax(x @ kernel + bias) - np.eye(10)[some.train.labels]
        updates, state = adam.update((jnp.asarray(x.T @ p / 32), p.mean(0)), state)
        kernel, bias = kernel + updates[0], bias + updates[1]
    np.testing.assert_allclose(found, kernel, atol=2e-4)
    assert read_metrics(tmp_path, "train")[0]["learning_rate"] == pytest.approx(0.01)


@pytest.mark.parametrize(("train_images", "message"), [
    ((np.zeros((4, 8, 8)), np.zeros(4, int)), "train: pixels are float64"),
    ((np.zeros((4, 8), np.uint8), np.zeros(4, int)), r"train: pixels are uint8 \[4, 8\]"),
    ((np.zeros((4, 8, 8), np.uint8), np.zeros(3, int)), r"train: labels are int64 \[3\]; they must be integers \[4\]"),
    ((np.zeros((4, 8, 8), np.uint8), np.zeros(4)), "train: labels are float64"),
    ((np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 2, 3])), "image 2 of the train split has label 2")])
def test_arrays_of_another_form_are_named(train_images, message):
    with pytest.raises(BadInput, match=message):
        resjax.dataset(train_images, classes=("a", "b"))


def test_runs_beside_each_other(folder):
    records = resjax.runs(folder)
    assert [record["run"] for record in records] == ["a", "b", "linear0", "linear1"]
    assert [record["seed"] for record in records] == [0, 0, 0, 1]
    assert [record["network"] for record in records][2:] == ["Linear()", "Linear()"]
    assert [record["optimizer.learning_rate"] for record in records] == [None, None, 0.05, 0.05]
    assert [record["optimizer"] is None for record in records] == [False, False, True, True]
    assert "batch_size" not in records[0]
    assert [record["step"] for record in records] == [6, 2, 2, 2]
    assert records[2]["test_top1_error"] == json.loads(
        (folder / "linear0" / "result.json").read_text())["test_top1_error"]
    assert len({tuple(record) for record in records}) == 1  # the same keys: a table
    with pytest.raises(BadInput, match="no runs found"):
        resjax.runs(folder / "a" / "checkpoints")


def test_what_is_printed_fits_a_screen(small, folder, digits):
    result = train(small(steps=2), folder / "linear0", ONE, model=Linear())
    trained = restore(folder / "b")
    shown = [repr(value) for value in (small(), result, trained, trained.state, trained.network, digits, digits.test,
                                       trained.network.classifier, cifar_resnet(20, filters=32))]
    assert max(map(len, shown)) < 400
    assert not [text for text in shown if "array(" in text or "\n" in text]
    assert shown[0].startswith("Experiment(name='small', architecture=Architecture(depth=8, ghost_batch_size=16), ")
    assert shown[-1] == "ResNet(blocks=(3, 3, 3), filters=32, classes=10)"


def test_a_run_without_test_images_is_told_and_exported(small, tmp_path, digits, monkeypatch):
    result = train(small(steps=1), tmp_path / "run", ONE, data=resjax.dataset(digits.train))
    assert repr(result).startswith("Result('small', seed 0: 1 steps, ")
    monkeypatch.setenv("HOME", str(tmp_path))
    card = recorded(Path("~/run"))
    assert (card.source, card.errors) == ("arrays", ())


def test_a_network_of_ones_own_is_named_by_its_fields(small):
    assert small(own=resjax.Own(model=Wide(width=4))).title == "Wide(width=4)"


def test_an_optimizer_with_a_random_key_is_saved_and_restored(small, tmp_path, digits):
    noisy = {"optimizer": optax.chain(optax.add_noise(1e-3, 0.5, jax.random.key(3)), optax.sgd(0.1)), "data": digits}
    whole = train(small(), tmp_path / "whole", ONE, **noisy)

    def stop(line, network):
        raise KeyboardInterrupt

    with pytest.raises((Interrupted, KeyboardInterrupt)):
        train(small(), tmp_path / "cut", ONE, **noisy, callback=stop)
    assert train(small(), tmp_path / "cut", ONE, **noisy)["state_digest"] == whole["state_digest"]


def test_a_callback_can_stop_its_run_and_log_what_is_no_number(small, tmp_path, digits):
    """As by Ctrl-C: the step of the callback is saved. In the log, which is JSON to the letter, NaN is null."""
    def stop(line, network):
        if line["loss"] < 100:  # always, also if it were called once more
            signal.raise_signal(signal.SIGINT)
        return {"good": 1.0, "bad": float("nan"), "worse": -float("inf")}

    with pytest.raises(Interrupted, match="saved step 2 of 6"):
        train(small(), tmp_path, ONE, model=Linear(), data=digits, callback=stop)
    assert int(restore(tmp_path, model=Linear()).state.step) == 2
    train(small(), tmp_path, ONE, model=Linear(), data=digits, callback=lambda line, network: {"bad": float("nan")})
    own = read_metrics(tmp_path, "own")
    assert own == [{"step": 2, "kind": "own", "good": 1.0, "bad": None, "worse": None},
                   *({"step": step, "kind": "own", "bad": None} for step in (4, 6))]
    text = (tmp_path / "metrics.jsonl").read_text()
    assert not {"NaN", "Infinity"} & set(re.findall(r"\w+", text))
    assert list(curves_in(own)) == ["good"]


def test_validation_images_that_are_held_out_already_are_not_held_out_again(small, tmp_path):
    data = load_data(Data(validation_images=300))
    run = small(steps=1, data=Data(validation_images=300))
    _, held = with_objects(run, tmp_path, data, {})
    assert [len(part.labels) for part in (held.train, held.validation, held.test)] == [1137, 300, 360]
    with pytest.raises(BadInput, match=r"data has 300 validation images, but data\.validation-images is 0; they must"):
        train(small(steps=1), tmp_path / "run", ONE, data=data)


@pytest.mark.parametrize("classes", [np.array(["a", "b"]), [7, 8], list(np.array([7, 8]))])
def test_names_of_classes_become_strings(classes):
    data = resjax.dataset((np.zeros((2, 8, 8), np.uint8), np.array([0, 1])), classes=classes)
    assert data.classes == tuple(map(str, classes))
    assert all(type(name) is str for name in data.classes)


def test_the_home_folder_can_be_written_as_a_tilde(small, tmp_path, digits, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train(small(steps=1), "~/runs/a", ONE, model=Linear(), data=digits)
    assert (tmp_path / "runs" / "a" / "result.json").is_file()
    assert int(restore("~/runs/a", model=Linear()).state.step) == 1
    assert [line["kind"] for line in read_metrics("~/runs/a")][-1] == "test"
    assert not (tmp_path / "~").exists()
