"""Small images in memory from three sources, and batches as a function of (key, step)."""

from resjax.data.batches import (
    Batch,
    Order,
    add_colour_noise,
    augment,
    batch_at,
    epochs_spanned,
    shuffled,
    subtract,
)
from resjax.data.dataset import Dataset, Images, mean_image
from resjax.data.picture import read_picture
from resjax.data.prepare import prepare_cifar10
from resjax.data.sources import load

__all__ = ["Batch", "Dataset", "Images", "Order", "add_colour_noise", "augment", "batch_at", "epochs_spanned", "load",
           "mean_image", "prepare_cifar10", "read_picture", "shuffled", "subtract"]
