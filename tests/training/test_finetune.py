"""Fine-tuning: from a run on some digits to a run on others."""

import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import same_trees
from networks import random_network

from resjax import (
    Architecture,
    BadInput,
    Data,
    Experiment,
    Optimizer,
    Photographs,
    export,
    load,
    restore,
    train,
)
from resjax.training import build_optimizer


@pytest.fixture(autouse=True)
def alone(one_device):
    """Train on one device, which is faster on a few cores."""


def digits(halves, half, **changes):
    run = Experiment(name=half, architecture=Architecture(depth=8, ghost_batch_size=16), steps=20, batch_size=32,
                     optimizer=Optimizer(learning_rate=0.02, decay_steps=(15,)), log_steps=5, checkpoint_steps=10,
                     precise_batch_norm_steps=5, data=Data(source=f"folder:{halves}/{half}", pad=1, flip=False))
    return replace(run, **changes)


@pytest.fixture(scope="module")
def low(halves, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "low"
    train(digits(halves, "low", steps=100), workdir, jax.devices()[:1])
    return workdir


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_fine_tuning_beats_training_from_scratch_in_the_same_few_steps(halves, low, tmp_path, capsys):
    tuned = train(digits(halves, "high", initialize_from=str(low)), tmp_path / "tuned")
    assert "starts from low, step 100; the last layer is initialised at random" in capsys.readouterr().err
    scratch = train(digits(halves, "high"), tmp_path / "scratch")
    assert tuned["test_top1_error"] < 0.8 * scratch["test_top1_error"]
    assert np.array_equal(restore(tmp_path / "tuned").state.mean, restore(low).state.mean)


def test_an_optimizer_that_stores_parameters_starts_from_the_pretrained_ones(halves, low, tmp_path):
    """Schedule-free SGD mixes the network with its own copy: at a vanishing rate, nothing moves if both are equal."""
    run = digits(halves, "low", initialize_from=str(low), steps=1, precise_batch_norm_steps=1)
    train(run, tmp_path, optimizer=optax.contrib.schedule_free_sgd(1e-9))
    assert same_trees(restore(tmp_path).state.params, restore(low).state.params, 1e-6)


def test_the_last_layer_alone(halves, low, tmp_path):
    run = digits(halves, "high", initialize_from=str(low), steps=5,
                 optimizer=Optimizer(learning_rate=0.02, backbone_rate=0.0, decay_steps=()))
    run = replace(run, architecture=replace(run.architecture, frozen_batch_norm=True))
    train(run, tmp_path / "run")
    before, after = restore(low).state, restore(tmp_path / "run").state
    assert same(before.batch_stats, after.batch_stats)
    body, head = ({name: leaves for name, leaves in after.params.items() if (name == "fc") == last}
                  for last in (False, True))
    assert same(body, {name: before.params[name] for name in body})
    assert not same(head, {"fc": before.params["fc"]})


def test_the_same_classes_keep_the_last_layer(halves, low, tmp_path, capsys):
    train(digits(halves, "low", initialize_from=str(low), steps=1, precise_batch_norm_steps=0,
                 optimizer=Optimizer(learning_rate=1e-9)), tmp_path / "run")
    assert "starts from low, step 100\n" in capsys.readouterr().err
    before, after = restore(low).state.params, restore(tmp_path / "run").state.params
    assert np.allclose(before["fc"]["kernel"], after["fc"]["kernel"], atol=1e-6)


def test_a_run_goes_on_without_what_it_started_from(halves, low, tmp_path):
    start = shutil.copytree(low, tmp_path / "start")
    run = digits(halves, "high", initialize_from=str(start))
    whole = train(run, tmp_path / "run")
    shutil.rmtree(start)
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "20")
    assert train(run, tmp_path / "run")["state_digest"] == whole["state_digest"]


def test_damaged_checkpoints_send_a_run_back_to_its_start(halves, low, tmp_path):
    run = digits(halves, "high", initialize_from=str(low), steps=4, checkpoint_steps=4)
    whole = train(run, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "checkpoints" / "4" / "digests.json").unlink()
    with pytest.warns(UserWarning, match="is damaged"):
        assert train(run, tmp_path / "run")["state_digest"] == whole["state_digest"]


