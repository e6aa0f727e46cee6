"""Optimizers and learning-rate schedules: the paper's recipe and later ones."""

from dataclasses import dataclass
from typing import Annotated, Literal

from resjax.experiment.fields import Count, Kept, Natural, NonNegative, Positive
from resjax.system.errors import check
from resjax.system.serialization import Must, Named, check_fields, shortly


@dataclass(frozen=True, kw_only=True)
class Optimizer(Named):
    """The paper's SGD (sections 3.4 and 4.2), v := momentum v + rate g and w := w - v, or a later optimizer."""

    method: Literal["sgd", "nesterov", "adamw"] = "sgd"
    """sgd: the paper's. nesterov: w := w - (momentum v + rate g) with the new v. adamw: Loshchilov and Hutter 2019
    (arXiv 1711.05101) with beta1 = `momentum` and beta2 = 0.999."""
    learning_rate: Positive = 0.1
    """The learning rate after the warm-up and before the first decay."""
    momentum: Kept = 0.9
    """The fraction of the velocity v that each step keeps."""
    weight_decay: NonNegative = 1e-4
    """Weight decay: an L2 penalty in the gradient. With adamw it is decoupled, that is, added to the update."""
    weight_decay_scope: Literal["all", "kernels"] = "all"
    """The parameters that decay: all, or only the kernels of the convolutions and of the last layer."""
    schedule: Literal["steps", "cosine"] = "steps"
    """steps: divide the learning rate by 10 at `decay_steps`. cosine: after a linear warm-up, follow half a cosine down
    to 0 at the last step (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    decay_steps: tuple[Count, ...] = (32_000, 48_000)
    """The steps at which the learning rate is divided by 10."""
    plateau_steps: Natural = 0
    """Also divide the learning rate by 10 when the error plateaus (section 3.4): when the mean training error over this
    many steps did not fall twice in a row. This happens at most three times. 0: never."""
    warmup_rate: Positive = 0.01
    """The learning rate during the warm-up; with a cosine schedule, the rate at which the warm-up starts."""
    warmup_steps: Natural = 0
    """Number of warm-up steps; by the paper's rule, 110 layers need about 400."""
    warmup_error: Annotated[float, Must("lie in (0, 100], in percent", lambda x: 0 < x <= 100)] = 100.0
    """Warm up until the training error, in percent, falls below this value; the paper uses 80."""
    backbone_rate: NonNegative = 1.0
    """For fine-tuning: a factor on the learning rate of all layers except the last. 0 freezes their parameters; with
    `architecture.frozen_batch_norm` their batch-norm statistics are frozen too."""
    clip_norm: NonNegative = 0.0
    """Clip gradients to this global norm; 0: no clipping."""
    ema_decay: Kept = 0.0
    """The decay of an exponential moving average of the parameters, such as 0.999. The averaged weights, with their own
    batch-norm statistics, are measured, saved and exported. 0: no average."""

    __repr__ = shortly

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.")
        check(all(a < b for a, b in zip((0, *self.decay_steps), self.decay_steps, strict=False)),
              f"optimizer.decay-steps is {self.decay_steps}; the steps must be above 0 and rise")
        if self.schedule == "cosine":
            check(self.plateau_steps == 0 and self.warmup_error == 100,
                  "optimizer.plateau-steps and optimizer.warmup-error wait for an error; the schedule cosine goes by "
                  "steps alone: leave them out")
            check(self.warmup_steps == 0 or self.warmup_rate <= self.learning_rate,
                  f"optimizer.warmup-rate is {self.warmup_rate}; the warm-up rises from it to optimizer.learning-rate "
                  f"{self.learning_rate}, so it is at most that")

    def check_length(self, steps: int) -> None:
        """Raise BadInput if a schedule that ends with the run leaves no steps after the warm-up."""
        check(self.schedule == "steps" or self.warmup_steps < steps,
              f"optimizer.warmup-steps is {self.warmup_steps}, and the cosine ends at step {steps}: make the warm-up "
              "shorter")
