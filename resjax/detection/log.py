"""What a detector's run tells while it goes on."""

from dataclasses import dataclass

import numpy as np

from resjax.detection.step import Losses
from resjax.training.log import Line, Log

NAMES = ("anchor_class", "anchor_box", "region_class", "region_box", "error")


@dataclass(frozen=True)
class LossSums:
    """Sums of the losses since the last line of the log, and the seconds of training since the start of the run."""

    losses: tuple[float, ...] = (0.0,) * len(NAMES)
    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    total_seconds: float = 0.0

    def plus(self, losses: Losses, seconds: float, waited: float) -> "LossSums":
        """Add the losses of a step, the seconds that it took, and of them those that the devices waited for data."""
        sums = tuple(before + float(np.asarray(loss)) for before, loss in zip(self.losses, losses[:-1], strict=True))
        return LossSums(sums, self.steps + 1, self.seconds + seconds, self.waited + waited,
                        self.total_seconds + seconds)

    def line(self, step: int, rate: float, batch_size: int) -> Line:
        """Divide, once: the training line of the log."""
        means = {name: value / self.steps for name, value in zip(NAMES, self.losses, strict=True)}
        return {"step": step, "kind": "train", "loss": sum(means.values()) - means["error"], **means,
                "learning_rate": rate, "images_per_second": self.steps * batch_size / self.seconds,
                "data_wait": 100 * self.waited / self.seconds}

    def emptied(self) -> "LossSums":
        """Begin the next line."""
        return LossSums(total_seconds=self.total_seconds)


class DetectionLog(Log):
    """Writes to a run directory and tells on standard error."""

    def parts(self, line: Line) -> tuple[str, ...]:
        """Put a line of the metrics into words, what matters most first."""
        if line["kind"] != "detection":
            return super().parts(line)
        return (f"step {line['step']}/{self.steps}", f"mAP {line['mean_average_precision']:.2f} % at 0.5",
                f"(11 points: {line['eleven_point']:.2f} %)",
                *(f"{name} {value:.1f}" for name, value in line["average_precision"].items() if value is not None))
