"""Files written by timm and transformers, and the logits that each of the two computes with its own preprocessing."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers
from peers import Case, Logits, by, opened, randomized

Make = Callable[[Path], Case]
FOLDER = {"architectures": ["ResNetForImageClassification"]}


def folder_of_timm(name: str, refused: str = "", images: dict[str, Any] | None = None, **settings: Any) -> Make:
    """Write a folder with timm's `save_for_hf`, with changes to the preprocessing."""
    def make(folder: Path) -> Case:
        torch.manual_seed(0)
        model = randomized(timm.create_model(name, **{"num_classes": 1000, **settings}))
        model.pretrained_cfg = {**model.pretrained_cfg, **(images or {})}
        timm.models.save_for_hf(model, folder, safe_serialization=True)
        if refused:
            return Case(folder, None, {}, refused)
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
        config = timm.data.resolve_model_data_config(model)
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[settings.get("in_chans", 3)]
        return Case(folder, by(model, timm.data.create_transform(**config), mode))

    return make


def checkpoint_of_timm(name: str, refused: str = "") -> Make:
    """Write a checkpoint as timm's train.py does, with `arch` and the command-line arguments."""
    def make(folder: Path) -> Case:
        import argparse

        torch.manual_seed(0)
        model = randomized(timm.create_model(name, num_classes=1000))
        saver = timm.utils.CheckpointSaver(model, torch.optim.SGD(model.parameters(), 0.1), checkpoint_dir=str(folder),
                                           args=argparse.Namespace(model=name, lr=0.1))
        saver.save_checkpoint(1, metric=0.5)
        import torchvision
        transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()  # as for other files
        return Case(folder / "last.pth.tar", by(model, transform), {}, refused)

    return make


def processed(folder: Path, model: Any) -> Logits:
    """Compute logits of photographs with a folder's transformers image processor and network."""
    def logits(files: Sequence[Path]) -> np.ndarray:
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
        seen = []
        with torch.inference_mode():
            for file in files:
                found = model.eval()(processor(opened(file), return_tensors="pt")["pixel_values"])
                seen.append(found.logits if "logits" in found else found.pooler_output.flatten(1))
        return torch.cat(seen).numpy()

    return logits


def folder_of_transformers(processor: str, refused: str = "", headless: bool = False, config: Any = None,
                           shard: str = "5GB", **images: Any) -> Make:
    """Write a folder with `save_pretrained`, for a network and an image processor."""
    def make(folder: Path) -> Case:
        torch.manual_seed(0)
        settings = transformers.ResNetConfig(**{"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512],
                                                "layer_type": "basic", "num_labels": 10, **(config or {})})
        kind = transformers.ResNetModel if headless else transformers.ResNetForImageClassification
        model = randomized(kind(settings))
        model.save_pretrained(folder, max_shard_size=shard)
        if processor:
            getattr(transformers, processor)(**images).save_pretrained(folder)
        return Case(folder, None if refused else processed(folder, model), {}, refused)

    return make


def wrapper(folder: Path) -> Case:
    """Write transformers' wrapper of a timm network."""
    torch.manual_seed(0)
    config = transformers.TimmWrapperConfig(architecture="resnet18", num_labels=10, pretrained_cfg=dict(
        timm.create_model("resnet18").pretrained_cfg))
    model = randomized(transformers.TimmWrapperForImageClassification(config))
    model.save_pretrained(folder)
    return Case(folder, processed(folder, model))


def trainer(folder: Path) -> Case:
    """Write the folder of a Trainer's checkpoints."""
    folder_of_transformers("ConvNextImageProcessor", size={"shortest_edge": 224})(folder / "checkpoint-500")
    return Case(folder, None, {}, "checkpoint-500")


BIT = {"size": {"shortest_edge": 256}, "crop_size": 224, "image_mean": [0.485, 0.456, 0.406],
       "image_std": [0.229, 0.224, 0.225]}


