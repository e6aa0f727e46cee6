"""ResNets with torchvision's recipe of 90 epochs, which is newer and shorter than the paper's recipe.

    python experiments/torchvision_recipe.py resnet50_torchvision --data.source folder:PATH

Source: the folder references/classification of github.com/pytorch/vision. Bottlenecks have their stride in the 3x3
convolution ("v1.5"). Crops cover 8 to 100 % of the image's area (Szegedy et al. 2015). The learning rate drops every 30
epochs. With this recipe, torchvision reports 1-crop top-1 errors of 30.24 % for ResNet-18, 26.69 % for ResNet-34 and
23.87 % for ResNet-50. Unlike torchvision, we subtract the mean image, do not divide by a standard deviation, and
compute convolutions in bfloat16.
Cost: 450k steps of 256 images are 115 million images, which take 12.8 hours at 2,500 images/s.
Result: not run yet, because we do not have the data set.
"""

from resjax import Architecture, Experiment, Optimizer, Photographs, run

EPOCH = 1_281_167 // 256  # steps


def network(depth: int) -> Experiment:
    """Return a network with torchvision's recipe."""
    return Experiment(
        name=f"resnet{depth}_torchvision", steps=90 * EPOCH, batch_size=256,
        architecture=Architecture(family="imagenet", depth=depth, shortcut="B", stride_in="3x3", ghost_batch_size=32,
                                  initialization="fan_out", precision="bfloat16"),
        data=Photographs(source="tfds:imagenet2012", crop="area", colour_noise=0.0),
        optimizer=Optimizer(learning_rate=0.1, decay_steps=(30 * EPOCH, 60 * EPOCH), momentum=0.9, weight_decay=1e-4),
        evaluate_steps=2 * EPOCH, evaluate_test=True, checkpoint_steps=2_000, precise_batch_norm_steps=200)


EXPERIMENTS = {e.name: e for e in map(network, (18, 34, 50))}

if __name__ == "__main__":
    run(EXPERIMENTS)
