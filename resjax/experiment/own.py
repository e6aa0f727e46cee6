"""Python objects that an experiment file can add to its runs."""

from dataclasses import dataclass
from typing import Any

from resjax.system.serialization import shortly


@dataclass(frozen=True, kw_only=True)
class Own:
    """Python objects that replace parts of a run. See `resjax.train`.

    A field that is None replaces nothing.

    JSON cannot store these objects, so `experiment.json` only describes them. The description of a function consists of
    its name and the name of its file. Pass the same objects when you resume the run.

        own=Own(loss=focal, model=lambda run, classes: run.architecture.model(classes).clone(block=MyBlock))
    """

    model: Any = None
    """A Flax Linen module, or a function `(run, classes)` that returns one."""
    optimizer: Any = None
    """An optax optimizer, or a function `(run)` that returns one and can depend on `run.steps`."""
    loss: Any = None
    """A function `(logits, labels)` that returns the losses `[batch]`."""
    augment: Any = None
    """A function `(key, images, labels)` that returns the changed images and labels."""
    callback: Any = None
    """A function `(line, network)` that is called with each training line of the log and the current network. It
    returns a dict of names and numbers to log, or None."""

    __repr__ = shortly
