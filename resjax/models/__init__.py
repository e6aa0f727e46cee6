"""Residual and plain networks as pure Flax (Linen) modules."""

from resjax.models.batch_norm import BatchNorm
from resjax.models.mlp import DenseBlock, ResidualMLP
from resjax.models.resnet import BasicBlock, Bottleneck, ResNet, Shortcut, Stage, cifar_resnet, imagenet_resnet
from resjax.models.vgg import VGG

__all__ = ["VGG", "BasicBlock", "BatchNorm", "Bottleneck", "DenseBlock", "ResNet", "ResidualMLP", "Shortcut", "Stage",
           "cifar_resnet", "imagenet_resnet"]
