"""Why residual networks train: what must hold to the bit does, verdicts are computed, and measurements are kept."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.article import measurement
from experiments.article.measurement import Found, code_of, measured, read_measured
from resjax import BadInput, cifar_resnet, read_metrics, train
from resjax.analysis.landscape import bends_down
from resjax.experiment_files import load_file
from resjax.models import ResidualMLP
from resjax.training import train_in_memory
from resjax.training.step import state_digest

ARTICLE = Path(__file__).parents[2] / "experiments" / "article" / "measurements.py"


@pytest.fixture
def article(monkeypatch):
    """The script with one seed and few steps."""
    module = load_file(ARTICLE)
    monkeypatch.setattr(module, "SEEDS", (0,))
    return module


def test_the_identity_is_exact(article, monkeypatch):
    def untrained(model, weight_decay=0.0):
        variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
        return [(SimpleNamespace(variables=variables), None)]

    monkeypatch.setattr(article, "trained", untrained)
    claims = article.identity().claims
    assert [claims[f"{family}.{way}"] for family in ("dense", "conv") for way in ("forward", "backward")] == [True] * 4
    assert not claims["decay"]  # untrained nets are all alike: nothing moved towards the identity


def test_a_net_of_ones_own_is_trained_in_memory(article):
    model, data = ResidualMLP((2,), (16,), 10, ghost_batch_size=article.BATCH), article.digits()
    recipe = article.recipe(0, steps=30)
    state, losses = train_in_memory(recipe, model, data)
    assert losses.shape == (30,)
    assert losses[-5:].mean() < 0.7 * losses[0]
    _, further = train_in_memory(recipe, model, data, state)
    assert further[0] < losses[0] - 0.5  # from where it stood
    assert int(state.step) == 30  # and what it began with is still there
    recipe = article.recipe(0, steps=30, learning_rate=1e-4)
    _, plain = train_in_memory(recipe, ResidualMLP((2,), (16,), 10, gain=0.1), data)
    assert plain[-5:].mean() < plain[0]  # no batch norm


def test_steps_in_memory_are_those_of_a_run(article, tmp_path):
    """`train_in_memory` leaves out the run directory, and changes no bit of what is learned."""
    model, recipe = cifar_resnet(8), replace(article.recipe(0, steps=12), precise_batch_norm_steps=0, log_steps=4)
    state, losses = train_in_memory(recipe, model, article.digits())
    result = train(recipe, tmp_path, jax.devices()[:1], model=model, data=article.digits())
    assert state_digest(state) == result["state_digest"]
    logged = [line["loss"] for line in read_metrics(tmp_path, "train")]
    assert np.allclose(logged, losses.reshape(3, 4).mean(1), rtol=1e-6)


def test_weights_are_rescaled_as_if_drawn_with_another_variance(article):
    images = jnp.ones((2, 8, 8, 1))
    he, wide = (jax.jit(ResidualMLP((1,), (16,), 10, gain=gain).init)(jax.random.key(0), images) for gain in (2.0, 8.0))
    rescaled = article.with_gain(he, 8)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.allclose(a, b, rtol=1e-6)), rescaled, wide))


def test_a_surface_bends_down_where_it_does():
    rows, columns = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9), indexing="ij")
    assert not bends_down(rows**2 + columns**2).any()
    assert bends_down(rows**2 - columns**2).all()  # a saddle
    assert bends_down(rows * columns).all()  # a saddle, turned
    assert bends_down(rows**3).tolist() == [[row < 0] * 7 for row in np.linspace(-1, 1, 9)[1:-1].round(9)]


def experiment_file(folder, body):
    folder.mkdir(exist_ok=True)
    file = folder / "mine.py"
    file.write_text("from experiments.article.measurement import Found\nCALLS = []\n" + body)
    return load_file(file)


def test_what_was_measured_is_measured_again_only_by_other_code(tmp_path):
    body = ('def helper():\n    return 7.123456789\n\ndef other():\n    return 1\n\ndef experiment():\n'
            '    """Measure."""\n    CALLS.append(1)\n    return Found({"x": helper()}, {"holds": helper() > 1})\n')
    first = experiment_file(tmp_path, body)
    one = measured(first.experiment, 3, tmp_path / "kept")
    assert one.found == Found({"x": 7.12346}, {"holds": True})
    assert (one.seeds, len(first.CALLS)) == (3, 1)
    assert one.code.startswith("def experiment")
    assert measured(first.experiment, 3, tmp_path / "kept").found == one.found
    assert len(first.CALLS) == 1  # read, not measured
    second = experiment_file(tmp_path / "two", body.replace('"""Measure."""', '"""Say it otherwise."""  # a comment')
                             .replace("return 1\n", "return 2\n"))  # of what the experiment does not use
    assert measured(second.experiment, 3, tmp_path / "kept").found == one.found
    assert not second.CALLS
    third = experiment_file(tmp_path / "three", body.replace("7.123456789", "0.5"))  # of what it uses
    assert measured(third.experiment, 3, tmp_path / "kept").found == Found({"x": 0.5}, {"holds": False})
    assert read_measured(tmp_path / "kept" / "experiment.json").found.values["x"] == 0.5


def test_what_was_measured_with_another_library_is_measured_again(tmp_path, monkeypatch):
    """Its verdicts may be others."""
    module = experiment_file(tmp_path, "def experiment():\n    CALLS.append(1)\n    return Found({}, {'x': True})\n")
    for library, calls in (("today", 1), ("today", 1), ("tomorrow", 2)):
        monkeypatch.setattr("experiments.article.measurement.library", lambda library=library: library)
        measured(module.experiment, 3, tmp_path / "kept")
        assert len(module.CALLS) == calls


def test_what_was_measured_with_other_defaults_is_measured_again(tmp_path, monkeypatch):
    """No experiment states the momentum, for example."""
    monkeypatch.setattr(measurement.resjax, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "experiment").mkdir()
    digests = []
    for momentum in (0.9, 0.8, 0.9):
        (tmp_path / "experiment" / "optimizer.py").write_text(f"momentum = {momentum}")
        digests.append(measurement.library.__wrapped__())
    assert digests[0] == digests[2] != digests[1]


def test_the_results_that_are_kept_are_of_todays_code(article):
    kept = ARTICLE.parents[1] / "results" / "article" / "measured"
    fresh = load_file(ARTICLE)  # with all its seeds
    for experiment in fresh.IN_ORDER:
        one = read_measured(kept / f"{experiment.__name__}.json")
        assert one.seeds == len(fresh.SEEDS)
        assert f"def {experiment.__name__}" in code_of(experiment)


def test_one_experiment_leaves_the_whole_page_as_it_is(article, monkeypatch, tmp_path):
    def landscape():
        grid = (np.hypot(*np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5))) + 0.5).tolist()
        kinds = {"plain": 2.5, "residual": 1.5}
        return Found({"span": 0.5, "points": 5, "images": 8, "layers": 26, "centre": kinds, "bent": kinds,
                      "grids": {kind: [grid] for kind in kinds}}, {"lower": True, "rounder": True})

    landscape.__module__ = article.__name__
    monkeypatch.setattr("experiments.article.measurement.code_of", lambda _: "the same")
    monkeypatch.setattr(article, "IN_ORDER", (article.degradation, landscape))
    (tmp_path / "article.html").write_text("the whole page")
    article.article(tmp_path, only=2)
    assert (tmp_path / "article.html").read_text() == "the whole page"
    page = (tmp_path / "only2.html").read_text()
    assert 'id="en-landscape"' in page
    assert 'id="en-degradation"' not in page
    assert 'id="en-findings"' not in page
    assert "All experiments together" not in page


def test_an_experiment_that_does_not_exist_is_refused(article, tmp_path):
    with pytest.raises(BadInput, match="only is 7; the experiments are 1 to 6"):
        article.article(tmp_path, only=7)
