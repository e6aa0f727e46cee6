"""Writes the article as one self-contained page in two languages, from its texts, figures and measurements."""

import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from experiments.article import drawings, figures
from experiments.article.figure3 import figure3
from experiments.article.listing import highlighted, source_of
from experiments.article.measurement import Measured
from experiments.article.words import (
    FOLDER,
    LANGUAGES,
    Statement,
    claims_of,
    conclusions,
    filled,
    numbers,
    sections,
    speaker,
    statements,
)
from resjax.analysis import gives_back
from resjax.models import BasicBlock, Shortcut
from resjax.paper.report import csp_hash
from resjax.paper.table import markdown
from resjax.system.files import write_text

SOURCES: dict[str, Any] = {"BasicBlock": BasicBlock, "Shortcut": Shortcut, "gives_back": gives_back}
UNMEASURED: dict[str, Callable[[Callable[[str], str]], str]] = {
    "published": figures.published, "blocks": drawings.blocks, "options": drawings.options,
    "figure3": lambda say: figure3(say, 350) + figure3(say, 900)}
WIDE = ("published", "degradation", "gradients", "blocks", "options", "more_layers", "dimensions", "figure3",
        "landscape")  # figures wider than the text, if there is room
FENCE = re.compile(r"<mo>([()\[\]{}‖])</mo>")  # fences of one line, which should not stretch
INSERT = re.compile(r"<\?(formula|figure|claims|code|source|summary|failures|conclusions) (\w+)\?>")


