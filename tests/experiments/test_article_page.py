"""The article's page: both languages whole and alike, measured numbers from the measurements, nothing from outside."""

import base64
import hashlib
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter
from html.parser import HTMLParser

import pytest
from article_measurements import made_up

from experiments.article.contours import LEVELS
from experiments.article.figure3 import networks
from experiments.article.listing import highlighted, source_of
from experiments.article.page import page, write_article
from experiments.article.words import FOLDER, sections, speaker, statements, words
from resjax.models import imagenet_resnet
from resjax.models.counts import count_macs, count_parameters
from resjax.paper.table import markdown
from resjax.paper.table1 import IMAGE
from resjax.paper.tables import TABLES

PLACEHOLDER = re.compile(r"\{[\w\[\].-]+(?::[^}]+)?\}")


@pytest.fixture(scope="module")
def html():
    return page(made_up(100))


class Reader(HTMLParser):
    """Notes text outside of figures, code and formulas, by language; elements; and what refers to other files."""

    def __init__(self, content):
        super().__init__()
        self.stack, self.tags, self.references, self.text = [], Counter(), [], {"en": [], "zh-Hans": []}
        self.language, self.handlers = "", []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags[tag] += 1
        self.references += [value for name, value in attrs if name in ("src", "href", "data", "action", "srcset")]
        self.handlers += [name for name in attributes if name.startswith("on") or name == "style"]
        if tag == "main":
            self.language = attributes["lang"]
        if tag not in ("meta", "path", "circle", "rect", "mspace", "br"):
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1

    def handle_endtag(self, tag):
        if tag in self.stack:
            while self.stack.pop() != tag:
                pass

    def handle_data(self, data):
        if self.language and not {"svg", "pre", "math", "code"} & set(self.stack):
            self.text[self.language].append(data)


def test_both_languages_have_the_same_parts():
    english, chinese = sections("en"), sections("zh")
    assert list(english) == list(chinese)
    directive = re.compile(r"<\?\w+ [\w.]+\?>")
    for name in english:
        assert english[name][0] == chinese[name][0], name
        assert Counter(directive.findall(english[name][1])) == Counter(directive.findall(chinese[name][1])), name
        assert Counter(PLACEHOLDER.findall(english[name][1])) == Counter(PLACEHOLDER.findall(chinese[name][1])), name
    for part in ("page", "labels", "captions", "claims", "measured", "experiments"):
        for name, both in words()[part].items():
            assert both.keys() == {"en", "zh"}, name
            assert Counter(PLACEHOLDER.findall(both["en"])) == Counter(PLACEHOLDER.findall(both["zh"])), name


def test_totals_stand_only_where_all_experiments_are_shown():
    """A page of one experiment would state its seconds as the time of all."""
    for language in ("en", "zh"):
        assert [name for name, (_, text) in sections(language).items() if "{all[" in text] == ["findings"]


def test_a_claim_holds_no_measurement_and_both_have_the_same_names():
    """So that a claim that fails reads as one that was made, not as a false sentence."""
    assert words()["claims"].keys() == words()["measured"].keys()
    for both in words()["claims"].values():
        named = re.findall(r"\{(\w+)", both["en"] + both["zh"])
        assert set(named) <= {"family", "deep", "shallow", "limit", "allowed"}


def test_every_figure_has_a_caption_and_a_number(html):
    for language in ("en", "zh"):
        part = html.split(f'<main lang="{language}', 1)[1].split("</main>")[0]
        figures = re.findall(r"<figure.*?</figure>", part, re.DOTALL)
        word = speaker(language, "page")("figure")
        assert len(figures) == 10
        for number, figure in enumerate(figures, 1):
            assert "<svg" in figure
            assert re.search(rf"<figcaption><b>{word} {number}</b> \S.{{20}}", figure)
        assert part.count('class="listing"') == 9  # six experiments; a block, a shortcut and the test of the identity


def test_measured_numbers_are_of_the_measurement_and_alike_in_both_languages():
    one, other = (Reader(page(made_up(start))).text for start in (100, 5000))
    for texts in (one, other):
        numbers = [Counter(re.findall(r"\d+\.\d+", " ".join(texts[language]))) for language in texts]
        assert numbers[0] == numbers[1]
    paper = {f"{value:.{digits}f}" for table in TABLES.values() for row in table.rows for value in row.published
             if value is not None for digits in (1, 2)}
    models = {text for net in networks() for text in (f"{net.billions:.1f}", f"{net.millions:.1f}")}
    rest = {"1512.03385", "1712.09913", "0.0", "0.001", "0.01", "0.03", "1.05", *(f"{level:g}" for level in LEVELS)}
    for language in one:
        stale = set(re.findall(r"\d+\.\d+", " ".join(one[language]))) & set(
            re.findall(r"\d+\.\d+", " ".join(other[language])))
        assert stale <= paper | models | rest, stale


