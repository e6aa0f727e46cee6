"""The committed results: every number in a committed table follows from the committed runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from resjax import read_metrics
from resjax.paper import TABLES

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
COMMITTED = sorted(RESULTS.glob("*/table*.json"))


def folder_of(table, row):
    return f"{row['experiment']}{'' if table['scale'] == 1 else '-x{:g}'.format(table['scale'])}"


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_rows_follow_from_the_runs(file):
    table = json.loads(file.read_text())
    assert table["rows"]
    for row in table["rows"]:
        runs = sorted((file.parent / folder_of(table, row)).glob("seed*"))
        results = [json.loads((run / "result.json").read_text()) for run in runs]
        (errors,) = row["measures"]
        assert errors["values"] == [result["test_top1_error"] for result in results]
        assert row["training_errors"] == [read_metrics(run, "train")[-1]["error"] for run in runs]
        assert errors["mean"] == pytest.approx(np.mean(errors["values"]))
        assert {result["steps"] for result in results} == {row["steps"]} == {round(64_000 * table["scale"])}


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.stem)
def test_figure_7s_ordering_is_told_as_it_is(file):
    """Section 4.2: residual nets respond more weakly than plain ones, deeper ones more weakly than shallower ones."""
    table = json.loads(file.read_text())
    titles = {row.experiment: row.title for row in TABLES[table["table"]].rows}
    means = {titles[row["experiment"]]: np.mean(json.loads(
        (file.parent / folder_of(table, row) / "seed0" / "responses.json").read_text())["deviations"])
        for row in table["rows"]}
    (figure,) = [figure for figure in table["figures"] if figure["title"].startswith("Figure 7")]
    assert bool(figure["claims"]) == (len(table["rows"]) > 1)  # one net is compared with nothing
    for claim, holds in figure["claims"]:
        low, high = claim.split(":")[0].split(" has smaller responses than ")
        assert (means[low] < means[high]) == holds
    text = file.with_suffix(".md").read_text()
    assert all(f"{'holds' if holds else 'FAILS'}: {claim}" in text for claim, holds in figure["claims"])


def test_shortened_tables_never_stand_as_the_reproduction():
    for file in COMMITTED:
        table = json.loads(file.read_text())
        assert ("not a reproduction" in file.with_suffix(".md").read_text()) == (table["scale"] != 1)
