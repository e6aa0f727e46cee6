"""Every field of every value that an experiment is made of refuses what it cannot work with, by its name."""

import copy
import dataclasses
import math
import pickle
import types
import typing
from pathlib import Path

import numpy as np
import optax
import pytest

from resjax import BadInput, Experiment, Own
from resjax.detection import Detection
from resjax.experiment import Architecture, Data, Optimizer, Photographs
from resjax.system.files import file_name

HUGE = 10**5000  # of more digits than Python writes
OF_TYPE = {
    int: [1.5, math.nan, math.inf, -math.inf, "1", True, None, HUGE, 2**40, np.int64(3), [1]],
    float: [math.nan, math.inf, -math.inf, 1e300, -1e300, 1e-60, HUGE, "1", True, None, [0.1]],
    bool: [1, 0, "True", None, math.nan], str: [1, None, Path("x"), b"x", ["x"], math.inf],
    Path: ["x", 1, b"x", True, math.nan]}


def values_of(kind, prefix=""):
    """List a dataclass and those of its fields, with the place of each."""
    found = [(kind, prefix)]
    for name, hint in typing.get_type_hints(kind).items():
        arms = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        found += [each for arm in arms if dataclasses.is_dataclass(arm) for each in values_of(arm, f"{name}.")]
    return found


def wrong_values(hint):
    """List values that are not of a type; an empty list means that the test does not know it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return wrong_values(arguments[0])
    if origin in (types.UnionType, typing.Union):
        arms = [arm for arm in arguments if arm is not types.NoneType]
        wrong = [value for value in wrong_values(arms[0]) if value is not None or len(arms) == len(arguments)]
        return wrong if len(arms) == 1 else [value for value in wrong if type(value) not in arms]
    if origin is tuple:
        items = [(value,) * (1 if Ellipsis in arguments else len(arguments)) for value in wrong_values(arguments[0])]
        return [*items, None, 1, "x", [1.0], [], np.ones(2)]
    if origin is typing.Literal:
        return ["nothing", 1, None, True, math.nan, np.array(arguments), [arguments[0]]]
    if dataclasses.is_dataclass(hint):
        return [None, "x", {}, optax.adam(1e-3), hint, types.SimpleNamespace()]
    return OF_TYPE.get(hint, [])


KINDS = {kind: prefix for run in (Experiment, Detection) for kind, prefix in values_of(run) if kind is not Own}
FIELDS = [(kind, prefix, field.name) for kind, prefix in KINDS.items() for field in dataclasses.fields(kind)]


def test_all_values_are_found():
    assert {Experiment, Architecture, Data, Photographs, Optimizer, Detection} < set(KINDS)
    assert len(KINDS) == 10
    assert len(FIELDS) > 90


@pytest.mark.parametrize(("kind", "prefix", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_field_refuses_what_it_cannot_work_with(kind, prefix, name):
    usual = {Experiment: {"name": "x"}, Detection: {"name": "x", "initialize_from": "resnet20"}}.get(kind, {})
    kind(**usual)
    wrong = wrong_values(typing.get_type_hints(kind, include_extras=True)[name])
    assert wrong, "a type that this test does not know"
    for value in wrong:
        with pytest.raises(BadInput) as told:
            kind(**usual | {name: value})
        message = str(told.value)
        assert f"{prefix}{name}".replace("_", "-") in message
        assert len(message) < 500


@pytest.mark.parametrize(("kind", "given", "message"), [
    (Experiment, {"depth": 20}, "Experiment has no field 'depth'; it is a field of architecture: architecture=Arch"),
    (Experiment, {"name": "x", "learning_rate": 0.1}, "it is a field of optimizer: optimizer=Optimizer(learning_rate="),
    (Experiment, {"name": "x", "colour_noise": 0.1}, "it is a field of data: data=Photographs(colour_noise=...)"),
    (Detection, {"name": "x", "rpn_channels": 8}, "it is a field of detector: detector=Detector(rpn_channels=...)"),
    (Architecture, {"dept": 20}, "Architecture has no field 'dept'; did you mean 'depth'?"),
    (Optimizer, {"lr": 0.1}, "Optimizer has no field 'lr'; its fields are "),
    (Architecture, 20, "Architecture(20): pass its fields by name, such as family=...")])
def test_a_field_that_there_is_not_is_told_with_what_was_meant(kind, given, message):
    with pytest.raises(BadInput) as told:
        kind(**given) if isinstance(given, dict) else kind(given)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_runs_are_copied_changed_and_sent_to_other_processes():
    run = Experiment(name="x", architecture=Architecture(depth=8))
    assert pickle.loads(pickle.dumps(run)) == copy.deepcopy(run) == dataclasses.replace(run) == run
    with pytest.raises(BadInput, match="Experiment has no field 'depth'"):
        dataclasses.replace(run, depth=20)


def test_steps_that_are_counted_beyond_32_bits():
    with pytest.raises(BadInput, match="must fit in 32 bits"):
        Experiment(name="x", steps=2**31 - 1)
    Experiment(name="x", steps=2**31 - 1, precise_batch_norm_steps=0)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "", ".", "..", "a/../../b", "x" * 5000, "é" * 300, "a\x1b[31m\n\0",
                                  "\udcff", "~nobodyhere", ".hidden", " "])
def test_a_run_directory_stays_under_runs_whatever_it_is_called(name, tmp_path):
    folder = tmp_path / file_name(name)
    folder.mkdir()
    assert folder.resolve().parent == tmp_path.resolve()
    assert folder.name.isprintable()
    assert not folder.name.startswith(".")
    assert file_name(name) != file_name(f"{name}/")


def test_plain_names_stay_as_they_are():
    for name in ("resnet20", "plain-20_B.2", "my net", "Netz ä", "lr=0.1,wd=1e-4"):
        assert file_name(name) == name
