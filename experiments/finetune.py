"""Fine-tunes pretrained weights on other images, with a new last layer.

    python experiments/finetune.py resnet20_tuned --data.source folder:PATH
    python experiments/finetune.py resnet50_tuned --data.source folder:PATH

`--initialize-from` names the weights: a run directory, a file, OWNER/NAME on the Hugging Face Hub, or a network that
comes with resjax. Experiments whose names end in `_head` train only the last layer. With `--initialize-from ""`,
resnet20_tuned trains from scratch.
Data: any source, such as `folder:PATH` with PATH/train/CLASS/* and PATH/test/CLASS/* (or val).
Cost: the 200 steps of resnet20_tuned take about a minute on 2 CPU cores.
Result: after 200 steps on CIFAR-10's vehicles, the test error is 25.43 % from weights trained on CIFAR-10's animals,
and 34.30 % from scratch (docs/results/transfer.md). resnet50_tuned has not been run yet.
"""

from dataclasses import replace

from resjax import Architecture, Data, Experiment, Optimizer, Photographs, run

# As usual, the learning rate is a tenth of that for training from scratch, and is divided by 10 towards the end.
ALL = Optimizer(learning_rate=0.01, decay_steps=(150,), momentum=0.9, weight_decay=1e-4)
HEAD = replace(ALL, learning_rate=0.1, backbone_rate=0.0)
RESNET20 = Architecture(depth=20, shortcut="A")
# torchvision's ResNet-50 as timm distributes it: v1.5, for colours divided by their standard deviations. Batch norm
# keeps the statistics of pretraining, as in appendix A of the paper.
RESNET50 = Architecture(family="imagenet", depth=50, shortcut="B", stride_in="3x3", ghost_batch_size=32,
                        frozen_batch_norm=True)
STD = (58.395, 57.12, 57.375)  # 255 times the standard deviations of torchvision and timm: 0.229, 0.224, 0.225
TORCHVISION = "timm/resnet50.tv_in1k"


def small(name: str, architecture: Architecture, optimizer: Optimizer) -> Experiment:
    """Fine-tune a CIFAR-10 network on other small images."""
    return Experiment(name=name, architecture=architecture, optimizer=optimizer, initialize_from="resnet20",
                      data=Data(source="folder:PATH", size=32), steps=200, batch_size=128, log_steps=20,
                      checkpoint_steps=100, precise_batch_norm_steps=50)


def large(name: str, optimizer: Optimizer) -> Experiment:
    """Fine-tune an ImageNet network on other photographs."""
    drops = replace(optimizer, decay_steps=(1_500,))
    return Experiment(name=name, architecture=RESNET50, optimizer=drops, initialize_from=TORCHVISION, steps=2_000,
                      batch_size=64, log_steps=20,
                      data=Photographs(source="folder:PATH", crop="area", colour_noise=0.0, std=STD),
                      evaluate_steps=500, evaluate_test=True, checkpoint_steps=500)


EXPERIMENTS = {e.name: e for e in [
    small("resnet20_tuned", RESNET20, ALL),
    small("resnet20_head", replace(RESNET20, frozen_batch_norm=True), HEAD),
    large("resnet50_tuned", ALL),
    large("resnet50_head", HEAD),
]}

if __name__ == "__main__":
    run(EXPERIMENTS)
