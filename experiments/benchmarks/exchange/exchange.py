"""Checks that resjax and other libraries compute the same logits from the same weights file, on six JPEGs.

    python experiments/benchmarks/exchange/exchange.py [--only TEXT] [--out experiments/results/exchange]

resjax writes some of the files, and the other libraries write the rest. In addition to resjax, the benchmark needs the
packages torch, torchvision, timm, transformers, keras, onnx and onnxruntime. For each weights file, the benchmark
prints the largest difference between resjax's logits and the other library's, relative to the largest logit. If resjax
refuses the file, the benchmark prints the error message instead.
"""

import argparse
import os
import sys
import tempfile
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
from peers import Case, photographs  # noqa: E402

import resjax  # noqa: E402

MOST = 1e-4


def ours(case: Case, files: list[Path]) -> np.ndarray:
    """Compute logits of photographs with resjax, for a file of another library or an exported one."""
    from back import of_resjax

    return of_resjax(case.settings.get("of") or resjax.load(case.target, **case.settings), files)


def compare(make, files: list[Path]) -> tuple[str, bool]:
    """Return the result for a file, and whether it is right."""
    with tempfile.TemporaryDirectory() as folder:
        case = make(Path(folder))
        try:
            found = ours(case, files)
        except resjax.BadInput as error:
            said = str(error).replace(folder, "").replace(str(case.target), "")
            return f"refused: {said}", bool(case.refused) and case.refused in str(error)
        if case.refused or case.logits is None:
            return f"loads, and should say {case.refused!r}", False
        wanted = case.logits(files)
        if found.shape != wanted.shape:
            return f"{found.shape}, there {wanted.shape}", False
        error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        return f"{error:.1e}", error <= MOST


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    lines, wrong = ["| file | largest relative error of the logits |", "|---|---|"], 0
    print("\n".join(lines), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(Path(folder))
        for module in ("torch_files", "timm_files", "keras_files", "back"):
            for name, make in import_module(module).cases():
                if asked.only.lower() not in f"{module} {name}".lower():
                    continue
                try:
                    said, right = compare(make, files)
                except Exception as error:
                    said, right = f"{type(error).__name__}: {error}"[:200], False
                wrong += not right
                lines.append(f"| {name} | {'' if right else '**wrong** '}{said} |")
                print(lines[-1], flush=True)
    used = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm", "transformers", "keras"))
    print(f"\n{len(lines) - 2} files, {wrong} wrong; {used}")
    if asked.out:
        asked.out.with_suffix(".md").write_text("\n".join(lines) + "\n", "utf-8")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
