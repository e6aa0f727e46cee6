"""What the command line can do: a function for each command, known by name before it is imported."""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from resjax.system.progress import working


class Command(NamedTuple):
    """What a command does in a line, an example, and the function that does it, imported when it is asked for."""

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
    "Begin": {
        "quickstart": Command("Train a shallow and a deep net of each kind.", "quickstart", "tables", "quickstart"),
        "list": Command("List the experiments, and what each costs.", "list", "runs", "list_experiments"),
        "show": Command("Show a run: values, layers, multiply-adds.", "show resnet20", "runs", "show", True),
        "prepare": Command("Get a data set: CIFAR-10, 170 MB.", "prepare cifar10", "machine", "prepare"),
        "doctor": Command("Check this machine; say what is missing.", "doctor", "machine", "doctor")},
    "Train": {
        "train": Command("Train a net, or resume where it was stopped.", "train resnet20 --seed 1", "runs", "train",
                         True),
        "plan": Command("Plan a run on hardware you don't have.", "plan resnet50 --on h100 --devices 8", "plan",
                        "plan", True),
        "mean-image": Command("Compute the mean image before training.",
                              "mean-image resnet50 --data.source folder:PATH", "runs", "mean_image", True)},
    "Use": {
        "evaluate": Command("Measure the errors of one network or several.",
                            "evaluate runs/quickstart/ResNet-32", "networks", "evaluate_networks"),
        "predict": Command("Name the likeliest classes of images.", "predict resnet20 photo.png", "pictures",
                           "predict"),
        "saliency": Command("Draw which pixels a class's logit depends on.", "saliency resnet20 photo.png", "pictures",
                            "saliency"),
        "export": Command("Write a network in another library's format.",
                          "export resnet20 --to akamaster --out exported", "networks", "export_network"),
        "detect": Command("Find objects in images, and draw them.", "detect runs/scenes photo.png", "pictures",
                          "detect")},
    "The paper": {
        "reproduce": Command("Train a table's nets; compare with the paper.", "reproduce table6 --seeds 1", "tables",
                             "reproduce"),
        "compare": Command("Compare your runs: mean and spread over seeds.", "compare runs/quickstart", "tables",
                           "compare"),
        "report": Command("Write a page about all runs in a folder.", "report runs/quickstart", "tables", "report")},
    "Shell": {
        "completion": Command("Print the script for completion in your shell.", "completion bash", "completion",
                              "completion")}}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
