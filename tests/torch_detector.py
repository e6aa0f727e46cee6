"""Faster R-CNN in PyTorch, as plainly as can be: one image, one region after the other."""

import detection_references as reference
import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch_resnets import ResNet

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")


class VGG(nn.Module):
    """VGG-16 under torchvision's names."""

    def __init__(self, hidden, classes=10):
        super().__init__()
        layers, inside = [], 3
        for width in VGG16:
            if width == "M":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU()]
            inside = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(512 * 49, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden),
                                        nn.ReLU(), nn.Dropout(), nn.Linear(hidden, classes))

    def shared(self, x):
        return self.features[:-1](x)

    def regional(self, x):
        return self.classifier[:-1](torch.flatten(x, 1))


class ResNetC4(ResNet):
    """A ResNet divided before its last stage."""

    def shared(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer3(self.layer2(self.layer1(x)))

    def regional(self, x):
        return self.layer4(x).mean((2, 3))


class FasterRCNN(nn.Module):
    """`network` gives the maps of an image and the features of pooled regions."""

    def __init__(self, network, channels, width, classes, anchors, rpn_channels):
        super().__init__()
        self.network, self.classes = network, classes
        self.conv = nn.Conv2d(channels, rpn_channels, 3, padding=1)
        self.objectness, self.deltas = nn.Conv2d(rpn_channels, anchors, 1), nn.Conv2d(rpn_channels, 4 * anchors, 1)
        self.scores, self.boxes = nn.Linear(width, classes + 1), nn.Linear(width, 4 * classes)

    def forward(self, image, size, detector, rules, pooled):
        """Return what is said of the anchors, the proposals, and what is said of those."""
        maps = self.network.shared(image)
        x = functional.relu(self.conv(maps))
        objectness = self.objectness(x)[0].permute(1, 2, 0).reshape(-1)
        deltas = self.deltas(x)[0].permute(1, 2, 0).reshape(-1, 4)
        proposals = self.propose(objectness.numpy(), deltas.numpy(), maps.shape[2:], size, detector, rules)
        regions = torch.stack([pool(maps[0], box / 16, pooled) for box in proposals])
        y = self.network.regional(regions)
        return objectness, deltas, proposals, self.scores(y), self.boxes(y).reshape(len(y), self.classes, 4)

    def propose(self, objectness, deltas, cells, size, detector, rules):
        anchors = reference.anchors(*cells, 16, detector.anchor_sizes, detector.anchor_ratios)
        best = np.argsort(-objectness, kind="stable")[:rules.test_candidates]
        boxes = np.array([reference.clip(reference.decode(deltas[i], anchors[i]), *size) for i in best])
        large = (boxes[:, 2:] - boxes[:, :2]).min(1) >= rules.smallest
        kept = reference.suppress(boxes, np.where(large, objectness[best], -np.inf), rules.suppression)
        return boxes[kept[:rules.test_proposals]]


def pool(maps, box, size):
    """[channels, height, width] to [channels, size, size]: by Fast R-CNN's rule, bin after bin."""
    x1, y1, x2, y2 = (int(np.floor(value + 0.5)) for value in box)
    height, width = maps.shape[1:]
    rows, columns = ([(max(start + i * length // size, 0), min(start - (-(i + 1) * length // size), cells))
                      for i in range(size)] for start, length, cells in ((y1, max(y2 - y1 + 1, 1), height),
                                                                         (x1, max(x2 - x1 + 1, 1), width)))
    return torch.stack([torch.stack([maps[:, a:b, c:d].amax((1, 2)) if b > a and d > c else torch.zeros(len(maps))
                                     for c, d in columns], 1) for a, b in rows], 1)
