"""The phases of a detector's training: one joint phase, or four alternating phases (Ren et al. 2015)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax

from resjax.detection.config import Detection
from resjax.detection.images import AnnotatedBatch
from resjax.detection.targets import LOSSES, PROPOSAL_LOSSES, REGION_LOSSES
from resjax.training.step import TrainState

PROPOSER = "proposer"  # the separate proposal network, with shared convolutions and an rpn


class Phase(NamedTuple):
    """The losses and parts of the parameters that a phase trains, and whether `proposer` provides the regions."""

    losses: tuple[str, ...]
    moves: tuple[str, ...]
    of_proposer: bool = False


JOINT = (Phase(LOSSES, ("shared", "rpn", "regional", "scores", "boxes")),)
ALTERNATING = (
    Phase(PROPOSAL_LOSSES, (PROPOSER,), of_proposer=True),  # train a proposal network
    Phase(REGION_LOSSES, ("shared", "regional", "scores", "boxes"), of_proposer=True),  # train a detector on it
    Phase(PROPOSAL_LOSSES, ("rpn",)),  # train proposals on the detector's frozen convolutions
    Phase(REGION_LOSSES, ("regional", "scores", "boxes")))  # train detection on these proposals


def phases_of(run: Detection) -> tuple[Phase, ...]:
    """List the phases of a run, all of equal length."""
    return ALTERNATING if run.training == "alternating" else JOINT


def phase_at(run: Detection, step: int) -> Phase:
    """Return the phase that a step belongs to."""
    phases = phases_of(run)
    return phases[step * len(phases) // run.steps]


def networks_of(params: Mapping[str, Any], phase: Phase) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the parameters of the trained network and of the proposing one, which are usually the same."""
    proposes = {**params, **params[PROPOSER]} if phase.of_proposer else params
    return proposes if phase.moves == (PROPOSER,) else params, proposes


def variables_of(state: TrainState) -> dict[str, Any]:
    """Return the variables of a state's detector, without the proposal network that only training uses."""
    return {"params": {name: leaves for name, leaves in state.params.items() if name != PROPOSER},
            "batch_stats": state.batch_stats}


@partial(jax.tree_util.register_dataclass, data_fields=["batch"], meta_fields=["phase"])
@dataclass(frozen=True)
class Lesson:
    """A batch and its phase. Each phase has a separate program."""

    batch: AnnotatedBatch
    phase: Phase
