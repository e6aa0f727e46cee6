"""What is installed: every package, the experiments among them, and nothing that was measured with them."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from setuptools import find_packages

import resjax

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel of a copy of the sources, without a network, and unpack it."""
    root = tmp_path_factory.mktemp("wheel")
    for folder in ("resjax", "experiments"):
        copytree(ROOT / folder, root / "source" / folder, ignore=ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        (root / "source" / file).write_bytes((ROOT / file).read_bytes())
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(root)], cwd=root / "source", check=True, capture_output=True)
    (file,) = root.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(root / "installed")
    return root / "installed"


def test_every_package_is_installed():
    packages = SETTINGS["tool"]["setuptools"]["packages"]
    assert sorted(packages) == sorted([*find_packages(str(ROOT), include=["resjax*"]), "resjax.experiments"])


def test_the_experiments_are_in_the_wheel_and_results_are_not(wheel):
    files = {str(file.relative_to(wheel / "resjax")) for file in (wheel / "resjax").rglob("*") if file.is_file()}
    assert {f"experiments/{file.name}" for file in (ROOT / "experiments").glob("*.py")} <= files
    assert {"py.typed", "imagenet_classes.txt", "paper/report.html"} <= files
    assert not [file for file in files if file.startswith(("experiments/results", "experiments/benchmarks"))]
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    assert f"\nVersion: {resjax.__version__}\n" in metadata.read_text()


def test_the_commands_work_outside_a_checkout(wheel, tmp_path):
    """List and show, from the unpacked wheel: names are found, and no folder of the sources is looked at."""
    def run(*arguments):
        return subprocess.run([sys.executable, "-P", "-m", "resjax", *arguments], cwd=tmp_path, capture_output=True,
                              text=True, check=False, env=os.environ | {"PYTHONPATH": str(wheel)})

    place = subprocess.run([sys.executable, "-P", "-c", "from resjax.experiment_files import folder; print(folder())"],
                           cwd=tmp_path, capture_output=True, text=True, check=True,
                           env=os.environ | {"PYTHONPATH": str(wheel)}).stdout.strip()
    assert place == str(wheel / "resjax" / "experiments")
    assert "\nresnet1202 " in run("list").stdout
    shown = run("show", "resnet20").stdout
    assert "269,722 parameters, 40,551,040 multiply-adds" in shown
    wrong = run("train", "resnet20", "--data.directory", str(tmp_path))
    assert (wrong.returncode, "resjax prepare cifar10" in wrong.stderr) == (2, True)


def test_what_is_imported_is_declared():
    """Every package that resjax imports is among its dependencies or extras, by the names of its distributions."""
    declared = {re.split(r"[<>=\[; ]", line)[0].lower().replace("_", "-") for line in [
        *SETTINGS["project"]["dependencies"], *(each for extra in SETTINGS["project"]["optional-dependencies"].values()
                                                for each in extra)]}
    homes = packages_distributions()
    for file in sorted((ROOT / "resjax").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [
                node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in (name.partition(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name not in ("resjax", "google") and name in homes:
                    found = {home.lower().replace("_", "-") for home in homes[name]}
                    assert found & declared, f"{file} imports {name}: {', '.join(sorted(found))}"
    assert {"protobuf", "numpy", "scipy", "absl-py"} <= declared
