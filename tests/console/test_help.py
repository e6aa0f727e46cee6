"""What `--help` says, and what a shell completes, asked of a real bash and zsh without a terminal."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from resjax import experiment_files
from resjax.console.arguments import call
from resjax.console.command_line import execute
from resjax.console.commands import COMMANDS
from resjax.paper.tables import TABLES

# Nothing is there on a fresh machine: these need CIFAR-10, ImageNet, a compiler for GPUs, or a run of minutes.
NEED_MORE = {"quickstart", "prepare", "train", "plan", "mean-image", "evaluate", "compare", "report", "detect",
             "reproduce"}


def printed(capsys, *words):
    """Return what a command prints."""
    capsys.readouterr()
    with contextlib.suppress(SystemExit):  # of code 0, or the output is not what is asked for
        execute(words)
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_in_words_of_the_command_line(capsys, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "84")
    for kind in ("resnet20", "resnet50", "scenes") if COMMANDS[command].on_experiment else ("",):
        text = printed(capsys, command, *[kind] * bool(kind), "--help")
        assert text.startswith(f"usage: resjax {command}")
        assert COMMANDS[command].summary in text
        assert f"Example: resjax {COMMANDS[command].example}" in text
        assert not re.search(r"None|\bSTR\b|\bTEXT\b|\(default: (''|True|False)?\)|[│╭]", text)
        assert not re.search(r"`(?!resjax)\w+([._](?!md|png)\w+)+`", text)  # fields of Python
        assert all(len(line) <= 84 for line in text.splitlines())


def test_help_joins_paragraphs_and_names_flags_and_values(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    text = printed(capsys, "train", "resnet20", "--help")
    assert "  --data.directory PATH\n                        The folder of prepared TensorFlow Datasets." in text
    assert "  --initialize-from NETWORK\n                        The weights to start from: a run directory" in text
    assert "a multiple of --architecture.ghost-batch-size. (default:" in " ".join(text.split())
    assert "  --data.std FLOAT ...  Divide the colour channels by these values" in text
    assert "Flip each training image horizontally with probability 1/2. (default: on)" in text
    assert printed(capsys, "predict", "--help").startswith("usage: resjax predict NETWORK IMAGE ... [--flag value")


def test_examples_of_the_help_work(capsys):
    """On a machine where nothing is prepared; those that take longer are run by `tests/house/test_docs.py`."""
    pages = "".join(page.read_text() for page in (Path(__file__).parents[2] / "docs").rglob("*.md"))
    tried = "\n".join(re.findall("^```bash runnable\n(.*?)^```", pages, re.MULTILINE | re.DOTALL))
    for name in sorted(COMMANDS.keys() - NEED_MORE):
        example = COMMANDS[name].example
        assert re.search(rf"^resjax {example}(  .*)?$", tried, re.MULTILINE) or printed(capsys, *example.split())


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """Write what each shell reads."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh"):
        with (folder / shell).open("w") as file, contextlib.redirect_stdout(file):
            execute(["completion", shell])
    (folder / "here/runs").mkdir(parents=True)
    (folder / "here/cif").mkdir()
    for name in ("cif/001.png", "cif/002.png", "mine.py"):
        (folder / "here" / name).touch()
    return folder


def completed(scripts, *words):
    """Ask bash what it would complete the last word to."""
    words = [part for word in words for part in re.split("(:)", word)] if ":" in words[-1] else [*words]
    asked = " ".join(f"'{word}'" for word in words)
    script = (f"source ../bash; COMP_WORDS=({asked}); COMP_CWORD={len(words) - 1}; _resjax\n"
              'printf "%s\\n" "${COMPREPLY[@]}"')
    found = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True,
                           cwd=scripts / "here").stdout
    return set(found.split())


def test_bash_completes_commands_experiments_flags_values_and_files(scripts):
    assert completed(scripts, "resjax", "") == COMMANDS.keys()
    assert completed(scripts, "resjax", "tr") == {"train"}
    experiments = {name for file in experiment_files.names().values() for name in file}
    assert completed(scripts, "resjax", "train", "resnet") == {n for n in experiments if n.startswith("resnet")}
    assert completed(scripts, "resjax", "train", "mi") == {"mine.py"}
    assert completed(scripts, "resjax", "predict", "r") == {"resnet20", "runs"}
    assert completed(scripts, "resjax", "predict", "resnet20", "cif/00") == {"cif/001.png", "cif/002.png"}
    assert completed(scripts, "resjax", "train", "resnet20", "--optimizer.m") == {"--optimizer.momentum",
                                                                                 "--optimizer.method"}
    assert completed(scripts, "resjax", "train", "scenes", "--detector.back") == {"--detector.backbone"}
    assert completed(scripts, "resjax", "evaluate", "x", "--views", "") == {"single", "ten-crop", "multi-scale"}
    assert completed(scripts, "resjax", "train", "resnet20", "--data.source", "folder:ci") == {"cif"}
    assert completed(scripts, "resjax", "train", "resnet20", "--seed", "") == set()
    assert completed(scripts, "resjax", "reproduce", "") == {"table1", *TABLES}
    assert completed(scripts, "resjax", "prepare", "") == {"cifar10"}


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not here")
def test_zsh_reads_its_script(scripts):
    script = "source ../zsh; _resjax_words train 2 train ''; print $words_ $files_; print $_comps[resjax]"
    found = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True,
                           cwd=scripts / "here").stdout.split()
    assert {"resnet20", "scenes", "yes", "_resjax"} <= set(found)


def test_no_sentence_is_a_candidate(scripts):
    """Every word that the scripts offer is one that can be typed."""
    offered = re.findall('words_="(.*?)"', (Path(scripts) / "bash").read_text())
    assert all(re.fullmatch(r"-?-?[\w.:-]+", word) for words in offered for word in words.split())


@pytest.mark.parametrize("words", [["--out=~/a=b"], ["--out", "~/a=b"]])
def test_a_tilde_behind_a_flag_is_the_home_folder(words, monkeypatch, tmp_path):
    def command(*, out: Path, name: str = "a~b") -> tuple[Path, str]:
        """Return the arguments."""
        return out, name

    monkeypatch.setenv("HOME", str(tmp_path))
    assert call(command, words, "resjax command") == (tmp_path / "a=b", "a~b")