def test_exported_weights_are_a_start_as_good_as_the_run_itself(halves, low, tmp_path):
    out = export(load(low), "akamaster", tmp_path / "out")
    digests = {train(digits(halves, "high", initialize_from=str(start), steps=2), tmp_path / start.name)["state_digest"]
               for start in (low, out)}
    assert len(digests) == 1


def test_wrong_starts_are_refused_before_anything_is_trained(halves, tmp_path):
    grey = random_network(depth=8)
    out = export(grey, "akamaster", tmp_path / "out")
    for start, message in ((tmp_path / "none", "none: not found"), (tmp_path, "contains neither a run")):
        with pytest.raises(BadInput, match=message):
            train(digits(halves, "high", initialize_from=str(start)), tmp_path / "run")
    for depth, std, message in (
            (14, (), "initialize-from: .* contains ResNet A-8 in CIFAR form .* high needs ResNet A-14 in CIFAR form"),
            (8, (1.0, 2.0, 3.0), r"with std \(\), but .* with data.std \(1.0, 2.0, 3.0\)")):
        run = digits(halves, "high", initialize_from=str(out),
                     architecture=Architecture(ghost_batch_size=16, depth=depth))
        run = replace(run, data=replace(run.data, std=std))
        with pytest.raises(BadInput, match=message):
            train(run, tmp_path / "run")
    with pytest.raises(BadInput, match="random needs images with 3 channels, but these have 1"):
        train(digits(halves, "high", initialize_from=str(out), data=Data(source="digits")), tmp_path / "grey")
    assert not (tmp_path / "grey" / "experiment.json").exists()
    with pytest.raises(BadInput, match="give the weights with --initialize-from"):
        digits(halves, "high", architecture=Architecture(depth=8, ghost_batch_size=16, frozen_batch_norm=True))
    with pytest.raises(BadInput, match=r"backbone-rate is -1\.0"):
        Optimizer(backbone_rate=-1.0)


def test_the_rate_of_the_body_is_scaled_and_that_of_the_last_layer_is_not():
    params = {"conv1": {"kernel": jnp.ones(3)}, "fc": {"kernel": jnp.ones(3), "bias": jnp.ones(1)}}
    gradients = jax.tree.map(lambda x: 2 * x, params)

    def update(rate):
        optimizer = build_optimizer(Optimizer(learning_rate=0.5, backbone_rate=rate, decay_steps=()), 1)
        return optimizer.update(gradients, optimizer.init(params), params, error=jnp.float32(50))[0]

    whole, part = update(1.0), update(0.25)
    assert np.allclose(part["conv1"]["kernel"], 0.25 * whole["conv1"]["kernel"])
    assert same(part["fc"], whole["fc"])


def test_imported_weights_are_tuned_on_photographs(photographs, tmp_path):
    """With the colours' deviations that they were trained with, and their own statistics kept."""
    std = (58.395, 57.12, 57.375)
    out = export(random_network("imagenet", 18, "B", "abc", std=std, size=96), "torchvision", tmp_path / "out")
    data = Photographs(source=f"folder:{photographs}/folders", size=96, shorter_side=(100, 130), test_shorter_side=100,
                       workers=0, std=std)
    architecture = Architecture(family="imagenet", depth=18, shortcut="B", ghost_batch_size=8, frozen_batch_norm=True)
    run = Experiment(name="tuned", architecture=architecture, data=data, initialize_from=str(out), steps=2,
                     batch_size=16, optimizer=Optimizer(learning_rate=1e-4, decay_steps=()))
    train(run, tmp_path / "run")
    network, tuned = load(out), load(tmp_path / "run")
    assert same(tuned.variables["batch_stats"], network.variables["batch_stats"])
    assert np.array_equal(tuned.mean, network.mean)
    assert tuned.variables["params"]["fc"]["bias"].shape == (2,)
    assert np.allclose(tuned.variables["params"]["conv1"]["kernel"], network.variables["params"]["conv1"]["kernel"],
                       atol=1e-2)
