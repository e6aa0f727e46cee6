"""The site: every public name is on it, every command has its section, and what is marked as runnable runs."""

import inspect
import re
import shlex
import warnings
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import resjax
from resjax.console.command_line import execute
from resjax.console.commands import COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(bash|python) (runnable|saved)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if FENCE.search(page.read_text())]
SMALL = {"--steps": "2", "--batch-size": "64", "--precise-batch-norm-steps": "1"}


def test_every_public_name_is_documented_once():
    named = re.findall(r"^\.\. auto(?:class|function|exception|data):: (\w+)$", (DOCS / "lookup/api.md").read_text(),
                       re.MULTILINE)
    assert sorted(named) == sorted(resjax.__all__)
    assert not [name for name in named if isinstance(getattr(resjax, name), ModuleType)]


def test_public_names_state_shapes_and_sources():
    """Networks, losses and augmentations state both; what is done with trained networks, shapes."""
    page = (DOCS / "lookup/api.md").read_text()
    for title, sourced in (("Networks", True), ("Losses and augmentations", True), ("Trained networks", False)):
        part = re.search(rf"^## {title}$(.*?)(?:^## |\Z)", page, re.MULTILINE | re.DOTALL)[1]
        for name in set(re.findall(r":: (\w+)$", part, re.MULTILINE)) - {"load", "export", "Network"}:
            told = inspect.getdoc(getattr(resjax, name))
            assert re.search(r"`\[(batch|images|blocks)", told) or "Shapes as in" in told, name
            assert not sourced or re.search(r"section|Table|Figure|et al\.|\b(19|20)\d\d\b|the paper", told), name


def test_every_command_is_documented_once():
    assert sorted(re.findall(r"{command-help} (\S+)", (DOCS / "lookup/commands.md").read_text())) == sorted(COMMANDS)


def test_commands_of_all_pages_exist():
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        blocks = re.findall(r"^```bash[^\n]*\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
        for command in re.findall(r"(?:^|[ /])resjax ([a-z][\w-]*)", "\n".join(blocks), re.MULTILINE):
            assert command in COMMANDS, f"{page.name}: resjax {command}"


def test_tasks_are_tried_where_they_say():
    rows = re.findall(r"^\| [^|]+ \| `.*?\| \[[^]]+\]\(([^)]+)\) \| (.*) \|$", (DOCS / "howto/tasks.md").read_text()
                      .replace("| the same command |", "| `the same command` |"), re.MULTILINE)
    assert len(rows) >= 40
    for page, tried in rows:
        assert DOCS / "howto" / page in PAGES if tried == "here" else (DOCS / "howto" / page).is_file()
        assert all((ROOT / place).exists() for place in re.findall("`(.*?)`", tried))


def test_the_front_page_is_one_page():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    assert len(text.split()) <= 1_000


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.stem}")
def test_what_is_marked_runs(page, tmp_path, monkeypatch, capsys):
    """Run a page's blocks from top to bottom; trainings make two steps, which tells that they begin and end."""
    images(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, mark, file, text in FENCE.findall(page.read_text()):
        if mark == "saved":
            Path(file).write_text(text)
        elif language == "python":
            exec(compile(text, page.name, "exec"), names)
        else:
            for line in text.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line, comments=True)
                assert program == "resjax"
                execute(shortened(words))
    assert capsys.readouterr().out


def shortened(words):
    """Replace the length of a training."""
    if words[0] != "train":
        return words
    flags = SMALL | ({} if "--initialize-from" in words else {"--architecture.depth": "8"})
    kept = [word for i, word in enumerate(words) if word not in flags and (i == 0 or words[i - 1] not in flags)]
    return [*kept, *(word for pair in flags.items() for word in pair)]


def images(folder):
    """Write a photograph and two classes of images, told apart by their colour."""
    Image.new("RGB", (60, 40), (90, 120, 200)).save(folder / "photo.png")
    for split, count in (("train", 32), ("test", 4)):
        for label, name in enumerate(("red", "blue")):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            random = np.random.default_rng(zlib.crc32(f"{split} {name}".encode()))
            for number in range(count):
                pixels = random.integers(0, 100, (36, 32, 3), np.uint8)
                pixels[..., 2 * label] += 100
                Image.fromarray(pixels).save(place / f"{number}.png")


def test_the_site_builds_and_its_index_is_the_library(tmp_path):
    """Without a warning, without a request to the outside, and without the theme's messages in the console."""
    build = pytest.importorskip("sphinx.cmd.build", reason="pip install -e '.[docs]'")
    inventory = pytest.importorskip("sphinx.util.inventory")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the builder's own libraries
        assert build.main(["-q", "-W", str(DOCS), str(tmp_path)]) == 0
    known = inventory.InventoryFile.loads((tmp_path / "objects.inv").read_bytes(), uri="")
    index = {name for kind in known.data if kind.startswith("py:") for name in known.data[kind]}
    assert {f"resjax.{name}" for name in resjax.__all__} <= index
    assert "console.log(" not in (tmp_path / "_static/scripts/pydata-sphinx-theme.js").read_text()
    for page in tmp_path.rglob("*.html"):
        assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?://", page.read_text()), page
