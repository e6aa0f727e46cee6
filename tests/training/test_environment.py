"""A run that is resumed where something else computes says so, and keeps what it was trained with before."""

from resjax import Architecture, Data, Experiment, train
from resjax.training import run_directory


def tiny(steps):
    return Experiment(name="tiny", architecture=Architecture(depth=8, ghost_batch_size=16), data=Data(), steps=steps,
                      batch_size=16, log_steps=2, precise_batch_norm_steps=0)


def test_a_run_resumed_with_other_convolutions_says_so_and_keeps_both(tmp_path, monkeypatch, capsys):
    first = train(tiny(2), tmp_path)
    assert first["earlier"] == []
    monkeypatch.setattr(run_directory, "convolutions_of", lambda platform: "another library 1.0")
    capsys.readouterr()
    second = train(tiny(4), tmp_path)
    told = capsys.readouterr().err
    assert f"resumes at step 2; previously trained with {run_directory.computing(first)}" in told
    assert "now with jax" in told
    assert [before["convolutions"] for before in second["earlier"]] == [first["convolutions"]]
    assert second["convolutions"] == "another library 1.0"
    third = train(tiny(6), tmp_path)
    assert third["earlier"] == second["earlier"]  # nothing has changed since
    assert "previously trained" not in capsys.readouterr().err
