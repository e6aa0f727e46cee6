"""Faster R-CNN with residual networks (section 4.3 and appendix A of the paper): Tables 7 to 9."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resjax.detection.average_precision import Found, average_precisions, mean_average_precision
    from resjax.detection.config import Detection, Detector, Inference, Sampling, Scenery
    from resjax.detection.evaluate import TrainedDetector, find_all, restore_detector
    from resjax.detection.networks import FasterRCNN
    from resjax.detection.train import train_detector

__all__ = ["Detection", "Detector", "FasterRCNN", "Found", "Inference", "Sampling", "Scenery", "TrainedDetector",
           "average_precisions", "find_all", "mean_average_precision", "restore_detector", "train_detector"]

HOMES = {  # imported when they are used, so that runs are listed at once
    "average_precision": ("Found", "average_precisions", "mean_average_precision"),
    "config": ("Detection", "Detector", "Inference", "Sampling", "Scenery"),
    "evaluate": ("TrainedDetector", "find_all", "restore_detector"), "networks": ("FasterRCNN",),
    "train": ("train_detector",)}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'resjax.detection' has no attribute {name!r}")
    return getattr(import_module(f"resjax.detection.{home}"), name)
