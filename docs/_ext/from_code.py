"""Pages that are made from the code: the help of every command, the fields of a run."""

import dataclasses
import os
import re
import subprocess
import sys
from inspect import getmodule
from typing import ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import resjax
from resjax.console.commands import COMMANDS
from resjax.system.serialization import written_fields

FIELDS = ("Experiment", "Architecture", "Data", "Photographs", "Optimizer")  # on the page of that name


class CommandHelp(SphinxDirective):
    """`{command-help} NAME`: what `resjax NAME --help` prints, of a command on an experiment with all flags."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        words = COMMANDS[name].example.split()[:2] if COMMANDS[name].on_experiment else [name]
        text = subprocess.run([sys.executable, "-m", "resjax", *words, "--help"], check=True, capture_output=True,
                              text=True, env=os.environ | {"COLUMNS": "84"}).stdout.strip()
        return [nodes.literal_block(text, text, language="text")]


class Fields(SphinxDirective):
    """`{fields} CLASS PREFIX`: a table of a dataclass of resjax: flag, default, what it is."""

    required_arguments, optional_arguments = 1, 1
    option_spec: ClassVar[dict[str, object]] = {}

    def run(self) -> list[nodes.Node]:
        kind = getattr(resjax, self.arguments[0])
        prefix = self.arguments[1] if len(self.arguments) > 1 else ""
        told = ModuleAnalyzer.for_module(getmodule(kind).__name__).find_attr_docs()
        rows = ["| flag | default | |", "|---|---|---|"]
        for field in written_fields(kind):
            said = " ".join(told.get((kind.__name__, field.name), ["its fields are below"])).strip()
            flag = f"--{prefix}{field.name.replace('_', '-')}"
            rows.append(f"| `{flag}` | {default(field)} | {said.replace('|', ' or ')} |")
        return self.parse_text_to_nodes("\n".join(rows))


def default(field: dataclasses.Field) -> str:
    """Write a default as code; a field without one is named."""
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "" if field.default_factory is not dataclasses.MISSING else "must be given"


def signature(app: Sphinx, what: str, name: str, thing: object, *rest: object) -> tuple[str, str] | None:
    """Write the fields of a run's parts as keywords with their defaults, which is how they are given."""
    if what != "class" or not dataclasses.is_dataclass(thing) or name.rpartition(".")[2] not in FIELDS:
        return None
    given = [field.name if (value := default(field)) == "must be given" else f"{field.name}={value.strip('`') or '...'}"
             for field in dataclasses.fields(thing)]
    return f"(*, {', '.join(given)})", ""


def without_foreign_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Name, in place of a link, a Markdown file of the repository that is no page of the site."""
    source[0] = re.sub(r"\[([^\]]+)\]\((?:\.\./)+((?:experiments|findings)/[^)]+\.md)\)", r"\1 (`\2`)", source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    app.add_directive("command-help", CommandHelp)
    app.add_directive("fields", Fields)
    app.connect("autodoc-process-signature", signature)
    app.connect("source-read", without_foreign_pages)
    return {"parallel_read_safe": True}
