"""Python objects that an experiment file adds to its runs."""

from dataclasses import dataclass
from typing import Any

from resjax.system.serialization import shortly


@dataclass(frozen=True, kw_only=True)
class Own:
    """Parts of a run given as Python objects. A part that is None follows the run's fields. See `resjax.train`.

    JSON cannot hold these objects, so `experiment.json` only names them (a function by its file). Resuming a run
    requires the same parts.

        own=Own(loss=focal, model=lambda run, classes: run.architecture.model(classes).clone(block=MyBlock))
    """

    model: Any = None
    """A Flax Linen network, or a function `(run, classes)` that returns one."""
    optimizer: Any = None
    """An Optax optimizer, or a function `(run)` that returns one, for instance depending on `run.steps`."""
    loss: Any = None
    """A function `(logits, labels)` that returns the losses `[batch]`."""
    augment: Any = None
    """A function `(key, images, labels)` that returns augmented images and labels."""
    callback: Any = None
    """A function `(line, network)`, called with each training line of the log; the numbers it returns are logged."""

    __repr__ = shortly
