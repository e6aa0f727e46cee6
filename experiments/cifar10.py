"""Residual networks for CIFAR-10 with shortcut options A, B and C, and plain networks (Table 6 and Figure 6).

    python experiments/cifar10.py resnet20 --workdir runs/resnet20

Data: run `resjax prepare cifar10` once (a download of 170 MB), or pass `--data.directory` with a prepared copy.
Cost: on 2 CPU cores, a step of resnet20 takes 195 ms (docs/results/onednn.md). A run's 64k steps take about 3.5 hours.
Result: with the full recipe, the test error is 8.38 % for resnet20 and 9.36 % for plain20 (docs/results/cifar10.md).
"""

from dataclasses import replace

from resjax import Architecture, Data, Experiment, Optimizer, run

# Section 4.2: 64k iterations of batch 128, rate 0.1 divided by 10 at 32k and 48k, weight decay 1e-4, momentum 0.9,
# per-pixel mean, pad 4, crop, flip. Batch norm over 64 images, since the batch was split over two GPUs.
CIFAR10 = Data(source="tfds:cifar10")
PAPER = Optimizer(learning_rate=0.1, decay_steps=(32_000, 48_000), momentum=0.9, weight_decay=1e-4)
# With 110 layers (and, we assume, 1202) the paper starts at 0.01, until the training error is below 80 %.
WARM_UP = replace(PAPER, warmup_rate=0.01, warmup_error=80.0)


def network(name: str, depth: int, shortcut: str, optimizer: Optimizer = PAPER) -> Experiment:
    """Return a network of Table 6 with the paper's recipe."""
    return Experiment(name=name, architecture=Architecture(depth=depth, shortcut=shortcut), data=CIFAR10,
                      optimizer=optimizer, steps=64_000, batch_size=128)


EXPERIMENTS = {e.name: e for e in [
    *(network(f"plain{depth}", depth, "plain") for depth in (20, 32, 44, 56)),
    network("plain110", 110, "plain", WARM_UP),
    *(network(f"resnet{depth}", depth, "A") for depth in (20, 32, 44, 56)),
    network("resnet110", 110, "A", WARM_UP),
    network("resnet110_400", 110, "A", replace(PAPER, warmup_rate=0.01, warmup_steps=400)),
    network("resnet1202", 1202, "A", WARM_UP),
    *(network(f"resnet{depth}{shortcut}", depth, shortcut) for depth in (20, 32, 44, 56) for shortcut in "BC"),
    *(network(f"resnet110{shortcut}", 110, shortcut, WARM_UP) for shortcut in "BC"),
]}

if __name__ == "__main__":
    run(EXPERIMENTS)
