"""The command that makes a shell complete commands, names and flags: tyro writes the script."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from resjax import experiment_files
from resjax.commands import COMMANDS
from resjax.commands.runs import SAME_KIND, TrainArguments
from resjax.experiment import Experiment
from resjax.progress import working


def completion(shell: Annotated[Literal["bash", "zsh", "fish", "tcsh"], tyro.conf.Positional]) -> None:
    """Print what makes a shell complete commands.

    For good in bash: resjax completion bash > ~/.local/share/bash-completion/completions/resjax

    Args:
        shell: The shell to write for.
    """
    with working("reading all commands"):
        functions = {name: on_experiment() if command.on_experiment else command.load()
                     for name, command in COMMANDS.items()}
    tyro.extras.subcommand_cli_from_dict(functions, prog="resjax", args=["--tyro-print-completion", shell],
                                         config=(SAME_KIND,))


def on_experiment() -> Callable[..., None]:
    """Make a function with the words and flags of a command that takes an experiment."""
    names: Any = Literal[tuple(name for several in experiment_files.names().values() for name in several)]  # type: ignore[misc]
    default = TrainArguments(Experiment(name=""), Path("runs"))

    def command(name: Any, values: Any = default) -> None:
        """Take a name and values."""

    command.__annotations__ = {"name": Annotated[names, tyro.conf.Positional],
                               "values": Annotated[TrainArguments, tyro.conf.arg(name="")], "return": None}
    return command
