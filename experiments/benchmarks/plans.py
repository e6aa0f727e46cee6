"""Plans all experiments of the repository with `resjax plan`, and times each plan with an empty and a filled cache.

    pip install -e '.[cuda12,tpu]' && python experiments/benchmarks/plans.py [--on h100] [--names resnet20 resnet50]

Each plan is made in a separate process with an empty cache, and then again with the cache that the first process
filled. Results are written to experiments/results/plans.json after every plan. If you repeat the command, it makes only
the missing plans.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import tyro

from resjax.experiment_files import names
from resjax.system.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "plans.json"
KEPT = ("run_hours", "device_hours", "images_per_second", "step_seconds", "limit", "memory_share", "versions")
LIMIT = 1_800.0  # seconds


def command(target: str, device: str, file: Path) -> tuple[float, int, str]:
    """Run `resjax plan`; return seconds, exit code, and standard error."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "resjax", "plan", target, "--on", device, "--json", str(file)],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=LIMIT, check=False)
    return time.perf_counter() - start, done.returncode, done.stderr.strip()


def measure(target: str, device: str) -> dict[str, Any]:
    """Plan a run with an empty cache and again with a filled one; return the outcome and both times."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RESJAX_CACHE"] = folder
        file = Path(folder) / "plan.json"
        first, code, said = command(target, device, file)
        again, *_ = command(target, device, file)
        timed = {"seconds": round(first, 1), "seconds_from_cache": round(again, 1)}
        if code == 0:
            plan = json.loads(file.read_text("utf-8"))
            return {"answer": "planned", **timed, **{key: plan[key] for key in KEPT}, "compile_seconds": {
                name: program["compile_seconds"] for name, program in plan["programs"].items()}}
    refused = re.search(r"does not fit into.*", said)
    if code != 2 or refused is None:
        raise RuntimeError(f"{target} on {device}: exit code {code}: {said[-2000:]}")
    largest = re.search(r"the largest batch that fits is (\d+)", said)
    return {"answer": "does not fit", "largest_batch": int(largest.group(1)) if largest else 0, **timed,
            "reason": refused.group()}


def main(on: tuple[Literal["h100", "v5e"], ...] = ("h100", "v5e"), names: tuple[str, ...] = ()) -> None:
    """Make all missing plans.

    Args:
        on: The devices to plan for.
        names: Names of runs, FILE:NAME as in `resjax list`. By default, all runs.
    """
    found: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    for device in on:
        for target in names or every_run():
            if target not in found.get(device, {}):
                answer = measure(target, device)
                found.setdefault(device, {})[target] = answer
                write_json(RESULTS, found)
                print(f"{device} {target}: {answer['answer']} in {answer['seconds']:.0f} s, from the cache in "
                      f"{answer['seconds_from_cache']:.0f} s", flush=True)


def every_run() -> list[str]:
    """List the runs that come with resjax, as FILE:NAME."""
    return [f"{file}:{name}" for file, runs in names().items() for name in runs]


if __name__ == "__main__":
    tyro.cli(main)
