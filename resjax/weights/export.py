"""Exports networks to other libraries' formats, in a temporary folder that is moved into place once it is complete."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save

from resjax.experiment.fields import Format
from resjax.models import VGG
from resjax.models.families import IMAGENET
from resjax.network import Network, check_last_layer, imagenet_classes
from resjax.system.errors import BadInput, check
from resjax.system.files import expanded, folder_aside, remove_leftovers, write_json
from resjax.system.terminal import tell
from resjax.weights.card import Card, write_card
from resjax.weights.convert import flip_colours, to_tensors
from resjax.weights.describe import mean_colour_entry, preprocessing_differences, processor_config, timm_config
from resjax.weights.locate import Tensors
from resjax.weights.metadata import preprocessing_entry, write_metadata
from resjax.weights.model_card import model_card
from resjax.weights.onnx_graph import to_onnx
from resjax.weights.tensor_names import FAMILIES
from resjax.weights.vgg import to_vgg_tensors

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
KERAS_ORDER = ("1_conv", "1_bn", "2_conv", "2_bn", "0_conv", "3_conv", "0_bn", "3_bn")  # of a block's layers


def export(network: Network, to: Format, out: str | Path, card: Card | None = None) -> Path:
    """Write a network and its model card to a new folder, in the format that `to` names.

    Files in the formats torchvision (also for timm and pytorch-cifar-models), huggingface, keras and akamaster
    (pytorch_resnet_cifar10) contain exactly the tensors that these libraries expect. The format resjax has
    torchvision's tensor names and supports any network of the paper, but only `resjax.load` reads it. Files in the
    formats stablehlo (for the installed version of JAX or a newer one) and onnx (for ONNX Runtime) contain the whole
    function from pixels to logits. `card` provides errors, data set, licence and recipe for the model card. If the
    other library prepares images differently, the card says so. Raises BadInput if the format does not support the
    network or if the folder already exists, and OSError if the folder cannot be written. No incomplete files are left
    behind.
    """
    out = expanded(out)
    check(to in WRITERS, f"to is {to!r}; it must be one of {', '.join(WRITERS)}")
    check_form(network, to)
    remove_leftovers(out)
    check(not out.exists(), f"{out} already exists; choose a new folder with --out")
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with folder_aside(out) as aside:
        folder = aside / "new"
        folder.mkdir()
        WRITERS[to](network, folder)
        images = preprocessing_entry(network.preprocessing, "BGR" if to == "keras" else "RGB")
        (folder / "README.md").write_text(model_card(network, to, images, card or Card()), "utf-8")
        write_card(card or Card(), folder)
        os.replace(folder, out)
    for difference in preprocessing_differences(network, to):
        tell(f"{out}: {difference}, so logits of the same image differ")
    return out


def check_form(network: Network, to: Format) -> None:
    """Raise BadInput unless the other library has a network that computes the same function."""
    check_last_layer(network)
    architecture = network.architecture
    if architecture is None:
        check(to == "stablehlo", f"{network.name} is your own network, which --to {to} does not support; use "
                                 "--to stablehlo")
        return
    family, depth, shortcut = architecture.family, architecture.depth, architecture.shortcut
    wide = depth >= 50
    v15 = not wide or architecture.stride_in == "3x3"
    height, width, channels = network.preprocessing.image_shape
    colour, one_window = channels == 3, height == width == 224  # at other sizes, the libraries pool differently
    vgg = family == "vgg" and network.model.units > 0 and one_window
    has = {"torchvision": (colour and (vgg or (shortcut == "B" and (family == "cifar" or v15))),
                           "VGG for images of 224x224, and ResNets with option B and the stride in the 3x3, for colour "
                           "images"),
           "huggingface": (channels in (1, 3) and family == "imagenet" and shortcut == "B",
                           "ResNets of Table 1 with option B, for colour or grey images"),
           "keras": (colour and (vgg or (family == "imagenet" and shortcut == "B" and wide
                                         and architecture.stride_in == "1x1" and min(height, width) >= 32)),
                     "VGG for images of 224x224, and ResNet-50, 101 and 152 with option B and the stride in the first "
                     "1x1, for colour images of at least 32x32"),
           "akamaster": (colour and family == "cifar" and shortcut == "A" and height == width,
                         "ResNets for CIFAR-10 with option A, for square colour images"),
           "resjax": (True, ""), "stablehlo": (True, ""),
           "onnx": (family != "vgg" or not network.model.units or one_window,
                    "ResNets, and VGG for images of 224x224")}
    fits, there = has[to]
    if not fits:
        others = [form for form, (right, _) in has.items() if right]
        raise BadInput(f"{network.name} is {architecture.title()}, for images of {height}x{width}x{channels}, but "
                       f"--to {to} supports only {there}; use --to {' or '.join(others)}")


def named_tensors(network: Network, family: str, variables: Any) -> Tensors:
    """Name the variables of a network as a family does."""
    if isinstance(network.model, VGG):
        return to_vgg_tensors(variables, "keras" if family == "keras" else "torchvision", network.model)
    return to_tensors(variables, FAMILIES[family], network.model)


def write_safetensors(family: str, network: Network, folder: Path) -> None:
    """Write `model.safetensors` and its accompanying files."""
    (folder / "model.safetensors").write_bytes(save(named_tensors(network, family, network.variables)))
    write_metadata(network, folder)


def write_torchvision(network: Network, folder: Path) -> None:
    """Write the files that torchvision and timm load, including timm's `config.json`."""
    write_safetensors("torchvision", network, folder)
    if (config := timm_config(network)) is not None:
        write_json(folder / "config.json", config)


