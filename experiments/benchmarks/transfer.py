"""Compares fine-tuning with training from scratch, for a ResNet-20 that learns animals and then vehicles.

    python experiments/benchmarks/transfer.py [--workdir W] [--steps 1500]

The script writes the animals and the vehicles of CIFAR-10 as image folders, and trains a network on the animals. It
then trains on the vehicles four times, with the recipe of `experiments/finetune.py`: (1) from scratch, (2) from scratch
at the paper's learning rate, (3) from the network trained on animals, and (4) from the same network, training only its
last layer.
Cost: 12 minutes on 2 CPU cores. The same command resumes a stopped benchmark.
"""

from dataclasses import replace
from pathlib import Path

import tyro
from PIL import Image

from resjax import Data, Experiment, load_data, train
from resjax.console.command_line import guarded
from resjax.experiment_files import load_runs

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
FILES = Path(__file__).parents[1]


def write_halves(root: Path) -> None:
    """Write `root/animals` and `root/vehicles`, each with train/CLASS/*.png and test/CLASS/*.png."""
    data = load_data(Data(source="tfds:cifar10"))
    for split in ("train", "test"):
        images = getattr(data, split)
        for number, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
            name = data.classes[label]
            folder = root / ("animals" if name in ANIMALS else "vehicles") / split / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number:05}.png")
    (root / "written").touch()


def transfer(workdir: Path = Path("runs/transfer"), steps: int = 1_500) -> None:
    """Train on the animals and then on the vehicles, and print the test errors.

    Args:
        workdir: The folder for the images and the runs.
        steps: Number of training steps on the animals.
    """
    if not (workdir / "images" / "written").exists():
        write_halves(workdir / "images")
    animals, vehicles = (Data(source=f"folder:{workdir}/images/{half}", size=32) for half in ("animals", "vehicles"))
    resnet20 = load_runs(FILES / "cifar10.py")["resnet20"]
    drops = replace(resnet20.optimizer, decay_steps=(steps // 2, steps * 3 // 4))
    first = replace(resnet20, name="animals", data=animals, steps=steps, optimizer=drops)
    tuned = load_runs(FILES / "finetune.py")
    animals_run = str(workdir / "animals")
    runs: dict[str, Experiment] = {"animals": first}
    scratch = replace(tuned["resnet20_tuned"], name="scratch", initialize_from="", data=vehicles)
    runs["scratch"] = scratch
    runs["scratch, the paper's rate"] = replace(scratch, optimizer=replace(scratch.optimizer, learning_rate=0.1))
    runs["fine-tuned"] = replace(tuned["resnet20_tuned"], initialize_from=animals_run, data=vehicles)
    runs["last layer alone"] = replace(tuned["resnet20_head"], initialize_from=animals_run, data=vehicles)
    results = {name: train(run, workdir / name.replace(" ", "-").replace(",", "").replace("'", ""))
               for name, run in runs.items()}
    print("| run | steps | test error % |\n|---|---|---|")
    for name, result in results.items():
        print(f"| {name} | {result['steps']:,} | {result['test_top1_error']:.2f} |")


if __name__ == "__main__":
    raise SystemExit(guarded(lambda: tyro.cli(transfer)))
