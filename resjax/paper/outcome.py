"""What `reproduce` leaves in the folder of the runs: the table and its figures, as Markdown and as JSON."""

from collections.abc import Sequence
from pathlib import Path

from resjax.files import write_aside, write_json
from resjax.paper.figures import draw
from resjax.paper.ledger import as_markdown, as_values, collect
from resjax.paper.reproduce import Run
from resjax.paper.tables import Table
from resjax.processes import is_first


def conclude(table: Table, runs: Sequence[Run], scale: float, folder: Path, command: str) -> Path:
    """Write `table.md`, `table.json` and the figures from the runs that are finished; return the Markdown file.

    `command` is what a reader has to type to repeat it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = collect(table, runs)  # on all processes, as it may have to measure
    file = folder / f"{table.name}{'' if scale == 1 else f'-x{scale:g}'}.md"
    if not is_first():
        return file
    figures = draw(table, runs, scale, folder)
    parts = [f"`{command}`", as_markdown(table, lines, scale)]
    for figure in figures:
        claims = "\n".join(f"- {'holds' if holds else 'FAILS'}: {claim}" for claim, holds in figure["claims"])
        parts.append(f"![{figure['title']}]({figure['file']})\n\n{claims}")
    text = "\n\n".join(parts) + "\n"
    write_aside(file, lambda aside: aside.write_text(text))
    values = {"command": command, **as_values(table, lines, scale), "figures": figures}
    write_json(file.with_suffix(".json"), values)
    return file
