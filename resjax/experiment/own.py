"""What a file of one's own brings to its runs, beside their values."""

from dataclasses import dataclass
from typing import Any

from resjax.system.serialization import shortly


@dataclass(frozen=True, kw_only=True)
class Own:
    """Parts of a run given as Python objects. A part that is None follows the run's fields. See `resjax.train`.

    JSON cannot hold them, so `experiment.json` only names them (a function by its file), and a run is resumed with the
    same parts.

        own=Own(loss=focal, model=lambda run, classes: run.architecture.model(classes).clone(block=MyBlock))
    """

    model: Any = None
    """A network of Flax Linen, or a function `(run, classes)` that makes one."""
    optimizer: Any = None
    """One of optax, or a function `(run)` that makes one, for instance of its `steps`."""
    loss: Any = None
    """A function `(logits, labels)` that returns the losses `[batch]`."""
    augment: Any = None
    """A function `(key, images, labels)` that returns images and labels."""
    callback: Any = None
    """A function `(line, network)`, called with each training line of the log; numbers that it returns are logged."""

    __repr__ = shortly
