"""What the command line can do, one function a command."""

from resjax.commands.machine import doctor, prepare
from resjax.commands.networks import evaluate_networks, export_network, predict
from resjax.commands.runs import list_experiments, mean_image, show, train
from resjax.commands.tables import report, reproduce

__all__ = ["doctor", "evaluate_networks", "export_network", "list_experiments", "mean_image", "predict", "prepare",
           "report", "reproduce", "show", "train"]
