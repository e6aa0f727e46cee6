"""Alternating training: what moves in each phase, whose proposals are learnt from, and the same bits after a stop."""

import json
import signal
from dataclasses import replace
from functools import cache, partial

import jax
import numpy as np
import optax
import pytest
from conftest import same_trees
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from resjax.detection import (
    Detection,
    Detector,
    Sampling,
    Scenery,
    load_detector,
    restore_detector,
    scenes,
    train_detector,
)
from resjax.detection.evaluate import TrainedDetector
from resjax.detection.images import Batches, open_annotated
from resjax.detection.initialize import Weights, mean_colour, start_from
from resjax.detection.networks import FasterRCNN
from resjax.detection.phases import ALTERNATING, PROPOSER, Lesson, phase_at, variables_of
from resjax.detection.step import Losses, draw_onto, optimizer_of, train_step
from resjax.detection.stored import write_detector
from resjax.detection.train import RunningLosses, remark_on_decay
from resjax.experiment import Optimizer
from resjax.system.errors import BadInput, Interrupted
from resjax.training import loop
from resjax.training.log import Log, read_metrics
from resjax.weights.card import Card

RUN = Detection(
    name="turns", training="alternating", initialize_from="weights",
    detector=Detector(backbone="tiny", anchor_sizes=(24.0,), anchor_ratios=(1.0,), rpn_channels=8, pooling="align"),
    sampling=Sampling(anchors=16, smallest=4.0, train_candidates=30, train_proposals=10, test_candidates=30,
                      test_proposals=8, rois=8, detections=10),
    data=Scenery(source="scenes", shorter_side=64, longer_side=64, flip=False),
    optimizer=Optimizer(learning_rate=0.001, decay_steps=(1,)), steps=8, batch_size=1, log_steps=1, evaluate_steps=8)
PLACE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
MEAN = np.full((1, 1, 3), 90, np.float32)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(scenes, "SCENES", {"train": 3, "test": 2})
    monkeypatch.setattr("resjax.detection.train.initial_weights", lambda run, images: Weights(
        mean_colour(images), {}, {}))  # those drawn, as if they had been loaded


@pytest.fixture(scope="module")
def first():
    return jax.device_get(draw_onto(PLACE, RUN, 10, MEAN).replace(key=None))


def batch():
    images = open_annotated(RUN.data, train=True)
    return next(Batches(images, RUN.data, 1, 0, MEAN.reshape(3)).steps(range(1)))


@cache
def update_of(phase):
    """Compile the step of a phase, once for all tests."""
    return jax.jit(partial(train_step, FasterRCNN(RUN.detector, 10), optimizer_of(RUN, phase), RUN))


def moved(before, after):
    """Name the parts of the parameters that have changed."""
    return {name for name in before if any(
        not np.array_equal(*pair) for pair in zip(*(jax.tree.leaves(tree[name]) for tree in (before, after)),
                                                  strict=True))}


def test_phases_are_quarters():
    phases = [ALTERNATING.index(phase_at(RUN, step)) for step in range(8)]
    assert phases == [0, 0, 1, 1, 2, 2, 3, 3]
    assert phase_at(replace(RUN, training="joint"), 7).moves == ("shared", "rpn", "regional", "scores", "boxes")


def test_each_phase_moves_its_parts_by_the_proposals_of_its_network(first):
    """Ren et al. 2015, 3.2: RPN; another net, by its proposals; RPN on the fixed layers of that; its head."""
    example, key, sources = batch(), jax.random.key(0), []
    for number, phase in enumerate(ALTERNATING):
        state = first.replace(step=np.int32(2 * number), key=key)
        update, lesson = update_of(phase), Lesson(example, phase)
        after, losses = update(state, lesson)
        assert moved(first.params, after.params) == set(phase.moves)
        assert {name for name, value in losses._asdict().items() if "_" in name and value != 0} == {
            *phase.losses, "learning_rate", "without_regions" if "anchor_class" in phase.losses else "without_anchors"}
        if "region_class" in phase.losses:
            turned = jax.tree.map(lambda leaf: -leaf, first.params["rpn"])  # proposes what was worst
            for name, part in (("rpn", turned), (PROPOSER, {**first.params[PROPOSER], "rpn": turned})):
                _, found = update(state.replace(params={**first.params, name: part}), lesson)
                sources += [name] * (float(found.region_class) != float(losses.region_class))
    assert sources == [PROPOSER, "rpn"]


def test_the_optimiser_begins_anew_with_each_phase(first):
    lesson = Lesson(batch(), ALTERNATING[2])
    state = first.replace(step=np.int32(4), key=jax.random.key(0))

    def update(state):
        return update_of(ALTERNATING[2])(jax.device_get(state.replace(key=None)).replace(key=state.key), lesson)[0]

    stale = jax.tree.map(lambda leaf: np.full_like(leaf, 7), state.opt_state)
    fresh, old = update(state), update(state.replace(opt_state=stale))
    assert moved(fresh.params, old.params) == set()
    rates = [float(optax.tree_utils.tree_get(each.opt_state, "rate")) for each in (fresh, update(fresh))]
    assert rates == pytest.approx([0.001, 0.0001])  # decay_steps count from the beginning of the phase
    later = state.replace(step=np.int32(5))
    assert moved(update(later).params, update(later.replace(opt_state=stale)).params) == {"rpn"}


