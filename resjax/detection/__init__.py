"""Faster R-CNN with residual networks (section 4.3 and appendix A of the paper): Tables 7 and 8."""

from resjax.detection.average_precision import Found, average_precisions, mean_average_precision
from resjax.detection.config import Detection, Detector, Sampling, Scenery
from resjax.detection.evaluate import TrainedDetector, find_all
from resjax.detection.networks import FasterRCNN
from resjax.detection.restore import restore_detector
from resjax.detection.train import train_detector

__all__ = ["Detection", "Detector", "FasterRCNN", "Found", "Sampling", "Scenery", "TrainedDetector",
           "average_precisions", "find_all", "mean_average_precision", "restore_detector", "train_detector"]
