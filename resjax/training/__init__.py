"""The state, step, loop, optimizer and checkpoints of training, and the interface that every kind of run implements."""

from typing import TYPE_CHECKING

from resjax.system.lazy import lazily

if TYPE_CHECKING:
    from resjax.training.classification import Result, train
    from resjax.training.in_memory import train_in_memory
    from resjax.training.log import read_metrics
    from resjax.training.optimizer import build_optimizer
    from resjax.training.records import find_runs, runs
    from resjax.training.regularization import CutMix, Cutout, LabelSmoothing, Mixup
    from resjax.training.restoration import Trained, load, restore
    from resjax.training.run_directory import read_descriptions, read_experiment, read_result
    from resjax.training.step import TrainState, initial_state, state_digest, train_step

__all__ = [
    "CutMix",
    "Cutout",
    "LabelSmoothing",
    "Mixup",
    "Result",
    "TrainState",
    "Trained",
    "build_optimizer",
    "find_runs",
    "initial_state",
    "load",
    "read_descriptions",
    "read_experiment",
    "read_metrics",
    "read_result",
    "restore",
    "runs",
    "state_digest",
    "train",
    "train_in_memory",
    "train_step",
]

HOMES = {
    "classification": ("Result", "train"), "in_memory": ("train_in_memory",), "log": ("read_metrics",),
    "optimizer": ("build_optimizer",), "records": ("find_runs", "runs"),
    "regularization": ("CutMix", "Cutout", "LabelSmoothing", "Mixup"), "restoration": ("Trained", "load", "restore"),
    "run_directory": ("read_experiment", "read_descriptions", "read_result"),
    "step": ("TrainState", "initial_state", "state_digest", "train_step")}
__getattr__ = lazily("resjax.training", HOMES)