def write_huggingface(network: Network, folder: Path) -> None:
    """Write the files for `from_pretrained`, including the image processor."""
    write_safetensors("huggingface", network, folder)
    architecture = network.architecture
    assert architecture is not None
    kind, blocks = IMAGENET[architecture.depth]
    names = imagenet_classes()
    labels = {str(i): names.get(name, name) for i, name in enumerate(network.classes)} or {
        str(i): f"LABEL_{i}" for i in range(network.outputs)}
    write_json(folder / "config.json", {
        "architectures": ["ResNetForImageClassification"], "model_type": "resnet", "dtype": "float32",
        "num_channels": network.preprocessing.image_shape[-1], "embedding_size": 64, "depths": blocks,
        "layer_type": kind, "hidden_act": "relu",
        "hidden_sizes": [64 * 2**i * (4 if kind == "bottleneck" else 1) for i in range(4)],
        "downsample_in_first_stage": False, "downsample_in_bottleneck": architecture.stride_in == "1x1",
        "id2label": labels, "label2id": {name: int(i) for i, name in labels.items()}})
    write_json(folder / "preprocessor_config.json", processor_config(mean_colour_entry(network.preprocessing)))


def write_keras(network: Network, folder: Path) -> None:
    """Write `model.h5` for BGR images, as in Keras, with the layers in the order in which Keras reads them."""
    import h5py  # imported here, because it takes 35 ms

    variables = flip_colours(network.variables)
    layers: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, tensor in named_tensors(network, "keras", variables).items():
        layer, leaf = name.split("/")
        layers.setdefault(layer, []).append((f"{layer}/{leaf}:0", tensor))
    order = ["kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"]
    with h5py.File(folder / "model.h5", "w") as file:
        ordered = list(layers) if isinstance(network.model, VGG) else sorted(layers, key=keras_place)
        file.attrs["layer_names"] = np.array(ordered, "S")
        for layer, weights in layers.items():
            weights.sort(key=lambda pair: order.index(pair[0].split("/")[1].removesuffix(":0")))
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([name for name, _ in weights], "S")
            for name, tensor in weights:
                group[name] = tensor
    write_metadata(network, folder, "BGR")


def keras_place(layer: str) -> tuple[int, int, int]:
    """Return the position of a layer in Keras's numbering, as stage, block, and layer in the block."""
    if not layer.startswith("conv") or layer.startswith("conv1_"):
        return (9, 0, 0) if layer == "predictions" else (1, 0, ("conv1_conv", "conv1_bn").index(layer))
    stage, block, inner = layer.split("_", 2)
    return int(stage.removeprefix("conv")), int(block.removeprefix("block")), KERAS_ORDER.index(inner)


def write_stablehlo(network: Network, folder: Path) -> None:
    """Write the function from pixels to logits, for any batch size and every platform."""
    def logits(pixels: jax.Array) -> Any:
        return network.model.apply(network.variables, network.preprocessing.normalize(pixels))

    (batch,) = jax.export.symbolic_shape("batch")
    pixels = jax.ShapeDtypeStruct((batch, *network.preprocessing.image_shape), jnp.uint8)
    with without_places():
        exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(pixels)
    (folder / "model.stablehlo").write_bytes(exported.serialize())


@contextmanager
def without_places() -> Iterator[None]:
    """Remove source locations from programs, so that the same network gives the same bytes on any machine."""
    frames = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)


WRITERS: dict[str, Callable[[Network, Path], object]] = {
    "torchvision": write_torchvision, "huggingface": write_huggingface, "keras": write_keras,
    "akamaster": partial(write_safetensors, "akamaster"), "resjax": partial(write_safetensors, "torchvision"),
    "stablehlo": write_stablehlo, "onnx": lambda network, folder: (folder / "model.onnx").write_bytes(to_onnx(network))}
assert set(WRITERS) == set(get_args(Format))
