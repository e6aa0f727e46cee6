"""Counts by formula against those of the traced computation, and both against the paper and torchvision."""

import pytest

from resjax.experiment import Architecture, Experiment, image_shape
from resjax.experiment_files import folder, load_runs, names
from resjax.models.counts import count_macs, count_parameters
from resjax.models.formulas import count


def runs():
    """Every architecture and image of the experiments that come with resjax, once."""
    found = {}
    for stem in names():
        for run in load_runs(folder() / f"{stem}.py").values():
            if isinstance(run, Experiment) and run.architecture.depth < 1000:
                found.setdefault((run.architecture.title(), image_shape(run.data)), run)
    return found.values()


@pytest.mark.parametrize("run", runs(), ids=lambda run: run.name)
def test_the_formula_counts_what_the_computation_does(run):
    image, classes = image_shape(run.data), 10 if run.architecture.family == "cifar" else 1000
    model = run.architecture.model(classes)
    assert count(run.architecture, image, classes) == (count_parameters(model, image), count_macs(model, image))


def test_odd_images_too():
    architecture = Architecture(family="imagenet", depth=50, shortcut="C", stride_in="3x3")
    model = architecture.model(7)
    image = (75, 101, 3)
    assert count(architecture, image, 7) == (count_parameters(model, image), count_macs(model, image))


@pytest.mark.parametrize(("architecture", "parameters", "macs"), [  # torchvision's documentation, Table 6 of the paper
    (Architecture(family="imagenet", depth=50, shortcut="B", stride_in="3x3"), 25_557_032, 4.09e9),
    (Architecture(family="imagenet", depth=152, shortcut="B", stride_in="3x3"), 60_192_808, 11.51e9),
    (Architecture(family="imagenet", depth=34, shortcut="B"), 21_797_672, 3.66e9),
    (Architecture(family="vgg", depth=16), 138_357_544, 15.47e9),
    (Architecture(family="vgg", depth=19), 143_667_240, 19.63e9),
])
def test_the_published_sizes(architecture, parameters, macs):
    found = count(architecture, (224, 224, 3), 1000)
    assert found.parameters == parameters
    assert found.macs == pytest.approx(macs, rel=2e-3)


def test_the_deepest_net_of_table_6():
    assert round(count(Architecture(depth=1202), (32, 32, 3), 10).parameters / 1e6, 1) == 19.4
