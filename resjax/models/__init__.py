"""Residual and plain networks as pure Flax (Linen) modules, and what is known of them without JAX."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resjax.models.batch_norm import BatchNorm
    from resjax.models.mlp import DenseBlock, ResidualMLP
    from resjax.models.resnet import BasicBlock, Bottleneck, ResNet, Shortcut, Stage, cifar_resnet, imagenet_resnet
    from resjax.models.vgg import VGG

__all__ = ["VGG", "BasicBlock", "BatchNorm", "Bottleneck", "DenseBlock", "ResNet", "ResidualMLP", "Shortcut", "Stage",
           "cifar_resnet", "imagenet_resnet"]

HOMES = {  # imported when they are used, so that runs are listed without JAX
    "batch_norm": ("BatchNorm",), "mlp": ("DenseBlock", "ResidualMLP"), "vgg": ("VGG",),
    "resnet": ("BasicBlock", "Bottleneck", "ResNet", "Shortcut", "Stage", "cifar_resnet", "imagenet_resnet")}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'resjax.models' has no attribute {name!r}")
    return getattr(import_module(f"resjax.models.{home}"), name)
