"""ResNets in PyTorch, as plainly as can be, under the names of torchvision and of pytorch_resnet_cifar10."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """A basic block or a bottleneck; `shortcut` names its projection, and without one A pads on both sides."""

    def __init__(self, inside, outside, width, stride, bottleneck, stride_in, shortcut, option):
        super().__init__()
        sizes, strides = ((1, 3, 1), (stride, 1, 1)) if bottleneck else ((3, 3), (stride, 1))
        if bottleneck and stride_in == "3x3":
            strides = (1, stride, 1)
        widths = (inside, *[width] * (len(sizes) - 1), outside)
        for i, (size, step) in enumerate(zip(sizes, strides, strict=True)):
            self.add_module(f"conv{i + 1}", nn.Conv2d(widths[i], widths[i + 1], size, step, size // 2, bias=False))
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
        self.layers, self.stride, self.width = len(sizes), stride, outside
        self.option, self.projection = option, shortcut
        changes = stride != 1 or inside != outside
        if option == "C" or (option == "B" and changes):
            self.add_module(shortcut, nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False),
                                                    nn.BatchNorm2d(outside)))

    def forward(self, x):
        y = x
        for i in range(1, self.layers + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = y if i == self.layers else functional.relu(y)
        if self.option == "plain":
            return functional.relu(y)
        if hasattr(self, self.projection):
            return functional.relu(y + getattr(self, self.projection)(x))
        side = (self.width - x.shape[1]) // 2
        return functional.relu(y + functional.pad(x[:, :, ::self.stride, ::self.stride], (0, 0, 0, 0, side, side)))


class ResNet(nn.Module):
    """Stages `layer1` ...; `fc` and `downsample` as in torchvision, or `linear` and `shortcut`."""

    def __init__(self, blocks, width, classes, option="B", bottleneck=False, stride_in="3x3", stem=7,
                 head="fc", shortcut="downsample"):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, stem, 2 if stem == 7 else 1, stem // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inside = width
        for i, count in enumerate(blocks):
            filters = width * 2**i
            outside, stage = filters * (4 if bottleneck else 1), []
            for j in range(count):
                stage.append(Block(inside, outside, filters, 2 if i and not j else 1, bottleneck, stride_in, shortcut,
                                   option))
                inside = outside
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))
        self.stages, self.pools, self.head = len(blocks), stem == 7, head
        self.add_module(head, nn.Linear(inside, classes))

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, 1) if self.pools else x
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return getattr(self, self.head)(torch.mean(x, (2, 3)))
