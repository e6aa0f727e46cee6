"""How a run descends: the paper's recipe, and what is common since."""

from dataclasses import dataclass
from typing import Annotated, Literal

from resjax.experiment.fields import Count, Kept, Natural, NonNegative, Positive
from resjax.system.errors import check
from resjax.system.serialization import Must, Named, check_fields, shortly


@dataclass(frozen=True, kw_only=True)
class Optimizer(Named):
    """Stochastic gradient descent as in sections 3.4 and 4.2: v := momentum v + rate g, w := w - v; or a later one."""

    method: Literal["sgd", "nesterov", "adamw"] = "sgd"
    """sgd: the paper's. nesterov: w := w - (momentum v + rate g) with the new v. adamw: Loshchilov and Hutter 2019
    (arXiv 1711.05101), whose first moment keeps `momentum` and whose second keeps 0.999."""
    learning_rate: Positive = 0.1
    """The learning rate after the warm-up and before the first decay."""
    momentum: Kept = 0.9
    """What each step keeps of the velocity v."""
    weight_decay: NonNegative = 1e-4
    """Times the parameters themselves, added to their gradients (L2); by adamw to its updates (decoupled)."""
    weight_decay_scope: Literal["all", "kernels"] = "all"
    """Which parameters decay: all, or only the kernels of the convolutions and of the last layer."""
    schedule: Literal["steps", "cosine"] = "steps"
    """steps: divided by 10 at `decay_steps`. cosine: in their place half a cosine down to 0 at the last step, after a
    warm-up that rises in a line (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    decay_steps: tuple[Count, ...] = (32_000, 48_000)
    """The steps at which the learning rate is divided by 10."""
    plateau_steps: Natural = 0
    """Also divide it by 10, three times at most, when the training error, averaged over so many steps, has not fallen
    twice in a row ("when the error plateaus", section 3.4); 0 never does."""
    warmup_rate: Positive = 0.01
    """The learning rate while the warm-up lasts; before a cosine it rises from here."""
    warmup_steps: Natural = 0
    """A warm-up of fixed length: 400 is about what the paper's rule takes for 110 layers."""
    warmup_error: Annotated[float, Must("lie in (0, 100], in percent", lambda x: 0 < x <= 100)] = 100.0
    """A warm-up that lasts until the training error, in percent, is below this: the paper's rule is 80."""
    backbone_rate: NonNegative = 1.0
    """For fine-tuning, times the learning rate for all but the last layer. 0 leaves the parameters of those layers as
    they are, and with `architecture.frozen_batch_norm` their statistics too."""
    clip_norm: NonNegative = 0.0
    """Gradients whose norm over all parameters is above this are scaled down to it; 0 never does."""
    ema_decay: Kept = 0.0
    """What each step keeps of an exponential moving average of the parameters, such as 0.999; it is what is measured,
    kept and exported, with batch statistics measured for it. 0: the parameters themselves."""

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
        """Raise BadInput where a schedule that ends with the run has no steps left after the warm-up."""
        check(self.schedule == "steps" or self.warmup_steps < steps,
              f"optimizer.warmup-steps is {self.warmup_steps}, and the cosine ends at step {steps}: make the warm-up "
              "shorter")
