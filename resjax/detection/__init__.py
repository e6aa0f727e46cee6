"""Faster R-CNN with residual networks or VGG-16, for Tables 7 to 11 (section 4.3 and appendices A and B)."""

from typing import TYPE_CHECKING

from resjax.system.lazy import lazily

if TYPE_CHECKING:
    from resjax.detection.average_precision import Detected, average_precisions, mean_average_precision
    from resjax.detection.config import Detection, Detector, Inference, Sampling, Scenery
    from resjax.detection.evaluate import TrainedDetector, find_all, restore_detector
    from resjax.detection.networks import FasterRCNN
    from resjax.detection.stored import load_detector
    from resjax.detection.train import train_detector

__all__ = ["Detected", "Detection", "Detector", "FasterRCNN", "Inference", "Sampling", "Scenery", "TrainedDetector",
           "average_precisions", "find_all", "load_detector", "mean_average_precision", "restore_detector",
           "train_detector"]

HOMES = {  # imported on first use, so that listing runs is fast
    "average_precision": ("Detected", "average_precisions", "mean_average_precision"),
    "config": ("Detection", "Detector", "Inference", "Sampling", "Scenery"),
    "evaluate": ("TrainedDetector", "find_all", "restore_detector"), "networks": ("FasterRCNN",),
    "stored": ("load_detector",),
    "train": ("train_detector",)}
__getattr__ = lazily("resjax.detection", HOMES)
