"""Writes a network's model card in Markdown: what the network is, its measured errors, and how to use it."""

from collections.abc import Sequence
from importlib.metadata import version

from resjax.experiment import Architecture
from resjax.experiment.fields import Format
from resjax.models.counts import count_macs, count_parameters
from resjax.network import Network
from resjax.weights.card import Card, Measured, about_data, markdown_table
from resjax.weights.describe import filter_of, mean_colour_entry, preprocessing_differences, shorter
from resjax.weights.metadata import PreprocessingEntry

USE = {  # code by format, or by format and family of networks
    "torchvision": """\
import timm  # preprocesses images as config.json says
from PIL import Image
model = timm.create_model("local-dir:.", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(transform(Image.open("photo.jpg").convert("RGB"))[None])

import torch
import torchvision
from safetensors.torch import load_file
from torchvision.transforms import v2
model = torchvision.models.{network}(num_classes={classes}).eval()
model.load_state_dict(load_file("model.safetensors"))
transform = v2.Compose([v2.Resize({resized}, v2.InterpolationMode.{FILTER}), v2.CenterCrop(({height}, {width})),
                        v2.PILToTensor(), v2.ToDtype(torch.float32), v2.Normalize({mean}, {std})])
logits = model(transform(Image.open("photo.jpg").convert("RGB"))[None])""",
    "huggingface": """\
from PIL import Image
from transformers import AutoImageProcessor, ResNetForImageClassification
processor = AutoImageProcessor.from_pretrained("."{backend})
model = ResNetForImageClassification.from_pretrained(".")
logits = model(**processor(Image.open("photo.jpg").convert("{mode}"), return_tensors="pt")).logits""",
    "keras": """\
import keras  # build the network, then load its weights; load_model cannot read this file
model = keras.applications.{Network}(weights=None, input_shape=({height}, {width}, 3), classes={classes},
                                     classifier_activation=None)
model.load_weights("model.h5")
image = keras.utils.load_img("photo.jpg", target_size=({height}, {width}), interpolation="{filter}")
logits = model((keras.utils.img_to_array(image)[None, ..., ::-1] - {blue_first}) / {std_blue_first})""",
    "akamaster": """\
from resnet import BasicBlock, ResNet  # from github.com/akamaster/pytorch_resnet_cifar10
from safetensors.torch import load_file
model = ResNet(BasicBlock, [{blocks}] * 3, num_classes={classes})
model.load_state_dict(load_file("model.safetensors"))""",
    "torchvision-cifar": """\
from pytorch_cifar_models.resnet import BasicBlock, CifarResNet  # from github.com/chenyaofo/pytorch-cifar-models
from safetensors.torch import load_file
model = CifarResNet(BasicBlock, [{blocks}] * 3, num_classes={classes})
model.load_state_dict(load_file("model.safetensors"))""",
    "resjax": """\
import resjax
network = resjax.load(".")""",
    "stablehlo": """\
from jax import export  # needs JAX {jax} or newer, and flatbuffers
logits = export.deserialize(open("model.stablehlo", "rb").read()).call(pixels)""",
    "onnx": """\
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
(logits,) = session.run(None, {{"pixels": pixels}})""",
}
PIXELS = """\
`pixels` are uint8 RGB values from 0 to 255, `[batch, {height}, {width}, {channels}]`, for any batch size. `logits` are
float32, `[batch, {classes}]`. The function subtracts the mean and divides by the standard deviation. It does not resize
images. Before you call it, each image must be {resized_how}."""


def model_card(network: Network, to: Format, images: PreprocessingEntry, card: Card) -> str:
    """Write the model card. If there are no errors, the card says that none were measured."""
    shape = height, width, channels = network.preprocessing.image_shape
    paper = network.architecture or Architecture()  # custom networks only export to stablehlo, which ignores it
    title = f"{'VGG' if paper.family == 'vgg' else 'ResNet'}{paper.depth}"
    colours = mean_colour_entry(network.preprocessing, images.channel_order).mean
    blue_first, divided = images.channel_order == "BGR", images.std or (1.0,) * channels
    values = {"Network": title, "network": title.lower(), "classes": network.outputs, "height": height, "width": width,
              "channels": channels, "mode": "L" if channels == 1 else "RGB",
              "blocks": getattr(network.model, "blocks", ("",))[0], "jax": version("jax"),
              "resized": images.squash or shorter(images), "filter": filter_of(images),
              "FILTER": filter_of(images).upper(), "mean": list(colours), "std": list(divided),
              "blue_first": list(colours if blue_first else colours[::-1]),
              "std_blue_first": list(divided if blue_first else divided[::-1]), "resized_how": resize_text(images),
              "backend": ', backend="pil"' if images.resize.startswith("pillow") else ""}
    use = USE.get(f"{to}-{paper.family}", USE[to]).format(**values)
    parts = [
        f"# {network.name}",
        f"{network.title}, {network.outputs} classes: "
        f"{count_parameters(network.model, shape):,} parameters, "
        f"{count_macs(network.model, shape):,} multiply-adds for an image of {height}x{width}.",
        "## Errors", error_table(card.errors), "## Use", f"```python\n{use}\n```",
        PIXELS.format(**values) if to in ("stablehlo", "onnx") else
        f"{preprocessing_text(images)} `model.json` contains these values, and `resjax.load` reads this folder."]
    parts += [f"Difference: {difference}." for difference in preprocessing_differences(network, to)]
    parts += about_data(card)
    if card.recipe:
        parts += ["## Training", card.recipe]
    parts.append(f"Written by resjax {version('resjax')}, which implements Deep Residual Learning for Image "
                 "Recognition (He, Zhang, Ren, Sun, CVPR 2016) in JAX and Flax.")
    return "\n\n".join(parts) + "\n"


def error_table(errors: Sequence[Measured]) -> str:
    """Format measured errors as a table."""
    if not errors:
        return "No errors were measured before the export. Use `resjax evaluate` to measure them."
    return markdown_table(["images", "views", "top-1 error %", "top-5 error %", "counted"], [
        [error.images_of, error.views, f"{error.top1_error:.2f}", f"{error.top5_error:.2f}",
         "" if error.images is None else f"{error.images:,}"] for error in errors])


def preprocessing_text(images: PreprocessingEntry) -> str:
    """Describe how images become the network's input."""
    def colours(values: Sequence[float]) -> str:
        return f"({', '.join(f'{value:.3f}' for value in values)})"

    what = f"the colour {colours(images.mean)}" if images.mean else f"the image in `{images.mean_image}`"
    divided = f" and divide by {colours(images.std)}" if images.std else ""
    return (f"An image is {resize_text(images)}. From its pixels, 0 to 255 in {images.channel_order}, subtract "
            f"{what}{divided}.")


def resize_text(images: PreprocessingEntry) -> str:
    """Describe how images are resized."""
    crop = f"{images.size}x{images.width or images.size}"
    if images.shorter_side is None and images.squash is None:
        part = "square" if images.width in (None, images.size) else f"part with the aspect ratio of {crop}"
        return f"cropped to its largest centred {part} and resized to {crop} ({images.resize})"
    how = (f"squashed to {images.squash[0]}x{images.squash[1]}" if images.squash else
           f"resized to a shorter side of {images.shorter_side}")
    return f"{how} ({images.resize}) and cropped to its centre of {crop} ({images.crop})"
