"""An implementation of "Deep Residual Learning for Image Recognition" (He et al., CVPR 2016) in JAX and Flax."""

from typing import TYPE_CHECKING

from resjax.system import platform
from resjax.system.lazy import lazily
from resjax.system.version import __version__

if TYPE_CHECKING:
    from resjax.analysis import saliency
    from resjax.console.command_line import run
    from resjax.data import Dataset, dataset, load_data
    from resjax.evaluation import Evaluation, evaluate
    from resjax.experiment import Architecture, Data, Experiment, Optimizer, Own, Photographs
    from resjax.models import (
        VGG,
        BasicBlock,
        BatchNorm,
        Bottleneck,
        ResNet,
        Shortcut,
        Stage,
        cifar_resnet,
        convolution,
        imagenet_resnet,
    )
    from resjax.network import Classifier, Network, embed, features
    from resjax.paper import Comparison, compare
    from resjax.system.errors import BadInput, Diverged, Interrupted
    from resjax.training import CutMix, Cutout, LabelSmoothing, Mixup, Result, read_metrics, runs, train
    from resjax.training.restoration import load, restore
    from resjax.weights import export

__all__ = ["VGG", "Architecture", "BadInput", "BasicBlock", "BatchNorm", "Bottleneck", "Classifier", "Comparison",
           "CutMix", "Cutout", "Data", "Dataset", "Diverged", "Evaluation", "Experiment", "Interrupted",
           "LabelSmoothing", "Mixup", "Network", "Optimizer", "Own", "Photographs", "ResNet", "Result", "Shortcut",
           "Stage", "__version__", "cifar_resnet", "compare", "convolution", "dataset", "embed", "evaluate", "export",
           "features", "imagenet_resnet", "load", "load_data", "read_metrics", "restore", "run", "runs", "saliency",
           "train"]

HOMES = {  # the modules that define the public names; each is imported on first use
    "data": ("Dataset", "dataset", "load_data"), "console.command_line": ("run",),
    "system.errors": ("BadInput", "Diverged", "Interrupted"),
    "analysis": ("saliency",), "evaluation": ("Evaluation", "evaluate"),
    "experiment": ("Architecture", "Data", "Experiment", "Optimizer", "Own", "Photographs"),
    "models": ("VGG", "BasicBlock", "BatchNorm", "Bottleneck", "ResNet", "Shortcut", "Stage", "cifar_resnet",
               "convolution", "imagenet_resnet"),
    "paper": ("Comparison", "compare"),
    "network": ("Classifier", "Network", "embed", "features"),
    "training": ("CutMix", "Cutout", "LabelSmoothing", "Mixup", "Result",
                 "load", "read_metrics", "restore", "runs", "train"),
    "weights": ("export",)}

platform.configure()  # before JAX starts
__getattr__ = lazily("resjax", HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
