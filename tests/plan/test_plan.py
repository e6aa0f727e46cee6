"""Plans: answered, kept and told, with compilers that are not asked; what is refused says what would be right."""

import json
import math
import os

import optax
import pytest
from test_accelerators import LOOP

from resjax import Data, Optimizer, Own
from resjax.console.plan import lines, plan, tables_with
from resjax.experiment_files import find, load_runs
from resjax.paper.tables import TABLES
from resjax.plan import classifier
from resjax.plan import compile as compilers
from resjax.plan import plan as planning
from resjax.plan.compile import Compiled, Job, Program, workload_of
from resjax.plan.devices import DEVICES, Machine
from resjax.plan.plan import largest_batch, plan_key, plan_run
from resjax.system.errors import BadInput


def test_the_largest_batch_is_found_by_few_trials():
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= 200

    assert largest_batch(fits, 32, 1024) == 192
    assert len(tried) <= math.log2(1024 / 32)
    assert largest_batch(lambda batch: False, 32, 64) == 0


def test_errors_say_what_would_be_right(small, monkeypatch):
    with pytest.raises(BadInput, match="on is 'h1000'; it must be one of h100, h200"):
        plan_run(small(), "h1000")
    with pytest.raises(BadInput, match="batch-size 32 is not divisible by 3 devices; use 1, 2, 4"):
        plan_run(small(), "h100", 3)
    monkeypatch.setattr(compilers, "find_spec", lambda name: None)
    for name, command in (("h100", r"pip install 'jax\[cuda12\]'"), ("v5e", r"pip install 'jax\[tpu\]'")):
        with pytest.raises(BadInput, match=command):
            plan_run(small(), name)
    monkeypatch.setattr(compilers, "find_spec", lambda name: True)
    with pytest.raises(BadInput, match="TPU v5e comes in slices of 1, 4, 8, 16, 32, 64, 128, 256 chips, not 2"):
        plan_run(small(), "v5e", 2)
    with pytest.raises(BadInput, match="devices is 4; it must be a multiple of hosts, 3"):
        plan_run(small(), "h100", 4, 3)


@pytest.fixture
def compiled(monkeypatch):
    """Stand in for the compilers, with programs that need 40 bytes an image."""
    batches = []

    def programs(experiment, devices):
        batches.append(experiment.batch_size)
        for kind in ("train", "statistics", "evaluate"):
            yield kind, Program(lambda: None, 2)

    def stand_in(job, name, stop):
        return Compiled(LOOP, 10, 20, 40 * job.run.batch_size, 0.5)

    monkeypatch.setattr(compilers, "target_devices", lambda machine: range(machine.count))
    monkeypatch.setattr(classifier, "programs_of_classifier", programs)
    monkeypatch.setattr(planning, "compile_apart", stand_in)
    return batches


def test_a_plan_is_made_once_and_told(small, compiled):
    first = plan_run(small(), "h100", 2)
    assert list(first["programs"]) == ["train", "statistics", "evaluate"]
    assert first == json.loads(json.dumps(first))
    assert plan_run(small(), "h100", 2) == first
    assert compiled == [32]
    assert plan_run(small(seed=1, steps=12), "h100", 2)["hours"]["train"] == 2 * first["hours"]["train"]
    text = "\n".join(lines("h100", first))
    assert "small on 2 x NVIDIA H100 SXM, 80 GB, batch 32, float32" in text
    assert "all-reduce" in text
    assert "NVIDIA H100 datasheet" in text


def test_what_does_not_fit_is_told_with_what_does(small, compiled, monkeypatch):
    monkeypatch.setattr(planning, "usable_memory", lambda device: 40 * 100)
    with pytest.raises(BadInput, match=r"batch-size 256 does not fit into .* the largest batch that fits is 96 "):
        plan_run(small(batch_size=256), "h100")
    assert compiled[0] == 256
    monkeypatch.setattr(planning, "usable_memory", lambda device: 40)
    with pytest.raises(BadInput, match=r"neither does a batch of 16, the smallest that architecture\.ghost-batch"):
        plan_run(small(), "h100", 2)


def test_what_does_not_fit_is_found_out_once(small, compiled, monkeypatch):
    monkeypatch.setattr(planning, "usable_memory", lambda device: 40 * 100)
    for _ in range(2):
        with pytest.raises(BadInput, match="the largest batch that fits is 96"):
            plan_run(small(batch_size=256), "h100")
    assert compiled.count(256) == 1


