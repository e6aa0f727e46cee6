"""Writes and reads exported detectors, which are folders with weights, a description and a model card."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from resjax.detection.config import Detection
from resjax.detection.evaluate import TrainedDetector, restore_detector
from resjax.detection.networks import FasterRCNN
from resjax.detection.phases import PROPOSER, variables_of
from resjax.detection.step import state_shapes
from resjax.system.errors import BadInput, check
from resjax.system.files import folder_aside, read_json, remove_leftovers, write_json
from resjax.system.serialization import check_value, convert, from_json, to_json
from resjax.training.kinds import folder_of
from resjax.weights.card import Card, about_data, markdown_table, write_card

FILE, WEIGHTS = "detector.json", "detector.safetensors"


def write_detector(trained: TrainedDetector, out: Path, card: Card) -> Path:
    """Write a detector to a new folder, atomically. Raises BadInput if it already exists."""
    remove_leftovers(out)
    check(not out.exists(), f"{out} already exists; choose a new folder with --out")
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    tensors = {"/".join(path): np.ascontiguousarray(jax.device_get(leaf))
               for path, leaf in flatten_dict(trained.variables).items()}
    with folder_aside(out) as aside:
        folder = aside / "new"
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(save(tensors | {"mean": np.ascontiguousarray(trained.mean)}))
        write_json(folder / FILE, {"kind": trained.detection.kind, "experiment": to_json(trained.detection),
                                   "classes": trained.classes})
        write_card(card, folder)
        (folder / "README.md").write_text(detector_card(trained, card), "utf-8")
        os.replace(folder, out)
    return out


def load_detector(target: str | Path) -> TrainedDetector:
    """Load a detector from a run directory, an exported folder, or by the name of one that comes with resjax (bccd).

    Raises BadInput if the detector is missing or damaged, or is not a detector.
    """
    folder = folder_of(target)
    return read_detector(folder) if (folder / FILE).is_file() else restore_detector(folder)


def read_detector(folder: Path) -> TrainedDetector:
    """Read an exported folder. Raises BadInput, naming the file, if a file is missing, damaged or inconsistent."""
    content = read_json(folder / FILE, "experiment", "classes")
    classes = convert(content["classes"], tuple[str, ...])
    try:
        check_value("classes", classes, tuple[str, ...])
        detection: Detection = from_json(content["experiment"], Detection)
    except BadInput as error:
        raise BadInput(f"{folder / FILE}: not a detector of this version of resjax ({error})") from None
    try:
        stored = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError) as error:
        raise BadInput(f"{folder / WEIGHTS}: not a readable weights file ({error})") from None
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    state = state_shapes(place, detection, len(classes))
    tensors = {name: tensor for name, tensor in stored.items() if PROPOSER not in name.split("/")}  # in earlier exports
    wanted = {"/".join(path): leaf for path, leaf in flatten_dict(variables_of(state)).items()} | {"mean": state.mean}
    wrong = sorted(name for name in wanted.keys() | tensors.keys() if name not in wanted or name not in tensors
                   or (wanted[name].shape, wanted[name].dtype) != (tensors[name].shape, tensors[name].dtype))
    check(not wrong, f"{folder / WEIGHTS}: not the weights that {FILE} describes: {', '.join(wrong[:3])} "
                     "missing, unknown or of another shape")
    mean = tensors.pop("mean")
    variables: Any = {"batch_stats": {}} | unflatten_dict(  # VGG has none
        {tuple(name.split("/")): tensor for name, tensor in tensors.items()})
    return TrainedDetector(detection, classes, FasterRCNN(detection.detector, len(classes)), variables, mean)


def detector_card(trained: TrainedDetector, card: Card) -> str:
    """Write the model card. If there are no precisions, the card says that none was measured."""
    run, count = trained.detection, sum(leaf.size for leaf in jax.tree.leaves(trained.variables["params"]))
    measured = markdown_table(["images", "class", "average precision %, by area", "by 11 points"], [
        [each.images_of, each.class_name, f"{each.by_area:.1f}", f"{each.by_points:.1f}"] for each in card.precisions
    ]) if card.precisions else "None was measured before the export. Use `resjax evaluate` to measure the precision."
    parts = [
        f"# {run.name}", f"{run.title}, {len(trained.classes)} classes ({', '.join(trained.classes)}): {count:,} "
        f"parameters, for images resized to a shorter side of {run.data.shorter_side} pixels.",
        "## Average precision", f"A detection is correct if it overlaps an object by at least 0.5 (IoU).\n\n{measured}",
        "## Use", "```bash\nresjax detect . photo.png\n```\n\n```python\nfrom resjax.detection import load_detector\n"
        "detector = load_detector(\".\")\n```",
        *about_data(card), *(["## Training", card.recipe] if card.recipe else []),
        f"Written by resjax {version('resjax')}, which implements Deep Residual Learning for Image Recognition (He, "
        "Zhang, Ren, Sun, CVPR 2016) in JAX and Flax."]
    return "\n\n".join(parts) + "\n"
