"""Other libraries' names for the tensors of a ResNet, for loading and for export.

A naming family is a set of names that one or more libraries use. `FAMILIES` has a table for each family. In the tables,
`{block}`, `{stage0}` and `{layer0}` count from 0, and `{stage}`, `{layer}` and `{block1}` count from 1. `{letter}`
starts at a.
"""

from typing import Any, NamedTuple

Axes = tuple[int, ...]


class Names(NamedTuple):
    """A family's names for modules and their leaves, and the axis order of its kernels.

    `stem`, `layer` and `shortcut` name a convolution and its batch norm. `conv`, `dense` and `norm` map our leaves to
    the family's. `conv_axes` and `dense_axes` transpose its kernels to `[height, width, in, out]` and `[in, out]`.
    `epsilon` is added to batch norm's variance, and the batch counter `counter` is ignored. If `around` is set, option
    A has its zero channels on both sides. `prefix` precedes all layers except the last.
    """

    title: str
    stem: tuple[str, str]
    layer: tuple[str, str]
    shortcut: tuple[str, str]
    head: str
    conv: dict[str, str]
    norm: dict[str, str]
    dense: dict[str, str]
    conv_axes: Axes
    dense_axes: Axes
    epsilon: float = 1e-5
    counter: str = ""
    around: bool = False
    prefix: str = ""


TORCH: dict[str, Any] = {
    "conv": {"kernel": ".weight"},
    "norm": {"scale": ".weight", "bias": ".bias", "mean": ".running_mean", "var": ".running_var"},
    "dense": {"kernel": ".weight", "bias": ".bias"},
    "conv_axes": (2, 3, 1, 0), "dense_axes": (1, 0), "counter": ".num_batches_tracked"}

KERAS: dict[str, Any] = {
    "conv": {"kernel": "/kernel", "bias": "/bias"},
    "norm": {"scale": "/gamma", "bias": "/beta", "mean": "/moving_mean", "var": "/moving_variance"},
    "dense": {"kernel": "/kernel", "bias": "/bias"},
    "conv_axes": (0, 1, 2, 3), "dense_axes": (0, 1)}

FAMILIES = {
    "torchvision": Names(  # also timm, pytorch-cifar-models, and most of PyTorch
        "torchvision, timm", ("conv1", "bn1"), ("layer{stage}.{block}.conv{layer}", "layer{stage}.{block}.bn{layer}"),
        ("layer{stage}.{block}.downsample.0", "layer{stage}.{block}.downsample.1"), "fc", **TORCH),
    "akamaster": Names(  # github.com/akamaster/pytorch_resnet_cifar10, widely used CIFAR-10 networks
        "pytorch_resnet_cifar10", ("conv1", "bn1"),
        ("layer{stage}.{block}.conv{layer}", "layer{stage}.{block}.bn{layer}"),
        ("layer{stage}.{block}.shortcut.0", "layer{stage}.{block}.shortcut.1"), "linear", around=True, **TORCH),
    "huggingface": Names(
        "Hugging Face transformers", ("embedder.embedder.convolution", "embedder.embedder.normalization"),
        ("encoder.stages.{stage0}.layers.{block}.layer.{layer0}.convolution",
         "encoder.stages.{stage0}.layers.{block}.layer.{layer0}.normalization"),
        ("encoder.stages.{stage0}.layers.{block}.shortcut.convolution",
         "encoder.stages.{stage0}.layers.{block}.shortcut.normalization"), "classifier.1", prefix="resnet.", **TORCH),
    "keras": Names(
        "Keras applications", ("conv1_conv", "conv1_bn"),
        ("conv{next}_block{block1}_{layer}_conv", "conv{next}_block{block1}_{layer}_bn"),
        ("conv{next}_block{block1}_0_conv", "conv{next}_block{block1}_0_bn"), "predictions", epsilon=1.001e-5, **KERAS),
    # Keras's first release of the authors' ResNet-50, with its names in Caffe. Keras then used its own default epsilon
    # of 1e-3; this table has the authors' epsilon.
    "keras-2016": Names(
        "Keras before 2018", ("conv1", "bn_conv1"),
        ("res{next}{letter}_branch2{layer_letter}", "bn{next}{letter}_branch2{layer_letter}"),
        ("res{next}{letter}_branch1", "bn{next}{letter}_branch1"), "fc1000", **KERAS),
}


def module_name(names: Names, path: tuple[Any, ...]) -> str:
    """Return the family's name of one of our modules.

    A module is a path such as `("conv1",)`, `("stage2", 0, "bn1")` in the first block, or `("stage2", 3, "shortcut",
    "conv")`.
    """
    *where, module = path
    norm = module.startswith("bn")
    if module == "fc":
        return names.head
    if not where:
        return names.prefix + names.stem[norm]
    stage, block = int(where[0].removeprefix("stage")), where[1]
    places = {"stage": stage, "stage0": stage - 1, "next": stage + 1, "block": block, "block1": block + 1,
              "letter": chr(ord("a") + block)}
    if "shortcut" in where:
        return names.prefix + names.shortcut[norm].format(**places)
    layer = int(module.removeprefix("conv").removeprefix("bn"))
    inner = names.layer[norm].format(layer=layer, layer0=layer - 1, layer_letter=" abc"[layer], **places)
    return names.prefix + inner
