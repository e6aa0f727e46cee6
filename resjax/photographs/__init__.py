"""Photographs: JPEG files of any size, found once, decoded as they are needed, by processes beside the training."""

from resjax.photographs.crops import centre_crop, cut, random_box, resize_shorter_side
from resjax.photographs.index import Photos, PhotoSet, find_photographs
from resjax.photographs.jpeg import decode, dimensions
from resjax.photographs.statistics import Statistics, check_broken, measure_statistics
from resjax.photographs.stream import HostBatch, planned_batches, training_batches

__all__ = ["HostBatch", "PhotoSet", "Photos", "Statistics", "centre_crop", "check_broken", "cut", "decode",
           "dimensions", "find_photographs", "measure_statistics", "planned_batches", "random_box",
           "resize_shorter_side", "training_batches"]
