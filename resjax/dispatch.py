"""From what was typed to a command, and from what went wrong to a message and an exit code."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from resjax import catalogue, commands
from resjax.errors import BadInput, Diverged, Interrupted
from resjax.experiment import Experiment
from resjax.interrupt import stop_requests

FIXED: dict[str, Callable[..., None]] = {
    "list": commands.list_experiments, "evaluate": commands.evaluate_networks, "predict": commands.predict,
    "export": commands.export_network, "prepare": commands.prepare, "doctor": commands.doctor,
    "reproduce": commands.reproduce, "report": commands.report}
ON_EXPERIMENTS: dict[str, Callable[..., None]] = {
    "train": commands.train, "show": commands.show, "mean-image": commands.mean_image}


def overview() -> str:
    """Say in a line each what the commands do."""
    everything = {**ON_EXPERIMENTS, **FIXED}
    return "resjax COMMAND ... (COMMAND --help tells more)\n" + "\n".join(
        f"  {name:10} {(function.__doc__ or '').splitlines()[0]}" for name, function in everything.items())


def execute(arguments: Sequence[str]) -> None:
    """Carry out `COMMAND ...`."""
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help"):
        print(overview())
    elif command in FIXED:
        tyro.cli(FIXED[command], prog=f"resjax {command}", args=rest)
    elif command in ON_EXPERIMENTS:
        if not rest or rest[0].startswith("-"):
            raise BadInput(f"resjax {command} FILE:NAME ..., such as experiments/cifar10.py:resnet20")
        ON_EXPERIMENTS[command](catalogue.find(rest[0]), rest[1:], f"resjax {command} {rest[0]}")
    else:
        raise BadInput(f"unknown command {command!r}\n{overview()}")


def train_one_of(experiments: Mapping[str, Experiment], arguments: Sequence[str], program: str) -> None:
    """Carry out `FILE NAME ...`, for an experiment file that is run as a script."""
    names = "\n".join(f"  {name}" for name in experiments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"python {program} NAME [--workdir W] [--seed S] [overrides]; NAME --help tells more.\n{names}")
    else:
        name, *rest = arguments
        commands.train(catalogue.select(experiments, name), rest, f"{program} {name}")


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


def run(experiments: Mapping[str, Experiment]) -> None:
    """Be the command line of an experiment file: `python FILE NAME [--workdir W] [overrides]`."""
    sys.exit(guarded(lambda: train_one_of(experiments, sys.argv[1:], Path(sys.argv[0]).name)))
