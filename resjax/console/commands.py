"""The commands by name. Each command is imported only when it runs."""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from resjax.system.progress import working


class Command(NamedTuple):
    """A command: its one-line summary, an example, and its function, imported on demand."""

    summary: str
    example: str
    module: str
    function: str
    on_experiment: bool = False

    def load(self) -> Callable[..., None]:
        """Import the function."""
        with working("loading"):
            function: Callable[..., None] = getattr(import_module(f"resjax.console.{self.module}"), self.function)
        return function


GROUPS = {
    "Get started": {
        "quickstart": Command("Train four small networks, without a download.", "quickstart", "tables", "quickstart"),
        "list": Command("List the experiments and their costs.", "list", "runs", "list_experiments"),
        "show": Command("Show an experiment's settings, layers and multiply-adds.", "show resnet20", "runs", "show",
                        True),
        "prepare": Command("Download and prepare CIFAR-10 (170 MB).", "prepare cifar10", "machine", "prepare"),
        "doctor": Command("Check this machine and its packages.", "doctor", "machine", "doctor")},
    "Train": {
        "train": Command("Train a network, or resume its training.", "train resnet20 --seed 1", "runs", "train",
                         True),
        "plan": Command("Plan a run on hardware you don't have.", "plan resnet50 --on h100 --devices 8", "plan",
                        "plan", True),
        "mean-image": Command("Compute the mean training image before training.",
                              "mean-image resnet50 --data.source folder:PATH", "runs", "mean_image", True)},
    "Use a network": {
        "evaluate": Command("Measure the error of a network or of an ensemble.",
                            "evaluate runs/quickstart/ResNet-32", "networks", "evaluate_networks"),
        "predict": Command("Predict the classes of images.", "predict resnet20 photo.png", "pictures",
                           "predict"),
        "saliency": Command("Show which pixels a prediction depends on.", "saliency resnet20 photo.png", "pictures",
                            "saliency"),
        "export": Command("Export a network to another library's format.",
                          "export resnet20 --to akamaster --out exported", "networks", "export_network"),
        "detect": Command("Detect objects in images and draw their boxes.", "detect runs/scenes photo.png", "pictures",
                          "detect")},
    "The paper": {
        "reproduce": Command("Reproduce a table of the paper.", "reproduce table6 --seeds 1", "tables",
                             "reproduce"),
        "compare": Command("Compare runs over several seeds.", "compare runs/quickstart", "tables",
                           "compare"),
        "report": Command("Write a report on all runs in a folder.", "report runs/quickstart", "tables", "report")},
    "Shell": {
        "completion": Command("Print a completion script for your shell.", "completion bash", "completion",
                              "completion")}}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
