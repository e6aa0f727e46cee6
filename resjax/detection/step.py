"""A detector's losses and initial state, and a pure function that updates its parameters."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from resjax.data import normalize
from resjax.detection.boxes import anchor_grid, anchor_shapes
from resjax.detection.config import Detection, Detector, Sampling
from resjax.detection.images import AnnotatedBatch
from resjax.detection.networks import Choose, FasterRCNN, Outputs
from resjax.detection.phases import PROPOSER, Lesson, Phase, networks_of, phases_of
from resjax.detection.proposals import propose
from resjax.detection.targets import (
    LOSSES,
    AnchorTargets,
    RegionTargets,
    anchor_targets,
    box_loss,
    class_loss,
    objectness_loss,
    region_targets,
)
from resjax.training.learning_rate import learning_rate
from resjax.training.optimizer import build_optimizer
from resjax.training.step import TrainState

ANCHOR_BETA = 1 / 9  # where smooth L1 becomes linear for anchors, as in the authors' code; for regions, at 1


class Losses(NamedTuple):
    """The four losses and the regions' error in percent, summed over `images`, and the learning rate.

    `without_anchors` and `without_regions` are the numbers of images whose anchors or regions had no losses.
    """

    anchor_class: jax.Array
    anchor_box: jax.Array
    region_class: jax.Array
    region_box: jax.Array
    error: jax.Array
    images: jax.Array
    learning_rate: jax.Array
    without_anchors: jax.Array | int = 0
    without_regions: jax.Array | int = 0

    @property
    def loss(self) -> jax.Array:
        """The sum of the four losses, with equal weights."""
        return self.anchor_class + self.anchor_box + self.region_class + self.region_box

    def only(self, names: Sequence[str]) -> "Losses":
        """Set the losses not in `names` to zero, so that they are not computed. Without their loss, regions have no
        error.
        """
        others = {name for name in LOSSES if name not in names}
        if "region_class" in others:
            others.add("error")
        return self._replace(**dict.fromkeys(others, jnp.float32(0)), without_anchors=int("anchor_class" in others),
                             without_regions=int("region_class" in others))


class Proposed(NamedTuple):
    """Proposals `[batch, count, 4]`, and which places are filled."""

    boxes: jax.Array
    valid: jax.Array


def anchors_of(detector: Detector, height: int, width: int) -> jax.Array:
    """Return the anchors of images of a padded size, `[anchors, 4]`."""
    shapes = anchor_shapes(detector.anchor_sizes, detector.anchor_ratios)
    return jnp.asarray(anchor_grid(height // detector.stride, width // detector.stride, detector.stride, shapes))


def losses_of(outputs: Outputs, anchors: AnchorTargets, rules: Sampling) -> Losses:
    """Compute the losses of each image, averaged over the batch.

    As in the authors' code, box losses are divided by the same number of examples as class losses.
    """
    regions: RegionTargets = outputs.regions
    images = len(outputs.objectness)
    drawn, filled = anchors.sampled.astype(jnp.float32), regions.valid.astype(jnp.float32)
    sampled, valid = (jnp.maximum(mask.sum(1, keepdims=True), 1) * images for mask in (drawn, filled))
    named = jnp.maximum(regions.labels - 1, 0)
    deltas = jnp.take_along_axis(outputs.deltas, named[..., None, None], 2)[:, :, 0]
    wrong = (outputs.logits.argmax(-1) != regions.labels) * filled
    return Losses(
        objectness_loss(outputs.objectness, anchors.positive, drawn / sampled),
        box_loss(outputs.anchor_deltas, anchors.deltas, anchors.positive / sampled, ANCHOR_BETA),
        class_loss(outputs.logits, regions.labels, filled / valid),
        box_loss(deltas, regions.deltas, filled * (regions.labels > 0) / valid, 1.0),
        100 * wrong.sum() / jnp.maximum(filled.sum(), 1), jnp.int32(1), jnp.float32(0))


def train_step(model: FasterRCNN, optimizer: optax.GradientTransformationExtraArgs, run: Detection, state: TrainState,
               lesson: Lesson) -> tuple[TrainState, Losses]:
    """Make one gradient step on the active losses, with equal weights.

    With all four losses active, this is "approximate joint training" (Ren et al. 2016).
    """
    batch, phase = lesson.batch, lesson.phase
    images = normalize(jnp.asarray(batch.images), state.mean, run.data.std)
    key = jax.random.fold_in(state.key, state.step)
    targets, choose = examples(run, key, batch)

    def loss(params: Any) -> tuple[jax.Array, tuple[Losses, Any]]:
        learning, proposing = ({"params": each, "batch_stats": state.batch_stats}
                               for each in networks_of(params, phase))
        others: Any = None
        if learning["params"] is not proposing["params"]:
            others = choose(*lax.stop_gradient(model.apply(proposing, images, method="propose")))
        outputs, updated = model.apply(
            learning, images, batch.sizes, choose if others is None else lambda *_: others, train=True,
            mutable=["batch_stats"], rngs={"dropout": jax.random.fold_in(key, 2)})
        losses = losses_of(outputs, targets, run.sampling).only(phase.losses)
        return losses.loss, (losses, updated.get("batch_stats", {}))

    with jax.default_matmul_precision(run.detector.precision):
        gradients, (losses, batch_stats) = jax.grad(loss, has_aux=True)(state.params)
    opt_state = restart_optimizer(optimizer, run, state)
    updates, opt_state = optimizer.update(gradients, opt_state, state.params, error=losses.error)
    state = state.replace(step=state.step + 1, params=optax.apply_updates(state.params, updates),
                          batch_stats=batch_stats, opt_state=opt_state)
    sums: Losses = jax.tree.map(lambda mean: len(images) * mean, losses)
    return state, sums._replace(learning_rate=learning_rate(optimizer, opt_state))


def examples(run: Detection, key: jax.Array, batch: AnnotatedBatch) -> tuple[AnchorTargets, Choose]:
    """Sample anchors with their targets, and return the function that samples regions."""
    count, rules = len(batch.images), run.sampling
    anchors = anchors_of(run.detector, *batch.images.shape[1:3])
    anchor_keys, region_keys = (jax.random.split(jax.random.fold_in(key, i), count) for i in range(2))
    targets = jax.vmap(lambda key, objects, size: anchor_targets(key, anchors, objects, size, rules))(
        anchor_keys, batch.objects, batch.sizes)

    def choose_one(key: jax.Array, objectness: jax.Array, deltas: jax.Array, objects: Any, size: Any) -> RegionTargets:
        proposals, valid = propose(objectness, deltas, anchors, size, rules, train=True)
        return region_targets(key, proposals, valid, objects, rules)

    def choose(objectness: jax.Array, deltas: jax.Array) -> RegionTargets:
        return jax.vmap(choose_one)(region_keys, objectness, deltas, batch.objects, batch.sizes)

    return targets, choose


def restart_optimizer(optimizer: optax.GradientTransformationExtraArgs, run: Detection, state: TrainState) -> Any:
    """Return the optimizer's state. Velocities and learning rate restart at each phase, if there are several."""
    count = len(phases_of(run))
    if count == 1:
        return state.opt_state
    begins = state.step % (run.steps // count) == 0
    return jax.tree.map(partial(jnp.where, begins), optimizer.init(state.params), state.opt_state)


def optimizer_of(run: Detection, phase: Phase) -> optax.GradientTransformationExtraArgs:
    """Build the optimizer for the parts that a phase trains, except frozen stages and frozen batch norm.

    Before the optimizer runs, the gradients of all other parameters are set to zero, so that the compiler removes them.
    Afterwards, the updates of these parameters, which weight decay would change, are set to zero.
    """
    fixed = optax.masked(optax.set_to_zero(), partial(frozen, run.detector, phase))
    return optax.with_extra_args_support(optax.chain(fixed, build_optimizer(run.optimizer, run.phase_steps), fixed))


def frozen(detector: Detector, phase: Phase, params: Any) -> Any:
    """Mark the parameters of unused parts, of frozen stages, and of frozen batch norm (appendix A)."""

    def stays(path: tuple[Any, ...], _: Any) -> bool:
        names = [part.key for part in path]
        if names[0] not in phase.moves:
            return True
        if names[0] == PROPOSER:  # a nested network with the same names
            names = names[1:]
        norm = any(name.startswith("bn") for name in names)
        return (names[0] == "shared" and stage_of(names[1]) <= detector.frozen_stages) or (
            detector.frozen_batch_norm and norm)

    return jax.tree_util.tree_map_with_path(stays, params)


def stage_of(module: str) -> int:
    """Return the stage of a module, counted from the input, with 1 for conv1 of ResNets and for conv1_x of VGG."""
    number = int(module.removeprefix("stage").removeprefix("conv").removeprefix("bn").partition("_")[0])
    return number + 1 if module.startswith("stage") else number


def state_shapes(place: jax.sharding.Sharding, run: Detection, classes: int) -> TrainState:
    """Return the shapes of a state before the first step."""
    shapes: TrainState = jax.eval_shape(partial(draw_onto, place, run, classes, jnp.zeros((1, 1, 3))))
    return shapes


@partial(jax.jit, static_argnums=(0, 1, 2))
def draw_onto(sharding: jax.sharding.Sharding, run: Detection, classes: int, mean: Any) -> TrainState:
    """Initialise a state on devices; `mean` is the mean colour `[1, 1, 3]`."""
    model, phases = FasterRCNN(run.detector, classes), phases_of(run)
    model_key, data_key = jax.random.split(jax.random.key(run.seed))
    side, ghost = 4 * model.detector.stride, model.detector.ghost_batch_size
    variables = model.init(model_key, jnp.zeros((ghost, side, side, 3)), jnp.full((ghost, 2), side, jnp.float32),
                           lambda *_: Proposed(jnp.ones((ghost, 1, 4)), jnp.ones((ghost, 1), bool)))
    params = dict(variables["params"])
    if any(phase.of_proposer for phase in phases):
        params[PROPOSER] = {name: params[name] for name in ("shared", "rpn")}
    state = TrainState(jnp.int32(0), data_key, jnp.asarray(mean), params, variables.get("batch_stats", {}),
                       optimizer_of(run, phases[0]).init(params))
    placed: TrainState = lax.with_sharding_constraint(state, sharding)
    return placed
