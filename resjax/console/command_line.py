"""Dispatches commands, and turns failures into an error message and an exit code."""

import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from resjax.console.commands import COMMANDS, GROUPS
from resjax.system import progress
from resjax.system.chatter import leave_out_chatter
from resjax.system.errors import BadInput, Diverged, Interrupted, Lost, nearest
from resjax.system.interrupt import many_processes, stop_requests
from resjax.system.last_words import end_at_once
from resjax.system.platform import keep_freed_memory, restart_with_huge_pages
from resjax.system.terminal import harmless, say, tell
from resjax.system.version import __version__

FIRST = f"""resjax {__version__}: the ResNet paper (He et al. 2016) in JAX

First:  resjax quickstart        train four small networks, no download
Then:   resjax list              list all experiments
        resjax train resnet20    train one of them
        resjax --help            list all commands"""


def overview() -> str:
    """List the commands, one line each, with an example."""
    lines = ["usage: resjax COMMAND ...; for details: resjax COMMAND --help"]
    for title, group in GROUPS.items():
        lines += ["", title]
        for name, command in group.items():
            lines += [f"  {name:12}{command.summary}", f"{'':14}resjax {command.example}"]
    return "\n".join([*lines, "", "To complete commands in your shell: eval \"$(resjax completion bash)\""])


def execute(arguments: Sequence[str]) -> None:
    """Run `COMMAND ...`."""
    if not arguments:
        say(FIRST)
        return
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        say(overview())
    elif name in ("-V", "--version"):
        say(version())
    elif name not in COMMANDS:
        from resjax.console.arguments import did_you_mean

        raise BadInput(f"unknown command {name!r}{did_you_mean(nearest(name, COMMANDS)) or ';'} resjax --help lists "
                       "all commands")
    elif COMMANDS[name].on_experiment:
        on_experiment(name, rest)
    else:
        function = COMMANDS[name].load()
        from resjax.console.arguments import call

        call(function, rest, f"resjax {name}")


def version() -> str:
    """Return the versions of resjax and its main dependencies."""
    from importlib.metadata import version as of

    return f"resjax {__version__}, jax {of('jax')}, flax {of('flax')}, Python {platform.python_version()}"


def on_experiment(command: str, arguments: Sequence[str]) -> None:
    """Run a command on the experiment named by its first argument."""
    example = f"such as resjax {COMMANDS[command].example}; resjax list shows all names"
    if arguments and arguments[0] in ("-h", "--help"):
        say(f"{COMMANDS[command].summary}\n\nusage: resjax {command} NAME [--flag value ...], {example}.\n"
            f"resjax {command} NAME --help lists the flags. Name your own experiments FILE:NAME.")
        return
    if not arguments or arguments[0].startswith("-"):
        raise BadInput(f"resjax {command} needs the name of an experiment, {example}")
    target, *rest = arguments
    from resjax import experiment_files

    COMMANDS[command].load()(experiment_files.find(target), rest, f"resjax {command} {target}")


def train_one_of(experiments: Mapping[str, Any], arguments: Sequence[str], program: str) -> None:
    """Run `FILE NAME ...`, for an experiment file that is run as a script."""
    if not arguments or arguments[0] in ("-h", "--help"):
        names = "\n".join(f"  {name}" for name in experiments)
        say(f"usage: python {program} NAME [--workdir W] [--seed S] ...; NAME --help lists all flags\n{names}")
    else:
        from resjax import experiment_files

        name, *rest = arguments
        COMMANDS["train"].load()(experiment_files.select(experiments, name), rest, f"{program} {name}")


SIGNALLED = 128  # exit codes above it name a signal, as in a shell


def guarded(action: Callable[[], Any]) -> int:
    """Run a command, and turn expected errors into one message on standard error and an exit code."""
    keep_freed_memory()
    try:
        with stop_requests():
            action()
    except BadInput as error:
        return failed(str(error), 2)
    except Interrupted as error:
        return failed(str(error), SIGNALLED + error.signal)
    except BrokenPipeError:  # the reading program, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Diverged, Lost, OSError) as error:
        return failed(str(error), 1)
    except KeyboardInterrupt:
        return failed("stopped", 130)
    except Exception:
        if not many_processes():
            raise
        tell(harmless(traceback.format_exc()))  # often, another process has died; the last words say how to resume
        end_at_once(1, reported=False)
    finally:
        progress.clear()
    return 0


def failed(message: str, code: int) -> int:
    """Print the reason below the finished display. If several processes train together, exit this process at once."""
    progress.clear()
    tell(f"resjax: {harmless(message)}")
    if many_processes():
        end_at_once(code, reported=True)
    return code


def run_and_exit(action: Callable[[], Any]) -> NoReturn:
    """Run an action, and exit with its code.

    After a stop request, the process ends without Python's teardown. XLA may still be compiling in its own thread,
    which would crash (SIGSEGV) once the libraries' destructors run. At the end, Ctrl-C is set to end the process
    silently.
    """
    leave_out_chatter()
    code = guarded(action)
    if code > SIGNALLED:
        end_at_once(code, reported=True)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def main() -> None:
    """Run the given command, and exit with its code."""
    restart_with_huge_pages()
    run_and_exit(lambda: execute(sys.argv[1:]))


def run(experiments: Mapping[str, Any]) -> None:
    """Run the command line of an experiment file, `python FILE NAME [--workdir W] [overrides]`."""
    from resjax import experiment_files

    experiment_files.check_not_loading("resjax.run(...)")
    run_and_exit(lambda: train_one_of(experiments, sys.argv[1:], Path(sys.argv[0]).name))


def script(function: Callable[..., Any]) -> None:
    """Run the command line of a function, `python FILE [flags]`."""
    from resjax import experiment_files
    from resjax.console.arguments import call

    experiment_files.check_not_loading("script(...)")
    run_and_exit(lambda: call(function, sys.argv[1:], Path(sys.argv[0]).name))
