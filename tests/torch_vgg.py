"""VGG in PyTorch, as plainly as can be, under torchvision's names."""

from torch import nn

STAGES = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """As torchvision's, of any width: its pooling brings the last maps to 7x7, which images of 224x224 have anyway."""

    def __init__(self, depth, filters, hidden, classes):
        super().__init__()
        layers, inside = [], 3
        for count, width in zip(STAGES[depth], filters, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU()]
                inside = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(inside * 49, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, classes))

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))

    def convolutional(self, x):
        """Apply the fully connected layers as convolutions, and average the scores (section 3.2 of the VGG paper)."""
        x, first = self.features(x), True
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                size = 7 if first else 1
                kernel = layer.weight.reshape(layer.out_features, -1, size, size)
                x, first = nn.functional.conv2d(x, kernel, layer.bias), False
            else:
                x = layer(x)
        return x.mean((2, 3))
