"""Recognises unsupported files, archives, folders and networks, and describes them for error messages."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from resjax.system.errors import check

READ_AT = 4096  # number of first bytes that identify a file
TENSORFLOW = "a TensorFlow file; save the weights with Keras instead, model.save('NAME.keras')"
CAFFE = "a Caffe file; save the authors' network with Keras, keras.applications.ResNet50().save('NAME.keras')"
WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".h5", ".keras")
STATE_DICT = "save the network's state_dict() instead"
NAMES_VARY = "whose tensor names vary; save the arrays under torchvision's names with safetensors.numpy.save_file"
# In each table, the first pattern that matches counts.
BEGINNINGS = {  # patterns for a file's first bytes, in Latin-1 and lower case
    r"^version https://git-lfs": "a Git LFS pointer; run `git lfs pull` to get the file itself",
    r"^\s*<(!doctype|html|\?xml|head|!--)": "a web page; download the file itself",
    r"^\x1f\x8b": "compressed with gzip; unpack it first", r"^bzh": "compressed with bzip2; unpack it first",
    r"^\xfd7zxz": "compressed with xz; unpack it first", r"^(?s:.{257})ustar": "a tar archive; unpack it first",
    r"^\x93numpy": "a NumPy array; weights need names", r"^gguf": "a quantised network (GGUF)",
    r"^(?s:.{4})tfl3": TENSORFLOW.replace("TensorFlow", "TensorFlow Lite"),
    r"stablehlo|ml\xefr": "a function written by jax.export; call it with jax.export.deserialize, or load a folder "
                          "written by `export --to resjax`",
    r"^\x08[\x03-\x0f][\x12\x1a\x22\x28\x32\x3a\x42]":
        "an ONNX program, which does not name its layers; load the weights that it was made from",
    r"^[\x81-\x8f\xde\xdf]\x00{0,3}[\x00-\x7f]?[\xa1-\xbf\xd9][\w.]": f"a msgpack file of Flax, {NAMES_VARY}",
    r"^\{": "a JSON file; give the weights file beside it",
    r"^(?s:.{8})\{": "a safetensors file with an impossible header; download it again"}
ENDINGS = {  # patterns for a file's name
    r"\.(caffemodel|prototxt)$": CAFFE, r"\.(pb|index|meta|data-00000-of-00001)$": TENSORFLOW,
    r"\.mlmodel$": "a Core ML program", r"\.engine$": "a TensorRT program"}
ARCHIVES = {  # patterns for the names of an archive's members
    r"/constants\.pkl$|/code/__torch__": f"a TorchScript program, which is code; {STATE_DICT}",
    r"(archive_format|serialized_exported_program\.json)$": f"a torch.export program (.pt2); {STATE_DICT}"}
PICKLES = {  # patterns for the keys of a dictionary without tensors
    r"^(__author__|matching_heuristics)$":
        "a detectron2 pickle of NumPy arrays; load it with detectron2 and save its tensors with torch.save",
    r"@@$": "a Paddle pickle; save its arrays under torchvision's names with safetensors.numpy.save_file"}
FOLDERS = {  # patterns for the names of files in a folder
    r"\.distcp$": "a checkpoint of torch.distributed.checkpoint; convert it with `python -m "
                  "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth`",
    r"^(_CHECKPOINT_METADATA|_METADATA|manifest\.ocdbt)$": f"an Orbax checkpoint, {NAMES_VARY}",
    r"^saved_model\.pb$": TENSORFLOW}
NETWORKS = {  # patterns for tensor names
    r"_preact_bn/|(^|/)post_bn/": "a ResNet V2 of Keras, with batch norm and ReLU before each convolution",
    r"\.(se|se_module)\.|\.attn\.|_se_(reduce|expand|squeeze)": "a network with squeeze-and-excitation or attention",
    r"\.zero_point$|packed_params|\.weight_fake_quant\.|\.qweight$": "a quantised network",
    r"(^|\.)conv1\.[36]\.weight$": "a ResNet whose stem is three 3x3 convolutions",
    r"(^|\.)transition\d\.|\.fuse_layers\.|\.branches\.\d": "an HRNet",
    r"denseblock\d|(^|/)pool\d_(bn|conv)/": "a DenseNet",
    r"(^|\.)(cls_token|pos_embed|class_token)$|self_attn|attention\.|relative_position": "a transformer",
    r"(^|\.)(rpn|roi_heads|proposal_generator)\.|^backbone\.(body|fpn)\.": "a detector",
    r"lora_[AB]\.": "an adapter, without the network that it adapts",
    r"(^|\.)(Mixed_\d|inception\d)": "an Inception network", r"(^|\.)_?conv_stem\.": "an EfficientNet or MobileNet",
    r"^(.*\.)?features\.\d+\.(\d+\.)*weight$": "a VGG, AlexNet or the like"}


def describe(kinds: Mapping[str, str], names: Iterable[str]) -> str:
    """Return the description whose pattern in a table matches one of the names; "" if there is none."""
    names = list(names)
    return next((kind for mark, kind in kinds.items() if any(re.search(mark, name, re.ASCII) for name in names)), "")


def describe_file(begin: bytes, file: Path) -> str:
    """Describe a file that does not begin like a weights file."""
    if not begin:
        return "the file is empty; download it again"
    return (describe(ENDINGS, [file.name.lower()]) or describe(BEGINNINGS, [begin.lower().decode("latin-1")])
            or "not a safetensors, PyTorch or Keras HDF5 file")


def describe_archive(members: Sequence[str]) -> str:
    """Describe a zip archive; "" if it contains PyTorch or Keras tensors."""
    if members and all(name.endswith(".npy") for name in members):
        return "a NumPy archive (.npz); save its arrays under torchvision's names with safetensors.numpy.save_file"
    whole = [name for name in members if name.endswith((*WEIGHTS, ".bin")) and not name.endswith("model.weights.h5")]
    return describe(ARCHIVES, members) or (
        f"a zip archive that contains {whole[0]}; unpack it first" if whole else "")


def describe_folder(folder: Path) -> str:
    """Describe a folder without weights files; "" if its contents do not show what it is."""
    names = sorted(file.name for file in folder.iterdir())
    run = folder.parent.parent
    if folder.parent.name == "checkpoints" and (run / "experiment.json").is_file():
        return f"a checkpoint of a run; give the run directory, {run}"
    if kind := describe(FOLDERS, names):
        return kind.replace("FOLDER", str(folder))
    if parts := [name for name in names if re.fullmatch(r"checkpoint-\d+", name)]:
        last = max(parts, key=lambda name: int(name.removeprefix("checkpoint-")))
        return f"it contains checkpoints of a Trainer; give one of them, such as {folder / last}"
    if programs := [name for name in names if name in ("model.onnx", "model.stablehlo")]:
        with (folder / programs[0]).open("rb") as stream:
            return f"it contains {programs[0]}, {describe_file(stream.read(READ_AT), folder / programs[0])}"
    files = [name for name in names if name.endswith(WEIGHTS)]
    return f"give the weights file itself, such as {folder / files[0]}" if files else ""


def check_names(names: Iterable[str], source: str) -> None:
    """Raise BadInput if the names of the tensors belong to another kind of network."""
    kind = describe(NETWORKS, names)
    check(not kind, f"{source}: {kind}, which is not a network of the paper")


def check_shapes(tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Raise BadInput if kernels with PyTorch's usual names belong to another kind of network."""
    shapes = {name: tensor.shape for name, tensor in tensors.items() if tensor.ndim == 4}
    stem, inner = shapes.get("conv1.weight", ()), shapes.get("layer1.0.conv2.weight", ())
    marks = {
        "a quantised network": any(tensors[name].dtype in (np.int8, np.uint8) for name in shapes),
        "a ResNet with a 3x3 stem before four stages, as it is used on small images":
            stem[2:] == (3, 3) and any(name.startswith("layer4.") for name in shapes),
        "a network with grouped convolutions (ResNeXt)": inner and inner[0] != inner[1],
        "a ResNet with wider bottlenecks (Wide ResNet)":
            "layer1.0.conv3.weight" in shapes and inner and stem and inner[0] != stem[0]}
    for kind, is_such in marks.items():
        check(not is_such, f"{source}: {kind}, which is not a network of the paper")
