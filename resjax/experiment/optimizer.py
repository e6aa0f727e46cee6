"""Optimizers and learning-rate schedules: the paper's recipe and later ones."""

from dataclasses import dataclass
from typing import Annotated, Literal

from resjax.experiment.fields import Count, Kept, Natural, NonNegative, Positive
from resjax.system.errors import check
from resjax.system.serialization import Must, Named, check_fields, shortly


@dataclass(frozen=True, kw_only=True)
class Optimizer(Named):
    """The paper's SGD (sections 3.4 and 4.2) or a later optimizer.

    With gradients g, SGD updates the velocity v, then the parameters w: v := momentum * v + rate * g, w := w - v.
    """

    method: Literal["sgd", "nesterov", "adamw"] = "sgd"
    """sgd: the optimizer of the paper. nesterov: w := w - (momentum v + rate g) with the new v. adamw: Loshchilov and
    Hutter 2019 (arXiv 1711.05101) with beta1 = `momentum` and beta2 = 0.999."""
    learning_rate: Positive = 0.1
    """The learning rate after the warm-up and before the first decay."""
    momentum: Kept = 0.9
    """The fraction of the velocity v that each step keeps."""
    weight_decay: NonNegative = 1e-4
    """The weight decay. The parameters times this value are added to the gradient (an L2 penalty) or, with adamw, to
    the update (decoupled weight decay)."""
    weight_decay_scope: Literal["all", "kernels"] = "all"
    """The parameters that decay: all, or only the kernels of the convolutions and of the last layer."""
    schedule: Literal["steps", "cosine"] = "steps"
    """steps: divide the learning rate by 10 at `decay_steps`. cosine: warm up linearly, then decay along half a cosine
    to 0 at the last step (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    decay_steps: tuple[Count, ...] = (32_000, 48_000)
    """The steps at which the learning rate is divided by 10."""
    plateau_steps: Natural = 0
    """Also divide the learning rate by 10, at most three times, when the training error plateaus (section 3.4). The
    error plateaus if its mean over this number of steps has not fallen for two such periods in a row. With 0, plateaus
    are ignored."""
    warmup_rate: Positive = 0.01
    """The learning rate during the warm-up. With a cosine schedule, the warm-up starts at this learning rate."""
    warmup_steps: Natural = 0
    """Warm up for this many steps. The paper warms up its 110-layer network for about 400 steps."""
    warmup_error: Annotated[float, Must("be in (0, 100], in percent", lambda x: 0 < x <= 100)] = 100.0
    """Warm up until the training error, in percent, falls below this value. The paper uses 80 for its 110-layer
    network."""
    backbone_rate: NonNegative = 1.0
    """For fine-tuning, multiply the learning rate of all layers except the last by this factor. With 0, the parameters
    of these layers are frozen. `architecture.frozen_batch_norm` also freezes their batch statistics."""
    clip_norm: NonNegative = 0.0
    """The global norm to which gradients are clipped. With 0, gradients are not clipped."""
    ema_decay: Kept = 0.0
    """The decay of an exponential moving average of the parameters, such as 0.999. resjax then evaluates the averaged
    parameters, with batch statistics computed for them, and a finished run consists of them. With 0, parameters are not
    averaged."""

    __repr__ = shortly

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.")
        check(all(a < b for a, b in zip((0, *self.decay_steps), self.decay_steps, strict=False)),
              f"optimizer.decay-steps is {self.decay_steps}; the steps must be above 0 and in ascending order")
        if self.schedule == "cosine":
            check(self.plateau_steps == 0 and self.warmup_error == 100,
                  "optimizer.plateau-steps and optimizer.warmup-error depend on the error; they do not work with the "
                  "cosine schedule, which depends only on the step")
            check(self.warmup_steps == 0 or self.warmup_rate <= self.learning_rate,
                  f"optimizer.warmup-rate is {self.warmup_rate}; it must be at most optimizer.learning-rate "
                  f"{self.learning_rate}, because the warm-up rises to it")

    @property
    def fixed(self) -> str:
        """Return why a run cannot be resumed with more steps; empty if it can."""
        return "its cosine schedule depends on steps" if self.schedule == "cosine" else ""

    def check_length(self, steps: int) -> None:
        """Raise BadInput if a schedule whose length is that of the run leaves no steps after the warm-up."""
        check(self.schedule == "steps" or self.warmup_steps < steps,
              f"optimizer.warmup-steps is {self.warmup_steps}; it must be below steps, which is {steps}")
