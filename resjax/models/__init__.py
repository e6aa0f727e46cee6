"""Residual, plain and VGG networks as Flax (Linen) modules.

The modules `families` and `formulas` give the networks' depths, parameter counts and multiply-adds without importing
JAX.
"""

from typing import TYPE_CHECKING

from resjax.system.lazy import lazily

if TYPE_CHECKING:
    from resjax.models.batch_norm import BatchNorm
    from resjax.models.mlp import DenseBlock, ResidualMLP
    from resjax.models.resnet import (
        BasicBlock,
        Bottleneck,
        ResNet,
        Shortcut,
        cifar_resnet,
        convolution,
        imagenet_resnet,
    )
    from resjax.models.stage import Stage
    from resjax.models.vgg import VGG

__all__ = ["VGG", "BasicBlock", "BatchNorm", "Bottleneck", "DenseBlock", "ResNet", "ResidualMLP", "Shortcut", "Stage",
           "cifar_resnet", "convolution", "imagenet_resnet"]

HOMES = {  # imported on first use, so that listing runs needs no JAX
    "batch_norm": ("BatchNorm",), "mlp": ("DenseBlock", "ResidualMLP"), "vgg": ("VGG",),
    "resnet": ("BasicBlock", "Bottleneck", "ResNet", "Shortcut", "cifar_resnet", "convolution", "imagenet_resnet"),
    "stage": ("Stage",)}
__getattr__ = lazily("resjax.models", HOMES)
