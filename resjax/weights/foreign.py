"""Networks that are none of the paper's, told by their tensors, so that they are refused by what they are."""

import re
from collections.abc import Mapping

import numpy as np

from resjax.system.errors import check

MARKS = {  # what a name matches, the first of these that does
    r"_preact_bn/|^post_bn/": "the second version of Keras's ResNet, with batch norm and ReLU before each convolution",
    r"\.(se|se_module)\.|\.attn\.|_se_(reduce|expand|squeeze)": "a network with squeeze-and-excitation or attention",
    r"\.zero_point$|packed_params|\.weight_fake_quant\.|\.qweight$": "a quantised network",
    r"^conv1\.[36]\.weight$": "a ResNet whose stem is three 3x3 convolutions",
    r"^features\.\d+\.weight$": "a VGG, AlexNet or the like",
    r"denseblock\d": "a DenseNet",
    r"(^|\.)(cls_token|pos_embed|class_token)$|self_attn|attention\.": "a transformer",
    r"^(rpn|roi_heads)\.|^backbone\.body\.": "a detector",
    r"lora_[AB]\.": "an adapter, without the network that it adapts",
}


def check_kinship(tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Raise BadInput for a network of another kind, saying which."""
    marked = (kind for mark, kind in MARKS.items() if any(re.search(mark, name) for name in tensors))
    kind = next(marked, "") or told_by_shapes(tensors)
    check(not kind, f"{source}: {kind}, which is no network of the paper")


def told_by_shapes(tensors: Mapping[str, np.ndarray]) -> str:
    """Tell another kind of network by its kernels, under PyTorch's usual names; "" where they tell none."""
    shapes = {name: tensor.shape for name, tensor in tensors.items() if tensor.ndim == 4}
    stem, inner = shapes.get("conv1.weight", ()), shapes.get("layer1.0.conv2.weight", ())
    wide = shapes.get("layer1.0.conv3.weight", ())
    if any(tensor.dtype in (np.int8, np.uint8) for tensor in tensors.values() if tensor.ndim == 4):
        return "a quantised network"
    if stem[2:] == (3, 3) and any(name.startswith("layer4.") for name in shapes):
        return "a ResNet with a 3x3 stem before four stages, as it is used on small images"
    if inner and inner[0] != inner[1]:
        return "a network with grouped convolutions (ResNeXt)"
    if wide and inner[:1] and stem and inner[0] != stem[0]:
        return "a ResNet with wider bottlenecks (Wide ResNet)"
    return ""
