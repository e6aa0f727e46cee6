"""Loads images from any source into memory, or streams them, and makes batches."""

from resjax.data.batches import (
    Batch,
    Batching,
    Permutation,
    add_colour_noise,
    augment,
    batch_at,
    epochs_spanned,
    permute,
)
from resjax.data.cifar10 import prepare_cifar10
from resjax.data.decode import Header, decode, dimensions, file_header, upright_boxes
from resjax.data.image_files import ImageFiles
from resjax.data.images import Dataset, Images, dataset, load_data, load_split, mean_image, with_validation
from resjax.data.index import ImageSet, find_images, find_split
from resjax.data.preprocessing import (
    Crop,
    Preprocessing,
    centre_crop,
    cut,
    normalize,
    of_run,
    random_box,
    resize_shorter_side,
)
from resjax.data.statistics import Statistics, check_broken, measure_statistics
from resjax.data.stream import HostBatch, leave_import, planned_batches, training_batches

__all__ = ["Batch", "Batching", "Crop", "Dataset", "Header", "HostBatch", "ImageFiles", "ImageSet", "Images",
           "Permutation", "Preprocessing", "Statistics", "add_colour_noise", "augment", "batch_at", "centre_crop",
           "check_broken", "cut", "dataset", "decode", "dimensions", "epochs_spanned", "file_header",
           "find_images", "find_split", "leave_import", "load_data", "load_split", "mean_image",
           "measure_statistics", "normalize", "of_run", "permute",
           "planned_batches", "prepare_cifar10", "random_box", "resize_shorter_side", "training_batches",
           "upright_boxes", "with_validation"]
