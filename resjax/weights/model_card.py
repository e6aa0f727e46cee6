"""The model card: what a network is, what it was measured to do, and how to use it, in Markdown."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple

from resjax.experiment import Architecture
from resjax.models.counts import count_macs, count_parameters
from resjax.network import Network
from resjax.weights.metadata import Entry

USE = {  # by form, or by form and family of networks
    "torchvision": """\
import torchvision
from safetensors.torch import load_file
model = torchvision.models.{network}(num_classes={classes})
model.load_state_dict(load_file("model.safetensors"))""",
    "huggingface": """\
from transformers import ResNetForImageClassification
model = ResNetForImageClassification.from_pretrained(".")""",
    "keras": """\
import keras
model = keras.applications.{Network}(weights=None, classes={classes})
model.load_weights("model.h5")""",
    "akamaster": """\
from resnet import BasicBlock, ResNet  # of github.com/akamaster/pytorch_resnet_cifar10
from safetensors.torch import load_file
model = ResNet(BasicBlock, [{blocks}] * 3, num_classes={classes})
model.load_state_dict(load_file("model.safetensors"))""",
    "torchvision-cifar": """\
from pytorch_cifar_models.resnet import BasicBlock, CifarResNet  # of github.com/chenyaofo/pytorch-cifar-models
from safetensors.torch import load_file
model = CifarResNet(BasicBlock, [{blocks}] * 3, num_classes={classes})
model.load_state_dict(load_file("model.safetensors"))""",
    "resjax": """\
import resjax
network = resjax.load(".")""",
    "stablehlo": """\
from jax import export  # nothing but jax and flatbuffers is needed
logits = export.deserialize(open("model.stablehlo", "rb").read()).call(pixels)""",
}
PIXELS = """\
`pixels` are uint8 RGB of 0 to 255, `[batch, {height}, {width}, {channels}]` for any batch; `logits` are float32
`[batch, {classes}]`. What is subtracted and divided is part of the function."""


class Measured(NamedTuple):
    """An error that was measured: on which images, by which views, top-1 and top-5 in percent, of how many images."""

    images_of: str
    views: str
    top1_error: float
    top5_error: float
    images: int | None


def model_card(network: Network, to: str, images: Entry, errors: Sequence[Measured], recipe: str) -> str:
    """Write the card; without errors it says that none were measured."""
    shape = height, width, channels = network.preprocessing.image_shape
    paper = network.architecture or Architecture()  # one's own goes to stablehlo alone, which does not ask
    title = f"{'VGG' if paper.family == 'vgg' else 'ResNet'}{paper.depth}"
    values = {"Network": title, "network": title.lower(), "classes": network.outputs, "height": height, "width": width,
              "channels": channels, "blocks": getattr(network.model, "blocks", ("",))[0]}
    use = USE.get(f"{to}-{paper.family}", USE[to]).format(**values)
    parts = [
        f"# {network.name}",
        f"{network.title}, {network.outputs} classes: "
        f"{count_parameters(network.model, shape):,} parameters, "
        f"{count_macs(network.model, shape):,} multiply-adds for an image of {height}x{width}.",
        "## Errors", table(errors), "## Use", f"```python\n{use}\n```",
        PIXELS.format(**values) if to == "stablehlo" else
        f"{prepared(images)} `model.json` holds this; `resjax.load` reads this folder."]
    if recipe:
        parts += ["## Training", recipe]
    parts.append(f"Written by resjax {version('resjax')}: Deep Residual Learning for Image Recognition (He, Zhang, "
                 "Ren, Sun, CVPR 2016) in JAX and Flax.")
    return "\n\n".join(parts) + "\n"


def table(errors: Sequence[Measured]) -> str:
    """Put measured errors into a table."""
    if not errors:
        return "None were measured when this was written: `resjax evaluate` measures them."
    rows = [f"| {error.images_of} | {error.views} | {error.top1_error:.2f} | {error.top5_error:.2f} | "
            f"{'' if error.images is None else f'{error.images:,}'} |" for error in errors]
    return "\n".join(["| images | views | top-1 error % | top-5 error % | counted |", "|---|---|---|---|---|", *rows])


def prepared(images: Entry) -> str:
    """Say how images become the input."""
    def colours(values: Sequence[float]) -> str:
        return f"({', '.join(f'{value:.3f}' for value in values)})"

    what = f"the colour {colours(images.mean)}" if images.mean else f"the image in `{images.mean_image}`"
    divided = f" and divide by {colours(images.std)}" if images.std else ""
    return f"From the pixels of an image, 0 to 255 in {images.channel_order}, subtract {what}{divided}."