def cases() -> Iterator[tuple[str, Make]]:
    for name in ("resnet18", "resnet34", "resnet50", "resnet18.tv_in1k", "resnet26", "resnetblur18", "resnet18d"):
        refused = "" if name.partition(".")[0] in ("resnet18", "resnet34", "resnet50") else name
        yield f"timm, {name}", folder_of_timm(name, refused)
    yield "timm, vgg16", folder_of_timm("vgg16")
    yield "timm, ten classes", folder_of_timm("resnet18", num_classes=10)
    yield "timm, no head", folder_of_timm("resnet18", num_classes=0)
    yield "timm, grey", folder_of_timm("resnet18", in_chans=1, images={"mean": (0.5,), "std": (0.5,),
                                                                       "input_size": (1, 224, 224)})
    for name, images in {"crop of 0.95, bicubic": {"crop_pct": 0.95, "interpolation": "bicubic"},
                         "crop of 0.875, bilinear": {"crop_pct": 0.875, "interpolation": "bilinear"},
                         "crop of 1": {"crop_pct": 1.0}, "Lanczos": {"interpolation": "lanczos"},
                         "squash": {"crop_mode": "squash", "crop_pct": 0.9}, "288": {"input_size": (3, 288, 288)},
                         "nearest": {"interpolation": "nearest"}}.items():
        yield f"timm, {name}", folder_of_timm("resnet18", images=images)
    for name, images, refused in (
            ("border", {"crop_mode": "border"}, "border"), ("random", {"interpolation": "random"}, "random"),
            ("192x256", {"input_size": (3, 192, 256)}, "192")):
        yield f"timm, {name}", folder_of_timm("resnet18", refused, images)
    yield "timm's train.py, resnet18", checkpoint_of_timm("resnet18")
    yield "timm's train.py, resnetblur18", checkpoint_of_timm("resnetblur18", "resnetblur18")
    near = "ConvNextImageProcessor"
    yield "transformers, ConvNext at 224", folder_of_transformers(near, size={"shortest_edge": 224})
    yield "transformers, ConvNext at 384, squashed", folder_of_transformers(near, size={"shortest_edge": 384})
    yield "transformers, crop of 0.95", folder_of_transformers(near, size={"shortest_edge": 224}, crop_pct=0.95)
    yield "transformers, without head", folder_of_transformers(near, headless=True, size={"shortest_edge": 224})
    yield "transformers, in several files", folder_of_transformers(near, shard="10MB", size={"shortest_edge": 224})
    for stride in (False, True):
        yield f"transformers, ResNet-50, v1 {stride}", folder_of_transformers(
            near, size={"shortest_edge": 224}, config={
                "layer_type": "bottleneck", "depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048],
                "downsample_in_bottleneck": stride})
    yield "transformers, Bit", folder_of_transformers("BitImageProcessor", **BIT)
    yield "transformers, Bit by Pillow", folder_of_transformers("BitImageProcessorPil", **BIT)
    yield "transformers, ViT, squashed", folder_of_transformers("ViTImageProcessor")
    for name, images in {"do_normalize false": {"do_normalize": False}, "do_rescale false": {"do_rescale": False},
                         "Lanczos": {"resample": 1}, "bilinear": {"resample": 2}, "nearest": {"resample": 0},
                         "192x256": {"size": {"height": 192, "width": 256}, "do_center_crop": False},
                         "crop of 192x256": {"crop_size": {"height": 192, "width": 256}}}.items():
        yield f"transformers, {name}", folder_of_transformers("BitImageProcessor", **{**BIT, **images})
    for name, images in {"do_center_crop": {"do_center_crop": False}, "do_resize": {"do_resize": False}}.items():
        yield f"transformers, {name} false", folder_of_transformers("BitImageProcessor", name, **{**BIT, **images})
    yield "transformers, EfficientNet's processor", folder_of_transformers("EfficientNetImageProcessor",
                                                                           "EfficientNetImageProcessor")
    yield "transformers' TimmWrapper", wrapper
    yield "Trainer's parent folder", trainer