def test_both_networks_start_from_the_same_weights(first):
    shared = jax.tree.map(lambda leaf: leaf + 1, first.params["shared"])
    state = jax.device_put(first)
    started = start_from(Weights(MEAN, {"shared": shared}, {}), state).params
    for network in (started, started[PROPOSER]):
        assert moved({"shared": shared}, {"shared": network["shared"]}) == set()
    assert moved(first.params, started) == {"shared", PROPOSER}


def test_only_what_a_phase_measures_is_averaged_and_logged(tmp_path):
    """Over images that have it; a line with two phases has all. Other lines are read and shown without an error."""
    proposals = Losses(2.0, 1.0, 3.0, 4.0, 50.0, 1, 0.1).only(ALTERNATING[0].losses)
    regions = Losses(2.0, 1.0, 3.0, 4.0, 50.0, 1, 0.1).only(ALTERNATING[1].losses)
    first = RunningLosses().plus(proposals, 1.0, 0.0)
    both = first.plus(regions, 1.0, 0.0)
    assert first.means() == {"loss": 3.0, "anchor_class": 2.0, "anchor_box": 1.0}
    assert both.means() == {"loss": 5.0, "anchor_class": 2.0, "anchor_box": 1.0, "region_class": 3.0,
                            "region_box": 4.0, "error": 50.0}
    log = Log(tmp_path, "turns", 8, 1)
    (tmp_path / "metrics.jsonl").write_text(json.dumps(first.line(1, 0.1)) + "\n")
    (line,) = read_metrics(tmp_path, "train")
    assert "error" not in " ".join(log.parts(line))
    assert "loss 3.0000" in log.parts(line)


def test_a_run_that_stops_in_a_phase_comes_to_the_same_bits(tmp_path, monkeypatch):
    devices = jax.devices()[:1]
    whole = train_detector(RUN, tmp_path / "whole", devices)
    asked = iter([0, 0, int(signal.SIGTERM), *[0] * 2, int(signal.SIGTERM)])  # within a phase, and at the end of one
    monkeypatch.setattr(loop, "requested", lambda: next(asked, 0))
    for step in (3, 6):
        with pytest.raises(Interrupted, match=f"saved step {step} of 8"):
            train_detector(RUN, tmp_path / "stopped", devices)
        monkeypatch.setattr("resjax.detection.train.initial_weights", None)  # resuming needs no weights
    again = train_detector(RUN, tmp_path / "stopped", devices)
    assert again["state_digest"] == whole["state_digest"]
    trained = restore_detector(tmp_path / "whole")
    assert whole["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"]))


def test_an_export_leaves_out_the_network_that_only_training_uses(first, tmp_path):
    classes, used = tuple("abcdefghij"), variables_of(first)
    assert first.params.keys() - used["params"].keys() == {PROPOSER}
    trained = TrainedDetector(RUN, classes, FasterRCNN(RUN.detector, 10), used, MEAN)
    copy = write_detector(trained, tmp_path / "copy", Card())
    count = sum(leaf.size for leaf in jax.tree.leaves(used["params"]))
    assert f"{count:,} parameters" in (copy / "README.md").read_text()
    assert same_trees(load_detector(copy).variables, used, 0)
    before = {"/".join(path): leaf for path, leaf in flatten_dict(first.variables).items()}  # as it used to be
    save_file(before | {"mean": MEAN}, copy / "detector.safetensors")
    assert same_trees(load_detector(copy).variables, used, 0)


def test_what_alternating_training_needs():
    with pytest.raises(BadInput, match="steps is 6; for alternating training, it must be a multiple of 4"):
        replace(RUN, steps=6)
    with pytest.raises(BadInput, match=r"alternating training needs detector\.frozen-batch-norm"):
        replace(RUN, detector=replace(RUN.detector, frozen_batch_norm=False))


@pytest.mark.parametrize("rule", [{"plateau_steps": 100}, {"warmup_steps": 1, "warmup_error": 50.0}])
def test_rules_that_follow_the_error_need_one_in_every_phase(rule):
    """Phases that train only proposals have none: of a constant 0, each is a plateau, and a warm-up ends at once."""
    optimizer = replace(RUN.optimizer, **rule)
    assert replace(RUN, training="joint", optimizer=optimizer).optimizer == optimizer
    with pytest.raises(BadInput, match=r"depend on the error of regions; they do not work with alternating training"):
        replace(RUN, optimizer=optimizer)


def test_a_learning_rate_that_drops_in_no_phase_is_remarked():
    def said(**changes):
        return remark_on_decay(replace(RUN, optimizer=replace(RUN.optimizer, **changes)))

    assert said(decay_steps=(2, 6)) == ("the learning rate never drops: optimizer.decay-steps start at 2, but each of "
                                        "the four phases has 2 steps")
    assert said(decay_steps=(1, 6)) == said(decay_steps=()) == said(schedule="cosine", decay_steps=(2,)) == ""
    assert remark_on_decay(replace(RUN, training="joint")) == ""
