"""Why residual networks train: what must hold to the bit does, and verdicts are computed."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import pytest

from resjax import BadInput
from resjax.experiment_files import load_file
from resjax.models import ResidualMLP
from resjax.paper import Drawing, Verdict, write_findings
from resjax.training import fit

ARTICLE = Path(__file__).parents[1] / "experiments" / "article.py"


@pytest.fixture
def article(monkeypatch):
    """The script with one seed and few steps."""
    module = load_file(ARTICLE)
    monkeypatch.setattr(module, "SEEDS", (0,))
    return module


def test_the_identity_is_exact(article, monkeypatch):
    def untrained(model, seed, weight_decay=0.0):
        variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 8, 8, 1)))
        return SimpleNamespace(variables=variables), None

    monkeypatch.setattr(article, "trained", untrained)
    claims = article.identity().claims
    assert [verdict.holds for verdict in claims[:4]] == [True] * 4
    assert not claims[4].holds  # untrained nets are all alike: nothing moved towards the identity
    plt.close("all")


def test_a_net_of_ones_own_is_trained_in_memory(article):
    model, data = ResidualMLP((2,), (16,), 10, ghost_batch_size=article.BATCH), article.digits()
    recipe = article.recipe(0, steps=30)
    state, losses = fit(recipe, model, data)
    assert losses.shape == (30,)
    assert losses[-5:].mean() < 0.7 * losses[0]
    _, further = fit(recipe, model, data, state)
    assert further[0] < losses[0] - 0.5  # from where it stood
    assert int(state.step) == 30  # and what it began with is still there
    _, plain = fit(article.recipe(0, steps=30, learning_rate=1e-4), ResidualMLP((2,), (16,), 10, gain=0.1), data)
    assert plain[-5:].mean() < plain[0]  # no batch norm


def test_findings_are_saved_with_their_verdicts(tmp_path):
    figure, axis = plt.subplots()
    axis.plot([1, 2])
    drawings = [Drawing("1 One", figure, [Verdict("it is < so (1 against 2)", True), Verdict("it is not", False)])]
    text = write_findings("Title", drawings, tmp_path / "new", "findings")
    assert "| 1 One | it is < so (1 against 2) | holds |\n| 1 One | it is not | FAILS |" in text
    page = (tmp_path / "new" / "findings.html").read_text()
    assert "✓ it is &lt; so" in page
    assert "✗ it is not" in page
    assert "<svg" in page
    assert (tmp_path / "new" / "findings1.svg").exists()


def test_an_experiment_that_does_not_exist_is_refused(article, tmp_path):
    with pytest.raises(BadInput, match="only is 7; the experiments are 1 to 5"):
        article.article(tmp_path, only=7)
