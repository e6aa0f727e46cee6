"""The log as TensorBoard reads it while a run trains, and as a table once it is finished."""

import csv
import json

import jax
import pytest

from resjax import BadInput, Interrupted, read_metrics, train

pytest.importorskip("tensorboardX")
ONE = jax.devices()[:1]


def events(file):
    """Read the events of a file: records of length (8 bytes), its checksum (4), the event, its checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    content, start, found = file.read_bytes(), 0, []
    while start < len(content):
        length = int.from_bytes(content[start:start + 8], "little")
        found.append(Event.FromString(content[start + 12:start + 12 + length]))
        start += 16 + length
    return found


def test_a_log_is_seen_as_it_comes_and_a_stop_undoes_its_later_lines(small, tmp_path):
    seen = []

    def cut(line, network):
        (file,) = (tmp_path / "logs").iterdir()
        seen.append({value.tag: value.simple_value for value in events(file)[-1].summary.value})
        if line["step"] == 4:
            raise Interrupted("enough", 2)
        return {"norm": 1.5}

    with pytest.raises(Interrupted):
        train(small(), tmp_path / "run", ONE, callback=cut, tensorboard=tmp_path / "logs")
    assert {"train/loss", "train/error", "train/learning_rate"} <= seen[0].keys()  # before the run goes on
    train(small(), tmp_path / "run", ONE, tensorboard=tmp_path / "logs")
    (tmp_path / "run" / "result.json").unlink()
    train(small(), tmp_path / "run", ONE, tensorboard=tmp_path / "logs")  # evaluates again
    files = [events(file) for file in sorted((tmp_path / "logs").iterdir())]
    assert [(version.file_version, start.session_log.status) for version, start, *_ in files] == [
        ("brain.Event:2", 1)] * 3  # START
    assert [start.step for _, start, *_ in files] == [0, 2, 6]
    kept = []
    for _, start, *written in files:  # TensorBoard forgets what it has from the step of a start on
        kept = [event for event in kept if event.step < start.step] + written
    lines = read_metrics(tmp_path / "run")
    assert [event.step for event in kept] == [line["step"] for line in lines]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [2, 4, 6]
    for event, line in zip(kept, lines, strict=True):
        for value in event.summary.value:
            assert value.simple_value == pytest.approx(line[value.tag.partition("/")[2]], rel=1e-6)
    with (tmp_path / "run" / "metrics.csv").open() as table:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(table)]
    assert [{key: row[key] if key == "kind" else json.loads(row[key]) for key in row} for row in rows] == lines


def test_two_runs_are_not_drawn_as_one(small, tmp_path, capsys):
    train(small(steps=2), tmp_path / "one", ONE)
    train(small(steps=2), tmp_path / "one", ONE, tensorboard=tmp_path / "logs")
    assert "no TensorBoard logs were written; use resjax report --tensorboard" in capsys.readouterr().err
    train(small(steps=4), tmp_path / "one", ONE, tensorboard=tmp_path / "logs")
    with pytest.raises(BadInput, match="logs contains TensorBoard logs of another run"):
        train(small(steps=2), tmp_path / "two", ONE, tensorboard=tmp_path / "logs")
    assert len(list((tmp_path / "logs").iterdir())) == 1
    train(small(steps=4), tmp_path / "one", ONE, tensorboard=tmp_path / "logs")
    assert "no TensorBoard logs were written" not in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_named_before_anything_is_trained(small, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/logs/.*: cannot be written \(Not a directory\)"):
        train(small(steps=2), tmp_path / "run", ONE, tensorboard=tmp_path / "file" / "logs")
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(BadInput, match=r"TensorBoard logs need tensorboardX: pip install 'resjax\[tensorboard\]'"):
        train(small(steps=2), tmp_path / "other", ONE, tensorboard=tmp_path / "logs")
