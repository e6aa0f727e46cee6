"""Train for 20,000 steps with kills at random under several conditions, and compare the loss curves of ten seeds.

    python tests/campaign/long_runs.py train onednn --workdir DIR     # also: xla, bfloat16; with any Python and JAX
    python tests/campaign/long_runs.py compare --workdir DIR

Each run is a ResNet-8 on scikit-learn's digits, batch 32, killed (-9) two times at random moments and resumed by the
same command. Its log must then hold each line once. `onednn` has oneDNN compute convolutions of every size, `xla` and
`bfloat16` none. Conditions whose curves differ only by rounding should differ by no more than seeds do: `compare` gives
the difference of the mean log-losses in standard errors. The same command resumes; give each process a core of its own
(`taskset -c 0`).
"""

import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import tyro
from tyro.conf import Positional

from resjax import Architecture, Data, Experiment, Optimizer, train
from resjax.models import onednn
from resjax.training import read_metrics

STEPS, LOG_STEPS, SEEDS, KILLS = 20_000, 100, 10, 2
NEVER = 1 << 62
SMALLEST = {"onednn": 0, "xla": NEVER, "bfloat16": NEVER}  # multiply-adds that oneDNN computes


def experiment(condition: str, seed: int) -> Experiment:
    """Describe a run."""
    precision = "bfloat16" if condition == "bfloat16" else "float32"
    return Experiment(
        name="long", seed=seed, architecture=Architecture(depth=8, ghost_batch_size=32, precision=precision),
        optimizer=Optimizer(learning_rate=0.02, decay_steps=(STEPS // 2, STEPS * 3 // 4)), steps=STEPS, batch_size=32,
        data=Data(source="digits", pad=1, flip=False), log_steps=LOG_STEPS, checkpoint_steps=1000,
        precise_batch_norm_steps=20)


def one(condition: Positional[str], seed: Positional[int], folder: Path) -> None:
    """Train one run in this process."""
    onednn.SMALL = SMALLEST[condition]
    train(experiment(condition, seed), folder)


def killed_and_resumed(condition: str, seed: int, folder: Path) -> list[float]:
    """Train one run in processes of its own, of which the first are killed; return the seconds that each lived."""
    chance, lives = random.Random(f"{folder.parent.name} {seed}"), []
    while not (folder / "result.json").exists():
        command = [sys.executable, __file__, "one", condition, str(seed), "--folder", str(folder)]
        process, begun = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE), time.monotonic()
        try:
            _, text = process.communicate(timeout=chance.uniform(10, 60) if len(lives) < KILLS else None)
            assert process.returncode == 0, text.decode()
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        lives.append(time.monotonic() - begun)
    return lives


def train_all(condition: Positional[str], workdir: Path) -> None:
    """Train all seeds under a condition, with the installed JAX."""
    for seed in range(SEEDS):
        folder = workdir / f"{condition}, jax {jax.__version__}" / f"seed{seed}"
        if lives := killed_and_resumed(condition, seed, folder):
            (folder / "lives.json").write_text(json.dumps(lives))
        print(f"{folder.parent.name}, seed {seed}: processes lived {lives} s", flush=True)


def curve(folder: Path) -> np.ndarray:
    """Read the training losses of a run, one for every 100 steps."""
    lines = read_metrics(folder, "train")
    assert [line["step"] for line in lines] == list(range(LOG_STEPS, STEPS + 1, LOG_STEPS)), folder
    return np.array([line["loss"] for line in lines])


def compare(workdir: Path) -> None:
    """Print a table: conditions beside the first one, in means and standard deviations over the seeds."""
    print("| condition | processes | loss to step 1,000 | 9,001 to 10,000 | 19,001 to 20,000 | test error % "
          "| farthest from the first, in standard errors |\n|---|---|---|---|---|---|---|")
    first = None
    for place in sorted(workdir.glob("*, jax *"), key=lambda place: (not place.name.startswith("xla"), place.name)):
        folders = sorted(place.glob("seed*"))
        logs = np.log([curve(folder).reshape(-1, 10).mean(1) for folder in folders])  # means over 1,000 steps
        error = np.array([json.loads((folder / "result.json").read_text())["test_top1_error"] for folder in folders])
        processes = sum(len(json.loads((folder / "lives.json").read_text())) for folder in folders)
        first = logs if first is None else first
        spread = np.sqrt(logs.var(0, ddof=1) / len(logs) + first.var(0, ddof=1) / len(first))
        apart = np.abs(logs.mean(0) - first.mean(0)) / spread
        at = [f"{math.exp(logs[:, i].mean()):.3g} (x/÷ {math.exp(logs[:, i].std(ddof=1)):.2f})" for i in (0, 9, -1)]
        print(f"| {place.name} ({len(folders)} seeds) | {processes} | {' | '.join(at)} "
              f"| {error.mean():.2f} ± {error.std(ddof=1):.2f} | {apart.max():.1f} |")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"one": one, "train": train_all, "compare": compare})
