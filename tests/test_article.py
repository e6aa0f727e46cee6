"""Why residual networks train: what must hold to the bit does, and verdicts are computed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import pytest

from resjax import BadInput
from resjax.catalogue import load_file
from resjax.models import ResidualMLP
from resjax.paper import Drawing, Verdict, write_findings

ARTICLE = Path(__file__).parents[1] / "experiments" / "article.py"


@pytest.fixture
def article(monkeypatch):
    """The script with one seed and few steps."""
    module = load_file(ARTICLE)
    monkeypatch.setattr(module, "SEEDS", (0,))
    return module


def test_the_identity_is_exact(article, monkeypatch):
    monkeypatch.setattr(article, "fit", lambda model, seed, weight_decay=0.0: article.Fit(
        jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 8, 8, 1))), None))
    claims = article.identity().claims
    assert [verdict.holds for verdict in claims[:4]] == [True] * 4
    assert not claims[4].holds  # untrained nets are all alike: nothing moved towards the identity
    plt.close("all")


def test_a_net_of_its_own_is_trained(article):
    fit = article.fit(ResidualMLP((2,), (16,), 10, norm_group=128), 0, steps=30)
    assert fit.losses.shape == (30,)
    assert fit.loss < 0.7 * fit.losses[0]
    without = article.fit(ResidualMLP((2,), (16,), 10, gain=0.1), 0, steps=30, peak=1e-4)  # no batch norm
    assert without.loss < without.losses[0]


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
