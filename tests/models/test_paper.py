"""The paper's counts, to the last digit, from Table 1, Table 6 and arithmetic.

They are counted by formula; tests/models/test_formulas.py holds the formula to the computation.
"""

import jax
import jax.numpy as jnp
import pytest

from resjax.experiment import Architecture
from resjax.models import cifar_resnet, imagenet_resnet
from resjax.models.counts import count_macs, count_parameters, list_layers
from resjax.models.formulas import count

CIFAR = {20: (269_722, 40.55e6), 32: (464_154, 68.86e6), 44: (658_586, 97.17e6), 56: (853_018, 125.49e6),
         110: (1_727_962, 252.89e6), 1202: (19_421_274, 2829.2e6)}
IMAGENET = {(18, "A"): (11_515_688, 1.7948e9), (18, "B"): (11_689_512, 1.8141e9), (18, "C"): (12_043_816, 1.8783e9),
            (34, "A"): (21_623_848, 3.6445e9), (34, "B"): (21_797_672, 3.6638e9), (34, "C"): (22_716_840, 3.8307e9),
            (50, "B"): (25_557_032, 3.8580e9), (101, "B"): (44_549_160, 7.5702e9), (152, "B"): (60_192_808, 11.2824e9)}
STRIDE_3X3 = {50: 4.0892e9, 101: 7.8014e9, 152: 11.5136e9}


@pytest.mark.parametrize("shortcut", ["A", "plain"])
@pytest.mark.parametrize("depth", CIFAR)
def test_cifar_counts(depth, shortcut):
    parameters, macs = CIFAR[depth]
    found = count(Architecture(depth=depth, shortcut=shortcut), (32, 32, 3), 10)
    assert found == (parameters, pytest.approx(macs, rel=2e-4))


def test_the_1202_layers_are_counted_so_when_traced():
    model = cifar_resnet(1202)
    assert count_parameters(model, (32, 32, 3)) == CIFAR[1202][0]
    assert count_macs(model, (32, 32, 3)) == pytest.approx(CIFAR[1202][1], rel=2e-4)


def count_imagenet(depth, shortcut, stride_in="1x1"):
    return count(Architecture(family="imagenet", depth=depth, shortcut=shortcut, stride_in=stride_in),
                 (224, 224, 3), 1000)


@pytest.mark.parametrize(("depth", "shortcut"), IMAGENET)
def test_imagenet_counts(depth, shortcut):
    parameters, macs = IMAGENET[depth, shortcut]
    assert count_imagenet(depth, shortcut) == (parameters, pytest.approx(macs, abs=0.5e5))


@pytest.mark.parametrize("depth", STRIDE_3X3)
def test_stride_in_the_3x3_costs_more_and_adds_no_parameter(depth):
    parameters = IMAGENET[depth, "B"][0]
    assert count_imagenet(depth, "B", "3x3") == (parameters, pytest.approx(STRIDE_3X3[depth], abs=0.5e5))


@pytest.mark.parametrize("depth", [18, 34])
def test_plain_imagenet_nets_count_as_option_a(depth):
    parameters, macs = IMAGENET[depth, "A"]
    assert count_imagenet(depth, "plain") == (parameters, pytest.approx(macs, abs=0.5e5))


def test_layers_are_counted_alike_in_a_loop_and_unrolled():
    loop, unrolled = (list_layers(cifar_resnet(32, "B", unroll=unroll), (32, 32, 3)) for unroll in (0, 8))
    assert loop == unrolled
    assert sum(layer.repeats for layer in loop if "shortcut" not in layer.name) == 32


def test_maps_halve_and_filters_double():
    layers = list_layers(imagenet_resnet(50), (224, 224, 3))
    outputs = [layer.output for layer in layers if layer.name.endswith("conv3")]
    assert list(dict.fromkeys(outputs)) == [(56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048)]


@pytest.mark.parametrize("depth", [0, 2, 7, 21, 54, 1200])
def test_a_depth_that_is_not_6n_plus_2_is_refused_and_the_nearest_named(depth):
    with pytest.raises(ValueError, match=r"it must be 6n\+2, such as"):
        cifar_resnet(depth)


def test_a_depth_that_is_not_in_table_1_is_refused():
    with pytest.raises(ValueError, match="depth is 20; it must be a depth of Table 1: 18, 34, 50, 101, 152"):
        imagenet_resnet(20)


def test_stage_outputs_are_features():
    model = imagenet_resnet(50)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    shapes = jax.eval_shape(lambda v, x: model.apply(v, x, features=True), variables, jnp.zeros((2, 256, 320, 3)))
    assert [out.shape for out in shapes] == [(2, 64, 80, 256), (2, 32, 40, 512), (2, 16, 20, 1024), (2, 8, 10, 2048)]


def test_any_input_size_is_taken():
    model = cifar_resnet(8)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert jax.eval_shape(model.apply, variables, jnp.zeros((2, 41, 33, 3))).shape == (2, 10)
