"""The notebooks run from top to bottom.

`python tests/experiments/test_notebook.py NAME` writes what the cells of `docs/learn/NAME.ipynb` print into it.
"""

import ast
import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import matplotlib as mpl
import pytest

LEARN = Path(__file__).parents[2] / "docs" / "learn"
SHORTER = {"block_to_table": ("architecture=resjax.Architecture(depth=20, shortcut=shortcut), steps=60",
                              "architecture=resjax.Architecture(depth=8, shortcut=shortcut), steps=60")}


def run_cells(notebook):
    """Run the cells in the current folder, and yield each one with what it printed and the text of its last value."""
    names = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        text = "".join(cell["source"])
        body, value, printed = ast.parse(text).body, None, io.StringIO()
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        with redirect_stdout(printed):
            exec(compile(ast.Module(body, []), "cell", "exec"), names)
            if last:
                value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        yield cell, printed.getvalue(), "" if value is None or text.endswith(";") else repr(value)


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("name", sorted(file.stem for file in LEARN.glob("*.ipynb")))
def test_every_cell_runs_and_says_what_it_said(name, tmp_path, monkeypatch):
    """Numbers differ by machine; all words around them are as they were recorded. What is trained has 8 layers."""
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    text, (before, after) = (LEARN / f"{name}.ipynb").read_text(), SHORTER.get(name, ("", ""))
    assert before in text
    for cell, printed, value in run_cells(json.loads(text.replace(before, after))):
        recorded = ["".join(output.get("text", output.get("data", {}).get("text/plain", []))) for output in
                    cell["outputs"]]
        assert [words(text) for text in (printed, value) if text] == [words(text) for text in recorded]
        assert all(len(line) <= 200 for line in (printed + value).splitlines())
    if name == "own_research":
        assert json.loads((tmp_path / "runs" / "paper" / "result.json").read_text())["test_top1_error"] < 30


def words(text):
    """Leave out numbers."""
    return "".join(letter for letter in text if not letter.isdigit() and letter not in " .,")


def record(name):
    """Write what the cells print into a notebook."""
    file = LEARN / f"{name}.ipynb"
    notebook = json.loads(file.read_text())
    os.chdir(tempfile.mkdtemp())
    for number, (cell, printed, value) in enumerate(run_cells(notebook), 1):
        shown = {"output_type": "execute_result", "execution_count": number, "metadata": {},
                 "data": {"text/plain": [value]}}
        cell["execution_count"] = number
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": printed.splitlines(keepends=True)}
                           ] * bool(printed) + [shown] * bool(value)
    file.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(record(sys.argv[1]))
