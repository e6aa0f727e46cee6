"""A run that is resumed where something else computes says so, and keeps what it was trained with before."""

import pytest

from resjax import train
from resjax.training import run_directory


@pytest.mark.usefixtures("one_device")
def test_a_run_resumed_with_other_convolutions_says_so_and_keeps_both(small, tmp_path, monkeypatch, capsys):
    first = train(small(steps=2), tmp_path)
    assert first["earlier"] == []
    monkeypatch.setattr(run_directory, "convolutions_of", lambda platform: "another library 1.0")
    capsys.readouterr()
    second = train(small(steps=4), tmp_path)
    told = capsys.readouterr().err
    assert f"resumes at step 2; previously trained with {run_directory.computing(first)}" in told
    assert "now with jax" in told
    assert [before["convolutions"] for before in second["earlier"]] == [first["convolutions"]]
    assert second["convolutions"] == "another library 1.0"
    third = train(small(steps=6), tmp_path)
    assert third["earlier"] == second["earlier"]  # nothing has changed since
    assert "previously trained" not in capsys.readouterr().err


def test_the_number_of_devices_affects_the_bits():
    one, eight = ({"versions": {"jax": "0.10.2"}, "devices": {"kind": "H100", "count": count}} for count in (1, 8))
    assert run_directory.computing(one) == "jax 0.10.2 on H100, convolutions by XLA"
    assert run_directory.computing(eight) == "jax 0.10.2 on 8 x H100, convolutions by XLA"
