"""Training: state, step, loop, optimiser, checkpoints."""

from resjax.training.fit import fit
from resjax.training.log import read_metrics
from resjax.training.loop import train
from resjax.training.optimizer import sgd
from resjax.training.restore import Trained, load, restore
from resjax.training.state import TrainState, initial_state, state_digest
from resjax.training.step import train_step
from resjax.training.workdir import read_experiment, read_result

__all__ = ["TrainState", "Trained", "fit", "initial_state", "load", "read_experiment", "read_metrics", "read_result",
           "restore", "sgd", "state_digest", "train", "train_step"]
