"""Checkpoints as training scripts write them: what lies beside the weights is of no matter, and one set is chosen."""

import argparse
import datetime
import functools
import pathlib
import random
import re

import numpy as np
import pytest

import resjax

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")


class Config:
    """A script's own class, which lies in no module of ours."""


@pytest.fixture(scope="module")
def net():
    from torch_resnets import ResNet

    torch.manual_seed(0)
    return ResNet((1, 1, 1), 16, 10, "B", stem=3)


def loads_as(net, file, **settings):
    found = resjax.load(file, **settings).variables["params"]
    assert np.array_equal(found["fc"]["kernel"], net.fc.weight.detach().numpy().T)
    assert np.array_equal(found["stage3"]["first"]["conv2"]["kernel"],
                          net.layer3[0].conv2.weight.detach().numpy().transpose(2, 3, 1, 0))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["checkpoint.pth.tar", "last.ckpt", "weights", "epoch=3-step=99.model"])
def test_what_lies_beside_the_weights(name, zipped, net, tmp_path):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.zeros(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    beside = {
        "args": argparse.Namespace(lr=0.1, path=pathlib.Path("/data"), betas=(0.9, 0.99)), "best": np.float64(91.2),
        "history": np.arange(9.0), "device": torch.device("cpu"), "dtype": torch.float16,
        "when": datetime.datetime.now(),
        "classes": {"cat", "dog"}, "frozen": frozenset("ab"), "loss": functools.partial(print, 1), "config": Config(),
        "random": (random.getstate(), np.random.default_rng(0).bit_generator.state, torch.get_rng_state()),
        "optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict(), "scaler": {}, "epoch": 3,
        "images": torch.zeros(2, 3, 8, 8), "mean": {"mean": torch.zeros(3), "std": torch.ones(3)}, "none": None}
    torch.save({"state_dict": net.state_dict(), **beside}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    loads_as(net, tmp_path / name)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "_orig_mod.module.", "module._orig_mod.",
                                    "model._orig_mod.", "module.model.module."])
def test_prefixes_of_wrappers_and_compilers_in_any_order(prefix, net, tmp_path):
    state = {prefix + name: tensor for name, tensor in net.state_dict().items()}
    torch.save(state, tmp_path / "a.pth")
    loads_as(net, tmp_path / "a.pth")


def test_averages_that_pytorch_makes(net, tmp_path):
    average = torch.optim.swa_utils.AveragedModel(net)
    average.update_parameters(net)
    torch.save(average.state_dict(), tmp_path / "a.pth")  # n_averaged, module.conv1.weight ...
    loads_as(net, tmp_path / "a.pth")


def test_of_several_sets_one_is_chosen(net, tmp_path, capsys):
    from resjax.console.command_line import execute

    other = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in net.state_dict().items()}
    file = tmp_path / "a.pth"
    torch.save({"state_dict": other, "state_dict_ema": net.state_dict(), "nested": {"deep": {"ema": dict(other)}}},
               file)
    with pytest.raises(resjax.BadInput, match=re.escape(
            f"{file}: contains 3 sets of weights; choose one with --key: state_dict, state_dict_ema, nested.deep.ema")):
        resjax.load(file)
    loads_as(net, file, key="state_dict_ema")
    with pytest.raises(resjax.BadInput, match=r"no set of weights ema; it contains state_dict, "):
        resjax.load(file, key="ema")
    execute(["export", str(file), "--to", "torchvision", "--out", str(tmp_path / "out"), "--key", "state_dict_ema"])
    loads_as(net, tmp_path / "out")
    with pytest.raises(resjax.BadInput, match="contains only one set of weights; omit --key"):
        resjax.load(tmp_path / "out", key="ema")


def test_an_optimizer_that_names_its_parameters_is_no_set_of_weights(net, tmp_path):
    moments = {name: {"exp_avg": torch.zeros_like(tensor), "exp_avg_sq": torch.zeros_like(tensor)}
               for name, tensor in net.named_parameters()}
    torch.save({"model": net.state_dict(), "optimizer": {"state": moments}}, tmp_path / "a.pth")
    loads_as(net, tmp_path / "a.pth")


@pytest.mark.parametrize(("change", "message"), [
    (lambda net: net, "a whole pickled network, torch_resnets.ResNet, which only its own code can open"),
    (lambda net: {"model": net, "epoch": 3}, "model is a whole pickled network, torch_resnets.ResNet"),
    (lambda net: {**net.state_dict(), "arch": "resnet18"}, "arch is not a tensor, but str"),
    (lambda net: {**net.state_dict(), "fc.scale": argparse.Namespace()}, "fc.scale is not a tensor, but argparse.N"),
    (lambda net: {**net.state_dict(), "fc.weight": torch.quantize_per_tensor(net.fc.weight, 0.1, 0, torch.qint8)},
     "fc.weight is quantised; resjax reads only floating-point networks"),
    (lambda net: {**net.state_dict(), "fc.weight": net.fc.weight.to_sparse()}, "fc.weight is not a tensor, but torch"),
    (lambda net: {**net.state_dict(), "fc.weight": net.fc.weight.to(torch.complex64)}, "fc.weight is not a tensor"),
])
@pytest.mark.filterwarnings("default")  # PyTorch's own
def test_what_is_no_set_of_weights_is_named(change, message, net, tmp_path):
    torch.save(change(net), tmp_path / "a.pth")
    with pytest.raises(resjax.BadInput, match=message):
        resjax.load(tmp_path / "a.pth")
