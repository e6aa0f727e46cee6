"""Python objects that belong to a run, such as its network. These objects are described in `experiment.json` and
checked when the run is resumed. resjax's own networks are rebuilt from their descriptions.
"""

import ast
import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

from resjax.data import Dataset, of_run, with_validation
from resjax.experiment import Data, Experiment, Photographs
from resjax.network import Network
from resjax.system.errors import BadInput, check
from resjax.system.files import read_json
from resjax.system.serialization import brief, check_value, shortly
from resjax.training.own import REBUILT, check_kinds, first_state, hints_of, is_optimizer, made
from resjax.training.run_directory import check_images, read_descriptions, read_run
from resjax.training.step import TrainState
from resjax.training.traced_programs import programs_of

UNKEPT = "given in Python; its values are not stored"


def describe_objects(experiment: Experiment, classes: int, state: TrainState | None = None) -> dict[str, str]:
    """Describe the Python objects for `experiment.json`, networks by their fields and functions by their files.

    An optimizer that no function builds is described by its state.
    """
    own = experiment.own
    named = {} if own.model is None else {"model": shortly(made(experiment, own.model, classes))}
    if is_optimizer(own.optimizer):
        parts = re.findall(r"namedtuple\[(\w+?)(?:State)?\]", str(jax.tree.structure(state and state.opt_state)))
        names = ", ".join(dict.fromkeys(part for part in parts if part != "Empty")) or "an optimizer"
        named["optimizer"] = f"{names}: {UNKEPT}"
    elif own.optimizer is not None:
        named["optimizer"] = called(own.optimizer)
    return named | {part: called(function) for part, function in (("loss", own.loss), ("augment", own.augment))
                    if function is not None}


def called(function: Any) -> str:
    """Describe a function by its file, or a value such as `Mixup` by its fields. Equal objects are described
    equally.
    """
    if isinstance(function, partial):
        arguments = [*map(text_of, function.args),
                     *(f"{key}={text_of(value)}" for key, value in function.keywords.items())]
        return f"partial({', '.join([called(function.func), *arguments])})"
    if is_dataclass(function) and not isinstance(function, type):
        return shortly(function)
    if (code := getattr(function, "__code__", None)) is None:
        return type(function).__qualname__
    file = Path(code.co_filename)  # a cell of a notebook has another one each time it is run
    return f"{file.name}:{function.__qualname__}" if file.suffix == ".py" and "ipykernel" not in str(file) else (
        function.__qualname__)


def text_of(value: Any) -> str:
    """Describe an argument of a partial function, without its address."""
    return called(value) if callable(value) else re.sub(" at 0x[0-9a-f]+", "", repr(value))


def sources(experiment: Experiment, classes: int) -> dict[str, str]:
    """Return the digests of the files that define a run's Python objects, by file name."""
    own = experiment.own
    parts = (made(experiment, own.model, classes), own.model, own.optimizer, own.loss, own.augment)
    files = {file for part in parts for file in files_of(part)}
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in sorted(files)}


def provenance_of(experiment: Experiment, image: tuple[int, ...], classes: int) -> dict[str, dict[str, str]]:
    """Describe the Python objects of a run for `experiment.json`; empty without objects.

    "given" has their descriptions, "code" has digests of the files that define them, and "programs" has digests of what
    they compute for images `[height, width, channels]`.
    """
    state = None if experiment.own.optimizer is None else first_state(experiment, image, classes)
    given = describe_objects(experiment, classes, state)
    return {"given": given, "code": sources(experiment, classes),
            "programs": programs_of(experiment, image, classes)} if given else {}


def changed_objects(run_directory: Path, provenance: Mapping[str, Mapping[str, str]]) -> str:
    """Describe which files and programs have changed since a run began; empty if none has."""
    file = run_directory / "experiment.json"
    before = read_json(file) if file.exists() else {}
    known = {name: digest for part in ("code", "programs") if isinstance(before.get(part), dict)
             for name, digest in before[part].items()}
    changed = [name for part in ("code", "programs") for name, digest in provenance[part].items()
               if known.get(name, digest) != digest]
    return (f"{' and '.join(changed)} {'have' if len(changed) > 1 else 'has'} changed since this run began; the run "
            "uses the new version" if changed else "")


def files_of(part: Any) -> Iterator[Path]:
    """List the files, outside of installed packages, that define a function, a module or its fields."""
    if isinstance(part, partial):
        for each in (part.func, *part.args, *part.keywords.values()):
            yield from files_of(each)
        return
    defined = part if inspect.isfunction(part) or inspect.isclass(part) else type(part)
    try:
        file = Path(inspect.getsourcefile(defined) or "")
    except (TypeError, OSError):  # built-in, or defined in an interactive session
        return
    package = str(getattr(defined, "__module__", "")).partition(".")[0]
    if file.is_file() and package not in ("resjax", "flax", "optax", "jax") and "site-packages" not in file.parts:
        yield file
    if is_dataclass(part) and not isinstance(part, type):
        for each in fields(part):
            yield from files_of(getattr(part, each.name))