def test_no_number_of_a_text_is_typed_by_hand():
    allowed = {"2015", "2016", "2018", "1512.03385", "1712.09913", "1", "2", "3", "6", "10", "19", "34", "9"}
    for language in ("en", "zh"):
        for name, (_, text) in sections(language).items():
            bare = re.sub(r"<math.*?</math>|<\?.*?\?>|<[^>]*>", " ", PLACEHOLDER.sub(" ", text), flags=re.DOTALL)
            assert set(re.findall(r"\d+(?:\.\d+)?", bare)) <= allowed, name
        for part in ("claims", "measured", "captions"):
            for name, both in words()[part].items():
                bare = re.sub(r"<[^>]*>", " ", PLACEHOLDER.sub(" ", both[language]))
                assert set(re.findall(r"\d+(?:\.\d+)?", bare)) <= {"10", "2", "3", "6", "34"}, name
        for one in words()["conclusions"]:
            for text in (one["holds"][language], one["fails"][language]):
                assert set(re.findall(r"\d+", re.sub(r"<[^>]*>", " ", PLACEHOLDER.sub(" ", text)))) <= {"10"}


def test_a_number_stays_beside_its_percent_sign(html):
    assert not re.search(r"\d %", html)  # a line may not end between them


def test_no_time_is_typed_by_hand():
    """How long something took is as much a measurement as a loss."""
    units = re.compile(r"(\}?) ?\b(?:seconds|minutes?|hours?)\b|(\}?) ?(?:秒|分钟|小时)")
    for language in ("en", "zh"):
        texts = [text for _, text in sections(language).values()]
        texts += [one[way][language] for one in words()["conclusions"] for way in ("holds", "fails")]
        for text in texts:
            assert all("}" in found for found in units.findall(PLACEHOLDER.sub("}", text))), text


def test_verdicts_and_conclusions_follow_the_claims():
    good, bad = (Reader(page(made_up(100, holds))).text["en"] for holds in (True, False))
    assert "None of the claims fails." in " ".join(good)
    assert " fails" not in " ".join(good).replace("claims fails", "")
    assert "holds" not in [text.strip() for text in bad]
    assert "Every layer receives a gradient" in " ".join(good)
    assert "Every layer receives a gradient" not in " ".join(bad)
    assert "Not every shortcut was better than none." in " ".join(bad)
    total = sum(len(one.found.claims) for one in made_up(100))
    assert f"Of {total} claims that we tested, {total} hold and 0 fail" in " ".join(good)
    assert [said.holds for one in made_up(100, holds=False) for said in statements(one, "zh")] == [False] * total


def test_the_page_allows_its_own_style_and_script_and_nothing_else(html):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert len(content) == 1
        expected = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{expected}'" in policy
    seen = Reader(html)
    assert not {"link", "iframe", "img", "object", "form"} & set(seen.tags)
    assert all(reference.startswith("#") for reference in seen.references)
    assert not seen.handlers
    assert not re.search(r"url\(|@import|https?://", html)
    assert len(html) < 1.5e6
    assert set(re.findall(r'href="#([^"]*)"', html)) <= set(re.findall(r'id="([^"]*)"', html))


def test_formulas_are_well_formed(html):
    formulas = re.findall(r"<math.*?</math>", html, re.DOTALL)
    assert len(formulas) > 50
    for formula in formulas:
        tree = ElementTree.fromstring(formula)
        for element in tree.iter():
            if element.tag in ("mfrac", "msub", "msup", "munder"):
                assert len(element) == 2, formula
            assert element.tag != "msubsup" or len(element) == 3
    ElementTree.fromstring(f"<all>{(FOLDER / 'formulas.html').read_text('utf-8')}</all>")
    for drawing in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(drawing)


def test_figure_3_is_of_the_models():
    vgg, plain, residual = networks()
    assert (vgg.layers, plain.layers, residual.layers) == (19, 34, 34)
    assert vgg.parameters == 143_667_240
    assert f"{vgg.billions:.1f}" == "19.6"  # as the paper says
    assert residual.macs == count_macs(imagenet_resnet(34, "A"), IMAGE) == sum(box.macs for box in residual.boxes)
    assert plain.parameters == count_parameters(imagenet_resnet(34, "plain"), IMAGE)
    assert [box.side for box in vgg.boxes if box.label == "pool"] == [112, 56, 28, 14, 7]
    assert [(box.label, box.side) for box in residual.boxes if not box.channels] == [("pool", 56), ("average_pool", 1)]
    strided = [box.side for box in residual.boxes if box.label.endswith("/2")]
    assert strided == [112, 28, 14, 7]


def test_bars_in_cells_end_no_cell(tmp_path):
    assert markdown([["a", "b"], ["||F|| / ||x||", "1"]]).splitlines()[2] == r"| \|\|F\|\| / \|\|x\|\| | 1 |"
    claims, file = write_article(made_up(100), tmp_path / "new", "mine")
    assert file == tmp_path / "new" / "mine.html"
    assert file.exists()
    table = (tmp_path / "new" / "mine.md").read_text()
    assert len(claims) == table.count("\n") - 2
    assert not any("<" in text for _, text in claims)  # what a terminal shows
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()} == {5}


def test_code_is_shown_as_it_stands():
    source = source_of(made_up)
    shown = highlighted(source)
    bare = re.sub(r"<[^>]*>", "", shown).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert bare == source.rstrip()
    assert '<span class="defined">made_up</span>' in shown


def test_chromium_opens_the_page_without_a_complaint(html, tmp_path):
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("Chromium is not installed")
    (tmp_path / "page.html").write_text(html)
    opened = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}", f"file://{tmp_path}/page.html"],
        capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in opened.stderr
    assert 'data-language="en"' in opened.stdout.split("<head>")[0]  # the script ran
