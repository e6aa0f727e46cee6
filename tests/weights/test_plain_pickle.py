"""Pickles as plain values: what Python's own reader makes of plain ones, and nothing of anything else."""

import argparse
import collections
import datetime
import functools
import pathlib
import pickle

import numpy as np
import pytest

from resjax import BadInput
from resjax.weights import plain_pickle
from resjax.weights.plain_pickle import Inert, Name, PickleReader

PLAIN = {
    "none": None, "truth": [True, False], "whole": [0, 1, -1, 255, 256, 65535, 65536, -2**31, 2**31, 2**63, -2**100],
    "real": [0.5, -1e300, float("inf")], "text": ["", "a", "ä€😀", "x" * 300, "y" * 70_000],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, (4, 5))], "lists": [[], [[1], [2, [3]]]],
    "nested": {"a": {"b": {"c": {}}}}, "shared": [("s", "s")] * 3}


def read(content):
    return PickleReader(content, lambda maker, arguments: None, lambda identity: None).load()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_are_read_as_pythons_own_reader_does(protocol):
    values = {name: value for name, value in PLAIN.items() if protocol or name != "text"}
    values["bytes"] = b"\x00\xff" * 200 if protocol >= 3 else None  # before protocol 3 they are a call
    content = pickle.dumps(values, protocol)
    assert read(content) == values == pickle.loads(content)
    if not protocol:
        assert read(pickle.dumps(["plain"], 0)) == ["plain"]


@pytest.mark.parametrize("protocol", range(6))
def test_ordered_dictionaries_are_dictionaries(protocol):
    ordered = collections.OrderedDict([("b", 1), ("a", 2)])
    found = read(pickle.dumps({"x": ordered, "y": collections.defaultdict(list, {"a": [1]})}, protocol))
    assert list(found["x"].items()) == [("b", 1), ("a", 2)]
    assert found["y"] == {"a": [1]}
    # as Python 2 wrote it: a call with a list of pairs
    assert read(b"ccollections\nOrderedDict\n(((S'b'\nI1\nl(S'a'\nI2\nlltR.") == {"b": 1, "a": 2}


@pytest.mark.parametrize("protocol", range(6))
def test_objects_are_inert(protocol):
    for value in (argparse.Namespace(lr=0.1), datetime.datetime(2026, 1, 1), pathlib.PurePosixPath("/a"), {1}, 1j,
                  frozenset("ab"), np.float64(91.2), np.arange(3), functools.partial(print, 1), np.dtype("f4")):
        found = read(pickle.dumps([value, "after"], protocol))
        assert isinstance(found[0], Inert), value
        assert found[1] == "after"
    assert read(pickle.dumps(dict, protocol)) == Name("__builtin__.dict" if protocol < 3 else "builtins.dict")


def test_no_key_but_a_string_is_kept():
    assert read(pickle.dumps({1: "a", (2, 3): "b", "c": "d", None: "e"})) == {"c": "d"}


def test_whole_networks_are_told_from_other_objects():
    content = b"\x80\x02cmodels\nNet\n)\x81}(X\x08\x00\x00\x00_modules}X\x0b\x00\x00\x00_parameters}ub."
    assert read(content).network
    assert read(content).maker == "models.Net"
    assert not read(content.replace(b"_modules", b"_module_")).network


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.999])
def test_cut_pickles_are_an_error(cut):
    content = pickle.dumps(PLAIN)
    with pytest.raises((ValueError, LookupError)):
        read(content[:int(cut * len(content))])


def test_work_is_bounded(monkeypatch):
    monkeypatch.setattr(plain_pickle, "MOST_OPCODES", 1000)
    assert len(read(b"(" + b"N" * 998 + b"t.")) == 998
    shared = b"ccollections\nOrderedDict\nh\x00\x85R"
    pairs = b"](" + b"(K\x01K\x02t" * 100 + b"eq\x00" + shared * 9  # one list, nine times
    for much in (b"(" + b"N" * 999 + b"t.", pairs):
        with pytest.raises(BadInput, match="contains more than the tensors of a ResNet"):
            read(much)
    with pytest.raises(ValueError, match="Exceeds the limit"):  # of digits, which is Python's own
        read(b"I" + b"9" * 5000 + b"\n.")
