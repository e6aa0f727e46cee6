"""Shell completion of commands, experiment names, flags, values and files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from resjax import experiment_files
from resjax.console.arguments import reader
from resjax.console.commands import COMMANDS
from resjax.console.help import Argument, sections_of
from resjax.console.plan import PlanArguments
from resjax.console.runs import TrainArguments
from resjax.system.progress import working
from resjax.system.terminal import say

KINDS = ("resnet20", "resnet50", "scenes")  # one experiment for each set of flags
SHIPPED = " ".join(sorted(folder.name for folder in (Path(__file__).parents[1] / "trained").iterdir()))
TABLES = " ".join(f"table{number}" for number in range(1, 12))
SOURCES = "digits folder: tars: tfds: voc: coco:"
FILES = ("PATH", "FILE", "[FILE]", "IMAGE ...", "RUNS ...", "FOLDER")
BASH = """_resjax() {
  local words_ files_ current="${COMP_WORDS[COMP_CWORD]}" last="${COMP_WORDS[COMP_CWORD-1]}" IFS=$' \\t\\n'
  case "$current" in [:=]) last="$current" current="" ;; esac
  _resjax_words "${COMP_WORDS[1]}" "$COMP_CWORD" "$last" "$current"
  COMPREPLY=($(compgen -W "$words_" -- "$current"))
  case "${COMPREPLY[0]}" in *:) compopt -o nospace 2>/dev/null ;; esac
  if [ -n "$files_" ]; then
    compopt -o filenames 2>/dev/null
    IFS=$'\\n'
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
}
complete -F _resjax resjax"""
ZSH = """_resjax() {
  local words_ files_ current="$words[CURRENT]"
  if [[ "$current" == [a-z]*:* ]]; then
    compset -P '*:'
    files_=yes
  else
    _resjax_words "$words[2]" "$((CURRENT - 1))" "$words[CURRENT-1]" "$current"
  fi
  [[ -n "$words_" ]] && { compadd -- ${(M)${=words_}:#*[^:]}; compadd -S '' -- ${(M)${=words_}:#*:} }
  [[ -n "$files_" ]] && _files
  return 0
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
compdef _resjax resjax"""


def completion(shell: Annotated[Literal["bash", "zsh"], tyro.conf.Positional]) -> None:
    """Print a completion script for your shell.

    To enable completion in the current shell, run eval "$(resjax completion bash)".

    To enable it in all shells, save the script to a file and source it from ~/.bashrc or ~/.zshrc.

    Args:
        shell: The shell that the script is for.
    """
    with working("reading all commands"):
        flags, values = [], []
        for name in COMMANDS:
            entries = {entry.heading: entry for entry in entries_of(name)}.values()
            flags.append(case(name, " ".join(flag for entry in entries for flag in entry.flags)))
            values += [*complete_flags(name, entries)]
    say("\n".join([
        f"# resjax completion {shell}",
        "_resjax_words() {  # COMMAND POSITION LAST CURRENT: the words that are allowed",
        "  words_= files_=", '  [ "$2" = 1 ] && words_="' + " ".join(COMMANDS) + '" && return',
        '  case "$3" in :|=) files_=yes; return ;; esac', '  case "$4" in -*) case "$1" in', *flags,
        "    esac; return ;; esac", '  case "$1 $3" in', *values, "  esac", "}", BASH if shell == "bash" else ZSH]))


def case(pattern: str, words: str, files: bool = False) -> str:
    """Write a branch of the script, with the words that may follow."""
    return f'    {pattern}) words_="{words}"{" files_=yes" * files} ;;'


def entries_of(name: str) -> Iterator[Argument]:
    """List a command's flags and arguments; for a command on experiments, those of all kinds."""
    command = COMMANDS[name]
    wholes: dict[str, Any] = {"train": lambda run: TrainArguments(run, Path("runs")),
                              "plan": lambda run: PlanArguments(on="h100", experiment=run)}
    for kind in KINDS if command.on_experiment else ("",):
        if kind:
            run = experiment_files.find(kind)
            whole = wholes.get(name, lambda run: run)(run)
            typed: Any = type(whole)
            read = reader(typed if whole is run else typed[type(run)], name, default=whole)
        else:
            read = reader(command.load(), name)
        for section in sections_of(read):
            yield from section.entries


def complete_flags(name: str, entries: Iterable[Argument]) -> Iterator[str]:
    """Write the words that may follow each flag with a value, then those after the command and after other words."""
    after: dict[tuple[str, bool], list[str]] = {}
    for entry in entries:
        if entry.flags and entry.value:
            words = {"NETWORK": SHIPPED, "SOURCE": SOURCES}.get(entry.value, " ".join(entry.choices))
            after.setdefault((words, entry.value in (*FILES, "NETWORK")), []).append(f'"{name} {entry.flags[0]}"')
    for (words, files), flags in after.items():
        yield case("|".join(flags), words, files)
    rest = [entry.value for entry in entries if not entry.flags]
    words = first_words(name, *rest[:1])
    yield case(f'"{name} {name}"', words, (bool(rest) and "table1" not in words and not choices(name)) or
               COMMANDS[name].on_experiment)
    yield case(f'"{name} "*', "", bool(rest) and rest[-1] in FILES)


def first_words(name: str, value: str = "") -> str:
    """List the words that may follow a command first."""
    if COMMANDS[name].on_experiment:
        return " ".join(run for file in experiment_files.names().values() for run in file)
    return {"TABLE": TABLES, "[FILE]": " ".join(experiment_files.SHIPPED)}.get(
        value, SHIPPED if value.startswith("NETWORK") and name != "detect" else " ".join(choices(name)))


def choices(name: str) -> tuple[str, ...]:
    """Return the allowed values of a command's first argument; empty if anything is allowed."""
    kind = next(iter(get_type_hints(COMMANDS[name].load()).values()), None)
    return get_args(kind) if get_origin(kind) is Literal else ()
