"""Tables 2 to 6 as data, and all tables by name."""

from typing import Literal

from resjax.paper.detection_tables import DETECTION
from resjax.paper.table import Claim, Row, Table
from resjax.training.kinds import Measure

TEN, FIVE = "ten-crop", "multi-scale"  # testing protocols, section 3.4
TOP1, TOP5 = Measure("top-1 error", "top1_error"), Measure("top-5 error", "top5_error")


def plain_row(layers: int, error: float, sign: Literal["~", ">"] = "~") -> Row:
    """Describe a plain network, claimed to be worse than every shallower one (degradation, Figure 6 left)."""
    shallower = (depth for depth in (20, 32, 44, 56, 110) if depth < layers)
    return Row(f"plain{layers}", f"plain-{layers}", (error,), layers, sign=sign,
               claims=tuple(Claim(">", f"plain{depth}") for depth in shallower))


def resnet(layers: int, error: float, deviation: float | None = None) -> Row:
    """Describe a residual network, claimed to beat the plain one of its depth and every shallower residual one."""
    shallower = (depth for depth in (20, 32, 44, 56, 110) if depth < layers)
    return Row(f"resnet{layers}", f"ResNet-{layers}", (error,), layers, deviation,
               claims=(Claim("<", f"plain{layers}"), *(Claim("<", f"resnet{depth}") for depth in shallower)))


TABLE6 = Table(
    "table6", "Table 6: test error on CIFAR-10", "cifar10.py",
    "test error in percent after the last iteration, on a single view of each of the 10,000 test images",
    (TOP1,), (
        plain_row(20, 9.5), plain_row(32, 10.0), plain_row(44, 12.0), plain_row(56, 13.5), plain_row(110, 60.0, ">"),
        resnet(20, 8.75), resnet(32, 7.51), resnet(44, 7.17), resnet(56, 6.97), resnet(110, 6.61, deviation=0.16),
        Row("resnet1202", "ResNet-1202", (7.93,), 1202, claims=(Claim(">", "resnet110"),)),  # it overfits, section 4.2
    ), seeds=5, figures=("figure6", "figure7"), others=(
        ("Maxout", (9.38,)), ("NIN", (8.81,)), ("DSN", (8.22,)), ("FitNet, 19 layers", (8.39,)),
        ("Highway, 19 layers", (7.54,)), ("Highway, 32 layers", (8.80,))))


def imagenet(how: str, name: str, title: str, layers: int, published: tuple[float, ...], *claims: Claim) -> Row:
    """Describe a network of Table 1."""
    return Row(name, title, published, layers, claims=claims, how=how)


TABLE2 = Table(
    "table2", "Table 2: plain and residual networks on ImageNet", "imagenet.py",
    "top-1 error in percent on the 50,000 validation images, ten crops", (TOP1,), (
        imagenet(TEN, "plain18", "plain-18", 18, (27.94,)),
        imagenet(TEN, "plain34", "plain-34", 34, (28.54,), Claim(">", "plain18")),
        imagenet(TEN, "resnet18A", "ResNet-18 A", 18, (27.88,)),
        imagenet(TEN, "resnet34A", "ResNet-34 A", 34, (25.03,), Claim("<", "resnet18A"), Claim("<", "plain34")),
    ), figures=("figure4",))

TABLE3 = Table(
    "table3", "Table 3: ImageNet, 10-crop", "imagenet.py",
    "top-1 and top-5 error in percent on the 50,000 validation images, ten crops", (TOP1, TOP5), (
        imagenet(TEN, "plain34", "plain-34", 34, (28.54, 10.02)),
        imagenet(TEN, "resnet34A", "ResNet-34 A", 34, (25.03, 7.76), Claim("<", "plain34")),
        imagenet(TEN, "resnet34B", "ResNet-34 B", 34, (24.52, 7.46), Claim("<", "resnet34A")),
        imagenet(TEN, "resnet34C", "ResNet-34 C", 34, (24.19, 7.40), Claim("<", "resnet34B")),
        imagenet(TEN, "resnet50", "ResNet-50", 50, (22.85, 6.71), Claim("<", "resnet34C")),
        imagenet(TEN, "resnet101", "ResNet-101", 101, (21.75, 6.05), Claim("<", "resnet50")),
        imagenet(TEN, "resnet152", "ResNet-152", 152, (21.43, 5.71), Claim("<", "resnet101")),
    ),
    others=(("VGG-16", (28.07, 9.33)), ("GoogLeNet", (None, 9.15)), ("PReLU-net", (24.27, 7.38))))

TABLE4 = Table(
    "table4", "Table 4: ImageNet, single models", "imagenet.py",
    "top-1 and top-5 error in percent on the 50,000 validation images, fully convolutional, five scales",
    (TOP1, TOP5), (
        imagenet(FIVE, "resnet34B", "ResNet-34 B", 34, (21.84, 5.71)),
        imagenet(FIVE, "resnet34C", "ResNet-34 C", 34, (21.53, 5.60), Claim("<", "resnet34B")),
        imagenet(FIVE, "resnet50", "ResNet-50", 50, (20.74, 5.25), Claim("<", "resnet34C")),
        imagenet(FIVE, "resnet101", "ResNet-101", 101, (19.87, 4.60), Claim("<", "resnet50")),
        imagenet(FIVE, "resnet152", "ResNet-152", 152, (19.38, 4.49), Claim("<", "resnet101")),
    ), others=(
        ("VGG (ILSVRC'14), test", (None, 8.43)), ("GoogLeNet (ILSVRC'14)", (None, 7.89)),
        ("VGG (v5)", (24.4, 7.1)), ("PReLU-net", (21.59, 5.71)), ("BN-inception", (21.99, 5.81))))

TABLE5 = Table(
    "table5", "Table 5: ImageNet, ensembles", "imagenet.py",
    "top-5 error in percent, fully convolutional, five scales. The paper evaluates on the test images, whose labels "
    "are not public; we use the 50,000 validation images. Of its six models, the paper names only two, both with 152 "
    "layers. Our other four are 34 B, 34 C, 50 and 101", (TOP5,), (
        Row("ensemble", "ResNet, six models", (3.57,), 152, how=FIVE, members=(
            ("resnet34B", 0), ("resnet34C", 0), ("resnet50", 0), ("resnet101", 0), ("resnet152", 0), ("resnet152", 1))),
    ), others=(
        ("VGG (ILSVRC'14)", (7.32,)), ("GoogLeNet (ILSVRC'14)", (6.66,)), ("VGG (v5)", (6.8,)),
        ("PReLU-net", (4.94,)), ("BN-inception", (4.82,))))

TABLES = {table.name: table for table in (TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, *DETECTION)}
