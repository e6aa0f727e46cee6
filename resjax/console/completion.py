"""The command that makes a shell complete commands, flags and their values: tyro writes the script."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from resjax.console.commands import COMMANDS
from resjax.console.runs import SAME_KIND, TrainArguments
from resjax.experiment import Experiment
from resjax.system.progress import working


def completion(shell: Annotated[Literal["bash", "zsh", "fish", "tcsh"], tyro.conf.Positional]) -> None:
    """Print what makes a shell complete commands.

    For good in bash: resjax completion bash > ~/.local/share/bash-completion/completions/resjax

    Args:
        shell: The shell to write for.
    """
    with working("reading all commands"):
        functions = {name: on_experiment if command.on_experiment else command.load()
                     for name, command in COMMANDS.items()}
    tyro.extras.subcommand_cli_from_dict(functions, prog="resjax", args=["--tyro-print-completion", shell],
                                         config=(SAME_KIND,))


DEFAULT = TrainArguments[Experiment](Experiment(name=""), Path("runs"))


def on_experiment(name: Annotated[str, tyro.conf.Positional],
                  values: Annotated[TrainArguments[Experiment], tyro.conf.arg(name="")] = DEFAULT) -> None:
    """Stand for a command that takes an experiment, with the flags of a training."""