def check_arrays(values: Data, data: Dataset) -> None:
    """Raise BadInput if the size or the channels of the user's arrays do not match the experiment."""
    height, width, channels = data.train.pixels.shape[1:]
    check(values.size is None or (height, width) == (values.size, values.size),
          f"data.size is {values.size}, but the arrays are {height}x{width}; resjax does not resize arrays, so omit "
          "data.size or resize them yourself")
    check(len(values.std) in (0, channels), f"data.std has {len(values.std)} values, but the arrays have "
                                            f"{channels} channels")


def with_objects(experiment: Experiment, run_directory: Path, data: Dataset | None,
                 objects: Mapping[str, Any]) -> tuple[Experiment, Dataset | None]:
    """Add the user's objects to a run. For arrays, set the data fields and hold out validation images.

    Raises BadInput if the folder holds a run with another network, other images or another optimizer; the message names
    the object to pass again.
    """
    check(isinstance(experiment, Experiment), f"experiment is {brief(experiment)}; it must be a resjax.Experiment")
    check(data is None or isinstance(data, Dataset),
          f"data is {brief(type(data))}; it must be resjax.dataset((pixels, labels), (test pixels, test labels))")
    experiment = replace(experiment, own=replace(experiment.own, **objects))
    check_kinds(experiment.own)
    if data is not None:
        if isinstance(experiment.data, Photographs):
            raise BadInput("the experiment has data=resjax.Photographs(...); with your own arrays, it must be "
                           "resjax.Data(...)")
        check_arrays(experiment.data, data)
        values = replace(experiment.data, source="arrays")
        experiment, data = replace(experiment, data=values), with_validation(values, data)
        check_images(run_directory, data.identity())
    check(experiment.own.model is None or not experiment.initialize_from,
          "initialize-from only works with the networks of the paper, not with model=")
    check_objects(experiment, run_directory)
    return experiment, data


def check_objects(experiment: Experiment, run_directory: Path) -> None:
    """Raise BadInput if a folder holds a run with another network, optimizer, loss or augmentation."""
    if (before := read_descriptions(run_directory)) is None:
        return
    now = describe_objects(experiment, len(read_run(run_directory)[1]))
    for part in ("model", "optimizer", "loss", "augment"):
        there, here = (described.get(part, "none") for described in (before, now))
        unkept = part == "optimizer" and UNKEPT in there and UNKEPT in here
        check(there == here or unkept, f"{run_directory}: its {part} is {there}, but you passed {here}; pass the same "
                                       f"{part}= as before, or choose another folder")


def model_of(run_directory: Path, experiment: Experiment, classes: int, passed: Any) -> Any:
    """Return the network of a run. Raises BadInput if it was custom and has to be passed again."""
    known = (read_descriptions(run_directory) or {}).get("model")
    if passed is None:
        return experiment.architecture.model(classes) if known is None else rebuilt(run_directory, known)
    model: nn.Module = made(experiment, passed, classes)
    check(shortly(model) == known, f"{run_directory}: its network is {known or 'the one that its experiment states'}, "
                                  f"but you passed {shortly(model)}")
    return model


def rebuilt(run_directory: Path, known: str) -> Any:
    """Rebuild one of our networks from its description. Raises BadInput for any other."""
    try:
        call = ast.parse(known, mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        kind: Any = REBUILT[call.func.id]
        fields = {word.arg or "": ast.literal_eval(word.value) for word in call.keywords}
        hints = hints_of(kind)
        for name, value in fields.items():
            check_value(f"model.{name}", value, hints[name])
        return kind(**fields)
    except (AssertionError, KeyError, TypeError, ValueError, SyntaxError, RecursionError, MemoryError):
        raise BadInput(f"{run_directory}: its network was passed in Python ({known}); pass it again, as in "
                       f"resjax.restore({str(run_directory)!r}, model=...), or on the command line pass the file that "
                       "defines it, --code FILE") from None


def network_of(experiment: Experiment, classes: tuple[str, ...], model: Any, state: TrainState) -> Network:
    """Return a run's network as a `Network`, which is custom unless the run's architecture describes it."""
    paper = experiment.architecture if experiment.architecture.model(len(classes)) == model else None
    return Network(f"{experiment.name}, step {state.step}", paper, experiment.data, classes, model, state.variables,
                   of_run(experiment.data, state.mean))