def write_article(measurements: Sequence[Measured], folder: Path, name: str) -> tuple[list[tuple[str, str]], Path]:
    """Write `NAME.html`, and the claims alone as `NAME.md`. Return the verdict and text of each claim, and the page.

    A section whose experiment was not measured is left out. If any experiment is missing, the general sections are left
    out too.
    """
    said = [one for measured in measurements for one in statements(measured, "en")]
    verdicts = ["holds" if one.holds else "FAILS" for one in said]
    rows = [[speaker("en", "experiments")(one.experiment), one.claim, one.measured, verdict]
            for one, verdict in zip(said, verdicts, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{name}.md", markdown([["experiment", "claim", "measured", "verdict"], *rows]) + "\n")
    write_text(folder / f"{name}.html", page(measurements))
    plain = [re.sub("<sup>(.*?)</sup>", r"^\1", f"{one.claim} Measured: {one.measured}") for one in said]
    return list(zip(verdicts, plain, strict=True)), folder / f"{name}.html"


def page(measurements: Sequence[Measured]) -> str:
    """Assemble the page. Its security policy allows only the page's own style and script, by their hashes."""
    style, script = ((FOLDER / file).read_text("utf-8") for file in ("article.css", "article.js"))
    titles = {f"title_{language}": speaker(language, "page")("title") for language in LANGUAGES}
    return Template((FOLDER / "page.html").read_text("utf-8")).substitute(
        style=style, script=script, style_digest=csp_hash(style), script_digest=csp_hash(script), **titles,
        articles="\n".join(Article(measurements, language).html() for language in LANGUAGES))


class Article:
    """The article in one language, with its measurements."""

    def __init__(self, measurements: Sequence[Measured], language: str) -> None:
        self.language, self.measurements = language, measurements
        self.measured = {one.name: one for one in measurements}
        self.say, self.word = speaker(language), speaker(language, "page")
        self.values, self.verdicts, self.count = numbers(measurements), claims_of(measurements), 0

    def html(self) -> str:
        """Write the article: header, contents and sections."""
        (_, header), *rest = sections(self.language).values()
        needed = {needs for needs, _ in rest} - {""}
        whole = needed <= self.measured.keys()
        shown = {name: text for name, (needs, text) in list(sections(self.language).items())[1:]
                 if needs in self.measured or (whole and not needs)}
        entries = "".join(f'<li><a href="#{self.language}-{name}">{re.findall("<h2>(.*?)</h2>", text)[0]}</a></li>'
                          for name, text in shown.items())
        body = "\n".join(f'<section id="{self.language}-{name}">\n{self.write(text)}</section>'
                         for name, text in shown.items())
        return (f'<main lang="{LANGUAGES[self.language]}">\n{self.write(header)}\n<nav class="contents" '
                f'aria-label="{self.word("contents")}"><ol>{entries}</ol></nav>\n{body}\n</main>')

    def write(self, text: str) -> str:
        """Write a section: fill in numbers, formulas, figures, claims and code."""
        inserted = INSERT.sub(lambda found: str(getattr(self, found[1])(found[2])),
                              filled(text, self.values, self.verdicts))
        return FENCE.sub(r'<mo stretchy="false">\1</mo>', inserted)

    def formula(self, name: str) -> str:
        """Insert a formula of `formulas.html` on its own line."""
        return f'<div class="formula">{formula(name, self.say)}</div>'

    def figure(self, name: str) -> str:
        """Insert a figure with its number and caption."""
        self.count += 1
        drawn = UNMEASURED[name](self.say) if name in UNMEASURED else (
            figures.MEASURED[name](self.measured[name].found.values, self.say))
        caption = speaker(self.language, "captions")(name).format_map(self.values)
        wide = ' class="wide"' if name in WIDE else ""
        return (f"<figure{wide}>{drawn}<figcaption><b>{self.word('figure')} {self.count}</b> {caption}</figcaption>"
                "</figure>")

    def claim(self, said: Statement) -> str:
        """Insert a claim with its verdict and measurement; colour is not the only sign of the verdict."""
        kind, mark = ("holds", "✓") if said.holds else ("fails", "✗")
        return (f'<li class="{kind}"><span class="mark" aria-hidden="true">{mark}</span>{said.claim} '
                f'<b class="verdict">{self.word(kind)}</b><span class="measured">{self.word("measured")}{said.measured}'
                '</span></li>')

    def claims(self, name: str) -> str:
        """Insert the claims of an experiment."""
        listed = "".join(self.claim(said) for said in statements(self.measured[name], self.language))
        return f'<div class="claims"><h3>{self.word("tested")}</h3><ul>{listed}</ul></div>'

    def code(self, name: str) -> str:
        """Insert the code of an experiment."""
        return listing(self.word("code"), self.measured[name].code)

    def source(self, name: str) -> str:
        """Insert the source of a class or function of resjax."""
        return listing(f"{self.word('source')}<code>{name}</code>", source_of(SOURCES[name]))

    def summary(self, _: str) -> str:
        """Insert the number of claims by experiment."""
        rows = "".join(
            f"<tr><td>{speaker(self.language, 'experiments')(one.name)}</td><td>{len(one.found.claims)}</td>"
            f"<td>{sum(one.found.claims.values())}</td></tr>" for one in self.measurements)
        head = "".join(f"<th>{self.word(name)}</th>" for name in ("section", "tested_count", "held"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

    def failures(self, _: str) -> str:
        """List the failed claims."""
        failed = [said for one in self.measurements for said in statements(one, self.language) if not said.holds]
        if not failed:
            return f"<p>{self.word('none_fail')}</p>"
        return f'<div class="claims"><h3>{self.word("failures")}</h3><ul>{"".join(map(self.claim, failed))}</ul></div>'

    def conclusions(self, _: str) -> str:
        """List the conclusions."""
        drawn = conclusions(self.measurements, self.language)
        return f"<ul>{''.join(f'<li>{text}</li>' for text, _ in drawn)}</ul>"


def formula(name: str, say: Callable[[str], str]) -> str:
    """Return a formula in MathML; `say` translates the words in it."""
    found = re.search(rf'<math id="{name}" (.*?</math>)', (FOLDER / "formulas.html").read_text("utf-8"), re.DOTALL)
    assert found, name
    parts = f"<math {found[1]}".replace("<?break?>", '</math><math display="block">')  # allowed line breaks
    return re.sub(r"<\?word (\w+)\?>", lambda word: escape(say(word[1])), parts)


def listing(title: str, source: str) -> str:
    """Return source code in an expandable section."""
    return f'<details class="listing"><summary>{title}</summary><pre><code>{highlighted(source)}</code></pre></details>'
