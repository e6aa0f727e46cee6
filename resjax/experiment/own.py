"""What a file of one's own brings to its runs, beside their values."""

from dataclasses import dataclass
from typing import Any

from resjax.system.serialization import shortly


@dataclass(frozen=True, kw_only=True)
class Own:
    """Parts of a run that are Python, in place of what its fields say; None: as they say. See `resjax.train`.

    JSON holds none of them: `experiment.json` names each, a function by its file, and a run is resumed with the same.

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
