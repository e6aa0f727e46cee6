"""Finds experiment files by path or by name. They are Python files that define a dictionary `EXPERIMENTS`."""

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from resjax.system.errors import BadInput, check, nearest
from resjax.training.kinds import HOMES

SHIPPED = ("quickstart", "cifar10", "imagenet", "finetune", "torchvision_recipe", "detection")  # in this order
LOADING: list[Path] = []  # experiment files that are being run
LOADED: list[ModuleType] = []  # modules of experiment files, which other processes cannot import by their names


def folder() -> Path:
    """Return the folder of the files that come with resjax, in the installed package or in a checkout."""
    here = Path(__file__).parent
    return here / "experiments" if (here / "experiments").is_dir() else here.parent / "experiments"


def load_file(file: Path) -> ModuleType:
    """Run an experiment file and return it as a module. Raises BadInput if the file is missing or fails."""
    if file.suffix != ".py" or not file.is_file():
        raise BadInput(f"{file}: no such experiment file; give a Python file, such as experiments/cifar10.py, or the "
                       f"name of a file that comes with resjax: {', '.join(SHIPPED)}")
    name = file.stem if file.stem not in sys.modules else f"{file.stem} of {file.resolve().parent}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their types, and pickle its classes
    LOADED.append(module)
    if (place := str(file.resolve().parent)) not in sys.path:
        sys.path.insert(0, place)  # as for a script, so that files in the same folder can be imported
    LOADING.append(file)
    try:
        spec.loader.exec_module(module)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    except SyntaxError as error:
        raise BadInput(f"{error.filename or file}, line {error.lineno}: {error.msg}") from None
    except Exception as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if Path(frame.filename) == file.absolute()]
        raise BadInput(f"{file}, line {lines[-1] if lines else 1}: {type(error).__name__}: {error}") from None
    finally:
        LOADING.pop()
    return module


def check_not_loading(call: str) -> None:
    """Raise BadInput if an experiment file starts its command line while it is being loaded."""
    check(not LOADING, f"{call} would run whenever resjax loads this file; move it below the line: if __name__ == "
                       '"__main__":')


def pickled(value: Any) -> bytes:
    """Pickle a value for another process, including the functions and classes of experiment files that it contains.

    Raises BadInput if an object in it cannot be pickled.
    """
    import cloudpickle  # imported here, because only plans need it

    for module in LOADED:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:  # any that an object's own methods raise
        raise BadInput(f"a Python object of the run cannot be sent to another process ({error}); plans only "
                       "support objects that can be pickled") from None


def load_runs(file: Path) -> dict[str, Any]:
    """Return the `EXPERIMENTS` of a file, which are runs of any kind by name. Raises BadInput if there are none."""
    runs = getattr(load_file(file), "EXPERIMENTS", None)
    if not isinstance(runs, dict) or not all(isinstance(name, str) and getattr(run, "kind", None) in HOMES
                                             for name, run in runs.items()):
        raise BadInput(f"{file}: it must define EXPERIMENTS, a dict[str, Experiment] or dict[str, Detection]")
    return runs


@cache
def names() -> dict[str, dict[str, Any]]:
    """Return the runs of each file that comes with resjax, by name."""
    return {stem: load_runs(folder() / f"{stem}.py") for stem in SHIPPED}


def select(runs: Mapping[str, Any], name: str) -> Any:
    """Return the run with this name. Raises BadInput, listing the available names, if there is none."""
    if name in runs:
        return runs[name]
    raise BadInput(f"unknown experiment {name!r}{near(name, runs)} The file defines: {', '.join(runs)}")


def near(name: str, known: Iterable[str]) -> str:
    """Suggest the most similar name."""
    meant = nearest(name, known)
    return f"; did you mean {meant!r}?" if meant else "."


def find(target: str) -> Any:
    """Return the run that `NAME`, `FILE:NAME` or the path of an `experiment.json` refers to.

    NAME is a run in one of the files that come with resjax. FILE is the name of such a file (such as cifar10), or any
    Python file. Raises BadInput if there is no such run, or more than one.
    """
    if target.endswith("experiment.json"):
        from resjax.training.run_directory import read_descriptions, read_experiment  # `list` does not need them

        given = read_descriptions(Path(target).parent)
        check(not given, f"{target}: this run got its {' and '.join(given or ())} in Python; train it with "
                         "resjax.train(...), or with its experiment file as FILE:NAME")
        return read_experiment(Path(target).parent)
    file, colon, name = target.rpartition(":")
    if colon:
        return select(load_runs(file_named(file)), name)
    homes = [stem for stem, those in names().items() if target in those]
    check(len(homes) <= 1, f"{target} is in several files; write {' or '.join(f'{stem}:{target}' for stem in homes)}")
    if homes:
        return names()[homes[0]][target]
    known = [name for those in names().values() for name in those]
    raise BadInput(f"unknown experiment {target!r}{near(target, known)} `resjax list` shows all; write your own as "
                   "FILE:NAME, such as mine.py:resnet20")


def file_named(file: str) -> Path:
    """Return the file of this name that comes with resjax, or else the given path."""
    return folder() / f"{file}.py" if file in SHIPPED else Path(file)
