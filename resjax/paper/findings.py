"""Claims with their verdicts and pictures, on one page: what the article's experiments come to."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

import matplotlib.pyplot as plt

from resjax.files import write_aside
from resjax.paper.figures import Drawing, save_figure
from resjax.paper.report import figure, page


def write_findings(title: str, drawings: Iterable[Drawing], folder: Path, name: str) -> str:
    """Save each picture, `NAME.md` and `NAME.html`; return the Markdown: a table of verdicts."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, sections = [], []
    for number, drawing in enumerate(drawings, 1):
        file = folder / f"{name}{number}.svg"
        save_figure(drawing.figure, file)
        plt.close(drawing.figure)
        rows += [f"| {drawing.title} | {claim} | {'holds' if holds else 'FAILS'} |" for claim, holds in drawing.claims]
        sections.append(figure({"title": drawing.title, "file": file.name, "claims": drawing.claims}, folder))
    text = "\n".join(["| experiment | claim and measurement | verdict |", "|---|---|---|", *rows]) + "\n"
    whole = page(title, "\n".join([f"<h1>{escape(title)}</h1>", *sections]))
    write_aside(folder / f"{name}.md", lambda aside: aside.write_text(text))
    write_aside(folder / f"{name}.html", lambda aside: aside.write_text(whole))
    return f"{text}\n{folder / name}.md, .html"
