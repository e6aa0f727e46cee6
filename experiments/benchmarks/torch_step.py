"""The PyTorch step that train_step.py times, with the same network, optimizer and batch size as resjax's step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def torch_step(task: Any, channels_last: bool, gpu: bool) -> Callable[[], None]:
    """Build the network and step of a task in PyTorch."""
    def conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs))

    class Block(nn.Module):
        """A basic block with option A, or a bottleneck with option B."""

        def __init__(self, inputs: int, filters: int, stride: int, wide: bool) -> None:
            super().__init__()
            outputs = 4 * filters if wide else filters
            sizes = [(inputs, filters, 1, 1), (filters, filters, 3, stride), (filters, outputs, 1, 1)] if wide else [
                (inputs, filters, 3, stride), (filters, filters, 3, 1)]
            self.layers = nn.ModuleList([conv(*values) for values in sizes])
            self.projection = conv(inputs, outputs, 1, stride) if wide and inputs != outputs else None
            self.stride, self.more = stride, outputs - inputs

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x
            for layer in self.layers[:-1]:
                y = functional.relu(layer(y))
            y = self.layers[-1](y)
            if self.projection is not None:
                x = self.projection(x)
            elif self.more:
                x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
            return functional.relu(y + x)

    large, wide = task.architecture.family == "imagenet", task.architecture.depth == 50
    inputs = width = 64 if large else 16
    blocks = []
    for stage, count in enumerate({18: (2, 2, 2, 2), 20: (3, 3, 3), 50: (3, 4, 6, 3)}[task.architecture.depth]):
        for number in range(count):
            filters = width * 2**stage
            blocks.append(Block(inputs, filters, 2 if stage and not number else 1, wide))
            inputs = 4 * filters if wide else filters
    stem = [conv(3, width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)] if large else [conv(3, width, 3), nn.ReLU()]
    device = torch.device("cuda" if gpu else "cpu")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, task.classes))
    net = net.to(device, memory_format=layout)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(task.batch, 3, task.size, task.size, device=device).contiguous(memory_format=layout)
    labels = (torch.arange(task.batch) % task.classes).to(device)
    forward = torch.compile(net, mode="reduce-overhead") if gpu else net

    autocast = torch.autocast(device.type, torch.bfloat16, enabled=task.architecture.precision == "bfloat16")
    finish = torch.cuda.synchronize if gpu else lambda: None
    net.train(not task.inference)

    def infer() -> None:
        with torch.inference_mode(), autocast:
            forward(images)
        finish()

    def train() -> None:
        sgd.zero_grad()
        with autocast:
            loss = functional.cross_entropy(forward(images), labels)
        loss.backward()
        sgd.step()
        finish()

    return infer if task.inference else train