@pytest.mark.parametrize("damage", [
    lambda file: file.write_bytes(file.read_bytes()[:-20]), lambda file: file.write_text("{}"),
    lambda file: file.write_text(file.read_text().replace('"devices": 2', '"devices": 3')),
    lambda file: (file.unlink(), file.mkdir())])
def test_a_damaged_plan_is_made_again(damage, small, compiled, tmp_path):
    def planned():
        return plan_run(small(), "h100", 2) | {"compile_seconds": 0.0}

    first = planned()
    (kept,) = (tmp_path / "cache" / "plans").iterdir()
    damage(kept)
    with pytest.warns(UserWarning, match="planning the run again|cannot cache the plan"):
        assert planned() == first
    assert compiled == [32, 32]
    if kept.is_file():
        assert planned() == first
        assert compiled == [32, 32]


def test_an_edited_network_is_another_plan(small, tmp_path, monkeypatch):
    file, keys = tmp_path / "own.py", []
    for filters in (16, 64):
        file.write_text("from resjax import Experiment, Mixup, Own, cifar_resnet\ndef build(run, classes):\n    return "
                        f"cifar_resnet(8, filters={filters}).clone(classes=classes)\nEXPERIMENTS = "
                        "{'own': Experiment(name='own', own=Own(model=build, augment=Mixup(0.2)))}\n")
        keys += [plan_key(Job(load_runs(file)["own"], Machine(DEVICES["h100"]))) for _ in range(2)]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    optimizers = (optax.sgd(0.1), optax.sgd(0.1), optax.sgd(0.2))
    runs = (small(own=Own(optimizer=each)) for each in optimizers)
    same, again, other = (plan_key(Job(run, Machine(DEVICES["h100"]))) for run in runs)
    assert same == again != other
    before = plan_key(Job(small(), Machine(DEVICES["h100"])))
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} --xla_gpu_enable_triton_gemm=false")
    assert plan_key(Job(small(), Machine(DEVICES["h100"]))) != before


@pytest.mark.parametrize(("changes", "statistics", "evaluate"), [
    ({}, 1, 12), ({"evaluate_test": True}, 1, 3 * 12),
    ({"data": Data(source="digits", validation_images=300)}, 1, 12 + 3 * 10),
    ({"evaluate_test": True, "optimizer": Optimizer(ema_decay=0.9)}, 3, 3 * 12),
    ({"optimizer": Optimizer(ema_decay=0.9)}, 1, 12)])  # between the steps, nothing is measured
def test_all_evaluations_count(small, changes, statistics, evaluate):
    """Of 360 test images, twelve batches, after two, four and all six steps; precise batch norm takes two batches."""
    batches = workload_of(small(evaluate_steps=2, **changes)).batches
    assert batches == {"train": 6, "statistics": 2 * statistics, "evaluate": evaluate}


def test_hours_of_a_whole_table(compiled, monkeypatch, capsys, tmp_path):
    """All rows of Table 6, with the flags of the one that is named; what cannot be planned is said."""
    monkeypatch.setattr(planning, "usable_memory", lambda device: 40 * 200)
    monkeypatch.setattr(compilers, "hide_devices", lambda: None)
    flags = ["--on", "h100", "--devices", "2", "--whole-table", "--json", str(tmp_path / "plan.json")]
    plan(find("resnet20"), flags, "resjax plan resnet20")
    (runs,) = json.loads((tmp_path / "plan.json").read_text())["tables"].values()
    assert list(runs) == [row.experiment for row in TABLES["table6"].rows]
    hours = [found["run_hours"] for found in runs.values()]
    said = capsys.readouterr().out.splitlines()
    assert " ".join(said[-1].split()) == f"11 of 11 runs, one seed per row {sum(hours):.2f} {2 * sum(hours):.1f}"
    assert hours[0] > 0
    ensemble = tables_with("resnet152")[TABLES["table5"].title]
    assert [*ensemble] == ["resnet34B", "resnet34C", "resnet50", "resnet101", "resnet152", "resnet152, seed 1"]
    with pytest.raises(BadInput, match="no table of the paper contains resnet20_tuned"):
        plan(find("resnet20_tuned"), flags, "resjax plan resnet20_tuned")
