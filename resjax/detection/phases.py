"""What the steps of a run learn: everything at once, or proposals and detections in turn (Ren et al. 2015, 3.2)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax

from resjax.detection.config import Detection
from resjax.detection.images import AnnotatedBatch
from resjax.detection.targets import LOSSES, PROPOSAL_LOSSES, REGION_LOSSES

PROPOSER = "proposer"  # a network of its own that proposes: it has shared convolutions and an rpn


class Phase(NamedTuple):
    """Which losses count, which parts of the parameters move, and whether regions are those of the `proposer`."""

    losses: tuple[str, ...]
    moves: tuple[str, ...]
    of_proposer: bool = False


JOINT = (Phase(LOSSES, ("shared", "rpn", "regional", "scores", "boxes")),)
ALTERNATING = (
    Phase(PROPOSAL_LOSSES, (PROPOSER,), of_proposer=True),  # one network learns to propose,
    Phase(REGION_LOSSES, ("shared", "regional", "scores", "boxes"), of_proposer=True),  # a second to detect there;
    Phase(PROPOSAL_LOSSES, ("rpn",)),  # then proposals from the convolutions of the second, which stay from now on,
    Phase(REGION_LOSSES, ("regional", "scores", "boxes")))  # and what detects in these


def phases_of(run: Detection) -> tuple[Phase, ...]:
    """List the phases of a run, all equally long."""
    return ALTERNATING if run.training == "alternating" else JOINT


def phase_at(run: Detection, step: int) -> Phase:
    """Return the phase that a step belongs to."""
    phases = phases_of(run)
    return phases[step * len(phases) // run.steps]


def networks_of(params: Mapping[str, Any], phase: Phase) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the parameters of the network that learns and of the one that proposes; mostly they are the same."""
    proposes = {**params, **params[PROPOSER]} if phase.of_proposer else params
    return proposes if phase.moves == (PROPOSER,) else params, proposes


@partial(jax.tree_util.register_dataclass, data_fields=["batch"], meta_fields=["phase"])
@dataclass(frozen=True)
class Lesson:
    """A batch, and what is learnt from it: each phase is a program of its own."""

    batch: AnnotatedBatch
    phase: Phase
