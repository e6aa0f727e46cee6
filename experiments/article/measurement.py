"""Stores the results of the article's experiments, so that the page can be written without measuring again."""

import ast
import hashlib
import inspect
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import resjax
from resjax.system.files import read_json, write_json
from resjax.training.run_directory import environment

COMPUTING = ("experiment", "models", "data", "training", "evaluation", "analysis")  # packages of resjax, with defaults


class Found(NamedTuple):
    """The result of an experiment, with values and curves by name, and whether each claim holds."""

    values: dict[str, Any]
    claims: dict[str, bool]


class Measured(NamedTuple):
    """A stored result: number of seeds, code, seconds, versions and devices."""

    name: str
    found: Found
    seeds: int
    code: str
    seconds: float
    machine: dict[str, Any]


def measured(experiment: Callable[[], Found], seeds: int, folder: Path) -> Measured:
    """Return an experiment's result: read from `folder` if the same code produced it, otherwise measured now.

    "The same code" means the same code of the experiment and of everything that it uses in its file, the same code of
    resjax's computing packages, and the same version of JAX, because each of these may change a verdict. Raises
    BadInput for a damaged file.
    """
    file = folder / f"{experiment.__name__}.json"
    fingerprint = hashlib.sha256(f"{code_of(experiment)} {library()}".encode()).hexdigest()
    if file.exists() and read_json(file, "fingerprint")["fingerprint"] == fingerprint:
        return read_measured(file)._replace(code=inspect.getsource(experiment))
    start = time.perf_counter()
    found = experiment()
    machine = environment(jax.devices())
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, {
        "fingerprint": fingerprint, "seeds": seeds, "seconds": round(time.perf_counter() - start, 1),
        "code": inspect.getsource(experiment), "machine": {**machine["devices"], **machine["versions"]},
        "values": as_json(found.values), "claims": as_json(found.claims)})
    return read_measured(file)


def read_measured(file: Path) -> Measured:
    """Read a stored result. Raises BadInput if the file is damaged."""
    kept = read_json(file, "code", "seeds", "seconds", "machine", "values", "claims")
    return Measured(file.stem, Found(kept["values"], kept["claims"]), kept["seeds"], kept["code"], kept["seconds"],
                    kept["machine"])


def as_json(value: Any) -> Any:
    """Convert numbers and arrays to JSON values with six significant digits."""
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(f"{float(value):.6g}")
    return as_json(np.asarray(value).tolist()) if isinstance(value, np.ndarray | jax.Array) else value


@cache
def library() -> str:
    """Identify the software that computes, by the code of resjax's computing packages and the version of JAX."""
    digest = hashlib.sha256(jax.__version__.encode())
    for room in COMPUTING:
        for file in sorted((Path(resjax.__file__).parent / room).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def code_of(experiment: Callable[[], Found]) -> str:
    """Return the code of an experiment and of everything that it uses in its file, without comments and docstrings."""
    tree = ast.parse(Path(inspect.getfile(experiment)).read_text("utf-8"))
    parts = {name: node for node in tree.body for name in defined_names(node)}
    wanted, used = [experiment.__name__], set()
    while wanted:
        name = wanted.pop()
        if name in parts and name not in used:
            used.add(name)
            wanted += [node.id for node in ast.walk(parts[name]) if isinstance(node, ast.Name)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return "\n".join(ast.unparse(node) for node in tree.body if used.intersection(defined_names(node)))


def defined_names(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines: a function, a class, or variables."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    return [name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
