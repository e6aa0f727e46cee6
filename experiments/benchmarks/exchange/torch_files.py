"""Files written by torchvision, Lightning and training scripts, and torchvision's logits after its own transforms."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision
from peers import Case, by, randomized
from torch import nn

TRANSFORM = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
Make = Callable[[Path], Case]


def resnet(name: str = "resnet18", **settings: Any) -> Any:
    torch.manual_seed(0)
    return randomized(getattr(torchvision.models, name)(**{"num_classes": 1000, **settings}))


def saved(folder: Path, content: Any, name: str = "a.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def plain(name: str, **settings: Any) -> Make:
    """Write the state_dict of a torchvision network."""
    def make(folder: Path) -> Case:
        model = resnet(name)
        return Case(saved(folder, model.state_dict()), by(model, TRANSFORM), settings)

    return make


def renamed(rename: Callable[[str], str], **beside: Any) -> Make:
    """Write a state_dict with other names and additional tensors."""
    def make(folder: Path) -> Case:
        model = resnet(num_classes=10)
        state = {rename(name): tensor for name, tensor in model.state_dict().items()}
        return Case(saved(folder, {**beside, **state}), by(model, TRANSFORM))

    return make


def headed(head: Callable[[], nn.Module], features: bool = False) -> Make:
    """Write a ResNet-18 with another head; if resjax cannot load the head, features are compared."""
    def make(folder: Path) -> Case:
        model = resnet()
        torch.manual_seed(1)
        model.fc = head()
        file = saved(folder, model.state_dict())
        if features:
            model.fc = nn.Identity()
        return Case(file, by(model, TRANSFORM))

    return make


def stem(channels: int) -> Make:
    """Write networks whose number of image channels is not three, without a description of the preprocessing."""
    def make(folder: Path) -> Case:
        model = resnet()
        model.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        return Case(saved(folder, model.state_dict()), None, {}, f"the number of image channels is {channels}")

    return make


def backbone_and_head(folder: Path) -> Case:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = resnet()
            self.backbone.fc = nn.Identity()
            self.dropout, self.head = nn.Dropout(), nn.Linear(512, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.dropout(self.backbone(x)))

    model = Net()
    return Case(saved(folder, model.state_dict()), by(model, TRANSFORM))


def checkpoint(arch: str, refused: str = "", name: str = "resnet18") -> Make:
    """Write checkpoints like those of PyTorch's ImageNet example and timm's train.py, with `arch`."""
    def make(folder: Path) -> Case:
        model = resnet(name)
        state = {f"module.{key}": tensor for key, tensor in model.state_dict().items()}
        content = {"epoch": 3, "arch": arch, "state_dict": state, "best_acc1": torch.tensor(9.0),
                   "optimizer": torch.optim.SGD(model.parameters(), 0.1).state_dict()}
        return Case(saved(folder, content, "checkpoint.pth.tar"), by(model, TRANSFORM), {}, refused)

    return make


def lightning(folder: Path) -> Case:
    model = resnet(num_classes=10)
    state = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    content = {"epoch": 1, "global_step": 9, "pytorch-lightning_version": "2.5.0", "loops": {}, "callbacks": {},
               "state_dict": {**state, "criterion.weight": torch.ones(10)}, "hyper_parameters": {"lr": 0.1},
               "optimizer_states": [torch.optim.Adam(model.parameters()).state_dict()], "lr_schedulers": []}
    return Case(saved(folder, content, "last.ckpt"), by(model, TRANSFORM))


def averaged(folder: Path) -> Case:
    model = resnet(num_classes=10)
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    return Case(saved(folder, average.state_dict()), by(model, TRANSFORM))


def compiled(folder: Path) -> Case:
    model = resnet(num_classes=10)
    for name in ("layer1", "layer3"):
        setattr(model, name, torch.compile(getattr(model, name)))
    file = saved(folder, model.state_dict())
    assert any("layer1._orig_mod." in name for name in model.state_dict())
    for name in ("layer1", "layer3"):
        setattr(model, name, getattr(model, name)._orig_mod)
    return Case(file, by(model, TRANSFORM))


def checkpointed(folder: Path) -> Case:
    model = resnet(num_classes=10)
    state = {name.replace("layer2.0.", "layer2.0._checkpoint_wrapped_module."): tensor
             for name, tensor in model.state_dict().items()}
    return Case(saved(folder, state), by(model, TRANSFORM))


def distributed_tensors(folder: Path) -> Case:
    """Write the sharded tensors of FSDP2, in a single process."""
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    model, mesh = resnet(num_classes=10), init_device_mesh("cpu", (1,))
    state = {name: distribute_tensor(tensor, mesh, [Shard(0)]) if tensor.ndim else tensor
             for name, tensor in model.state_dict().items()}
    return Case(saved(folder, state), by(model, TRANSFORM))


def numbers(kind: torch.dtype) -> Make:
    def make(folder: Path) -> Case:
        model = resnet(num_classes=10).to(kind)
        return Case(saved(folder, model.state_dict()), by(model.float(), TRANSFORM))

    return make


def safe(folder: Path) -> Case:
    from safetensors.torch import save_model

    model = resnet(num_classes=10)
    save_model(model, str(folder / "a.safetensors"))
    return Case(folder / "a.safetensors", by(model, TRANSFORM))


def with_fields(folder: Path) -> Case:
    """Write tensors that are buffers of the network itself."""
    model = resnet(num_classes=10)
    model.register_buffer("class_weights", torch.ones(10))
    return Case(saved(folder, model.state_dict()), by(model, TRANSFORM))


def mlp(*layers: int) -> nn.Module:
    return nn.Sequential(nn.Linear(512, layers[0]), nn.ReLU(), nn.Dropout(), nn.Linear(layers[0], layers[1]))


def cases() -> Iterator[tuple[str, Make]]:
    for name in ("resnet18", "resnet34", "vgg16", "vgg19"):
        yield f"torchvision, {name}", plain(name)
    for name in ("resnet50", "resnet101", "resnet152"):
        yield f"torchvision, {name}, --stride-in 3x3", plain(name, stride_in="3x3")
    yield "checkpoint with arch resnet18", checkpoint("resnet18")
    yield "checkpoint with arch resnet50", checkpoint("resnet50", name="resnet50")
    yield "checkpoint with arch resnetblur18", checkpoint("resnetblur18", "resnetblur18")
    yield "ten classes", renamed(lambda name: name)
    yield "head fc.1 behind dropout", headed(lambda: nn.Sequential(nn.Dropout(), nn.Linear(512, 10)))
    yield "head without bias", headed(lambda: nn.Linear(512, 10, bias=False))
    yield "deeper head, dropped", headed(lambda: mlp(64, 10), True)
    yield "head with batch norm, dropped", headed(
        lambda: nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 10)), True)
    yield "no head", headed(nn.Identity)
    yield "images of one channel", stem(1)
    yield "images of four channels", stem(4)
    for prefix in ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.", "resnet.", "base_model.",
                   "body.", "_fsdp_wrapped_module.", "student.net.module."):
        yield f"prefix {prefix}", renamed(lambda name, prefix=prefix: prefix + name)
    yield "backbone. and head.", backbone_and_head
    yield "criterion.weight beside model.", renamed(lambda name: f"model.{name}",
                                                    **{"criterion.weight": torch.ones(10)})
    yield "class_weights within", with_fields
    yield "Lightning", lightning
    yield "SWA's average", averaged
    yield "layers compiled", compiled
    yield "layers checkpointed", checkpointed
    yield "FSDP2's DTensors", distributed_tensors
    yield "float16", numbers(torch.float16)
    yield "bfloat16", numbers(torch.bfloat16)
    yield "float64", numbers(torch.float64)
    yield "safetensors", safe
