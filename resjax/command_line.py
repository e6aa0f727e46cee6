"""From what was typed to a command, and from what went wrong to a message and an exit code."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from resjax.errors import BadInput, Diverged, Interrupted
from resjax.interrupt import stop_requests

if TYPE_CHECKING:
    from resjax.experiment import Experiment


class Command(NamedTuple):
    """What a command does in a line, and the function that does it, imported when it is asked for."""

    summary: str
    module: str
    function: str
    on_experiment: bool = False

    def load(self) -> Callable[..., None]:
        """Import the function."""
        function: Callable[..., None] = getattr(import_module(f"resjax.commands.{self.module}"), self.function)
        return function


COMMANDS = {
    "train": Command("Train an experiment: FILE:NAME [--workdir W] [--seed S] [overrides].", "runs", "train", True),
    "show": Command("Show an experiment, FILE:NAME: its values, its layers, its parameters and multiply-adds.", "runs",
                    "show", True),
    "mean-image": Command("Compute the mean training image and the principal colours, FILE:NAME, before a training "
                          "needs them.", "runs", "mean_image", True),
    "list": Command("List the experiments of a file.", "runs", "list_experiments"),
    "evaluate": Command("Measure the errors of a network, a run's newest checkpoint or anyone's weights, or of several "
                        "together.", "networks", "evaluate_networks"),
    "predict": Command("Name the likeliest classes of image files. One that cannot be read is named, and the others "
                       "are classified.", "networks", "predict"),
    "export": Command("Write a network into a new folder as others load it, with a model card that states its measured "
                      "errors.", "networks", "export_network"),
    "detect": Command("Find objects in picture files; print them, and draw their boxes into copies of the pictures.",
                      "detection", "detect"),
    "prepare": Command("Get a data set and write it as TFDS reads it.", "machine", "prepare"),
    "doctor": Command("Check this machine: versions, devices, arithmetic, data.", "machine", "doctor"),
    "reproduce": Command("Reproduce a table of the paper: train what is missing, and set ours beside the paper's.",
                         "tables", "reproduce"),
    "report": Command("Write one page of HTML about all runs in a folder; it opens without a network.", "tables",
                      "report")}


def overview() -> str:
    """Say in a line each what the commands do."""
    return "resjax COMMAND ... (COMMAND --help tells more)\n" + "\n".join(
        f"  {name:10} {command.summary}" for name, command in COMMANDS.items())


def execute(arguments: Sequence[str]) -> None:
    """Carry out `COMMAND ...`."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return
    if name not in COMMANDS:
        raise BadInput(f"unknown command {name!r}\n{overview()}")
    command = COMMANDS[name]
    if not command.on_experiment:
        import tyro  # here, as the overview does without

        tyro.cli(command.load(), prog=f"resjax {name}", args=rest)
        return
    if not rest or rest[0].startswith("-"):
        raise BadInput(f"resjax {name} FILE:NAME ..., such as experiments/cifar10.py:resnet20")
    from resjax import experiment_files

    command.load()(experiment_files.find(rest[0]), rest[1:], f"resjax {name} {rest[0]}")


def train_one_of(experiments: Mapping[str, "Experiment"], arguments: Sequence[str], program: str) -> None:
    """Carry out `FILE NAME ...`, for an experiment file that is run as a script."""
    names = "\n".join(f"  {name}" for name in experiments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"python {program} NAME [--workdir W] [--seed S] [overrides]; NAME --help tells more.\n{names}")
    else:
        from resjax import experiment_files

        name, *rest = arguments
        COMMANDS["train"].load()(experiment_files.select(experiments, name), rest, f"{program} {name}")


def guarded(action: Callable[[], Any]) -> int:
    """Run, and turn what can be expected to go wrong into one message on standard error and an exit code."""
    try:
        with stop_requests():
            action()
    except BadInput as error:
        print(f"resjax: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print(f"resjax: {error}", file=sys.stderr)
        return 128 + error.signal
    except (Diverged, OSError) as error:
        print(f"resjax: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("resjax: stopped", file=sys.stderr)
        return 130
    return 0


def run(experiments: Mapping[str, "Experiment"]) -> None:
    """Be the command line of an experiment file: `python FILE NAME [--workdir W] [overrides]`."""
    sys.exit(guarded(lambda: train_one_of(experiments, sys.argv[1:], Path(sys.argv[0]).name)))
