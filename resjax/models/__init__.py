"""Residual and plain networks as pure Flax (Linen) modules."""

from resjax.models.blocks import BasicBlock, Bottleneck
from resjax.models.mlp import DenseBlock, ResidualMLP
from resjax.models.normalization import BatchNorm
from resjax.models.resnet import ResNet, Stage, cifar_resnet, imagenet_resnet
from resjax.models.shortcut import Shortcut

__all__ = ["BasicBlock", "BatchNorm", "Bottleneck", "DenseBlock", "ResNet", "ResidualMLP", "Shortcut", "Stage",
           "cifar_resnet", "imagenet_resnet"]
