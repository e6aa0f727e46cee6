"""resjax: "Deep Residual Learning for Image Recognition" (He et al., CVPR 2016), reproduced in JAX and Flax."""

from resjax import platform

platform.configure()  # before anything starts JAX

from resjax.data import load as load_data  # noqa: E402
from resjax.dispatch import run  # noqa: E402
from resjax.errors import BadInput, Diverged, Interrupted  # noqa: E402
from resjax.evaluation import evaluate  # noqa: E402
from resjax.experiment import Architecture, Data, Experiment, Optimizer, Photographs  # noqa: E402
from resjax.models import ResNet, cifar_resnet, imagenet_resnet  # noqa: E402
from resjax.network import Network, embed, features  # noqa: E402
from resjax.training import load, read_metrics, restore, train  # noqa: E402
from resjax.weights import export  # noqa: E402

__all__ = ["Architecture", "BadInput", "Data", "Diverged", "Experiment", "Interrupted", "Network", "Optimizer",
           "Photographs", "ResNet", "cifar_resnet", "embed", "evaluate", "export", "features", "imagenet_resnet",
           "load", "load_data", "read_metrics", "restore", "run", "train"]
