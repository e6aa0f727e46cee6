"""Tables 2 to 5 of the paper: plain and residual networks on ImageNet, with the recipe of section 3.4.

    python experiments/imagenet.py resnet50 --data.source folder:PATH --workdir runs/resnet50

Data: ImageNet, as `folder:PATH` (PATH/train/CLASS/*.JPEG and PATH/val/CLASS/*.JPEG), `tars:PATH` (the original
archives) or `tfds:imagenet2012` (a prepared data set). The mean image is computed once, when the first run starts, and
then cached.
Cost: 600k steps of 256 images are 154 million images, which take 17 hours at 2,500 images/s.
Result: not run yet, because we do not have the data set.
"""

from dataclasses import replace

from resjax import Architecture, Experiment, Optimizer, Photographs, run

# Section 3.4: batch 256 on 8 GPUs, so batch norm over 32 images; learning rate 0.1, divided by 10 when the error
# plateaus; up to 600k iterations; weight decay 1e-4; momentum 0.9. The paper does not define a plateau. We use the
# training error, averaged over 10k iterations (two epochs).
IMAGENET = Photographs(source="tfds:imagenet2012", size=224, shorter_side=(256, 480))
PLATEAU = Optimizer(learning_rate=0.1, decay_steps=(), plateau_steps=10_000, momentum=0.9, weight_decay=1e-4)
STEPS = replace(PLATEAU, plateau_steps=0, decay_steps=(150_000, 300_000, 450_000))  # drops every 30 epochs, as usual


def network(name: str, depth: int, shortcut: str, optimizer: Optimizer = PLATEAU) -> Experiment:
    """Return a network of Table 1 with the paper's recipe."""
    architecture = Architecture(family="imagenet", depth=depth, shortcut=shortcut, ghost_batch_size=32)
    return Experiment(name=name, architecture=architecture, data=IMAGENET, optimizer=optimizer, steps=600_000,
                      batch_size=256, evaluate_steps=10_000, evaluate_test=True, checkpoint_steps=2_000,
                      precise_batch_norm_steps=200)


NETWORKS = [*((f"plain{depth}", depth, "plain") for depth in (18, 34)),
            *((f"resnet{depth}{shortcut}", depth, shortcut) for depth in (18, 34) for shortcut in "ABC"),
            *((f"resnet{depth}", depth, "B") for depth in (50, 101, 152))]

EXPERIMENTS = {e.name: e for e in [
    *(network(*values) for values in NETWORKS),
    *(network(f"{name}_steps", depth, shortcut, STEPS) for name, depth, shortcut in NETWORKS),
]}

if __name__ == "__main__":
    run(EXPERIMENTS)
