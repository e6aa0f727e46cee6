"""The real CIFAR-10: its images are all there, and the networks that we trained miss as many of them as we say."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from test_prepare import CIFAR10

import resjax
from resjax.weights.trained import FOLDER, trained

TABLE6 = Path(__file__).parents[2] / "experiments/results/table6"
PYTORCH = {"resnet20": {"option": "A", "head": "linear", "shortcut": "shortcut"}, "plain20": {"option": "plain"}}


@pytest.fixture(scope="module")
def cifar10():
    """The real images, decoded once."""
    folder = os.environ.get("RESJAX_DATA", "")
    if not folder or not (Path(folder).expanduser() / "cifar10").is_dir():
        pytest.skip("RESJAX_DATA does not name a folder that holds cifar10")
    return resjax.load_data(resjax.Data(source="tfds:cifar10", validation_images=5000))


def test_the_images_are_all_there(cifar10):
    train = np.concatenate([cifar10.train.labels, cifar10.validation.labels])
    assert [len(split.labels) for split in (cifar10.train, cifar10.validation, cifar10.test)] == [45_000, 5_000, 10_000]
    assert cifar10.train.pixels.shape[1:] == cifar10.test.pixels.shape[1:] == (32, 32, 3)
    assert cifar10.classes == CIFAR10
    assert (np.bincount(train) == 5000).all()
    assert (np.bincount(cifar10.test.labels) == 1000).all()


@pytest.mark.parametrize("name", trained())
def test_errors_are_those_of_the_run_and_of_pytorch(name, cifar10):
    """The error equals result.json. A PyTorch network that shares no code with ours has it to 0.01 points."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")
    from safetensors.torch import load_file
    from torch_resnets import ResNet

    network, test = resjax.load(name), cifar10.test
    result = json.loads((TABLE6 / name / "seed0" / "result.json").read_text())
    errors = resjax.evaluate(network, test)
    assert (errors.images, errors.top1_error) == (10_000, result["test_top1_error"])
    theirs = ResNet((3, 3, 3), 16, 10, stem=3, **PYTORCH[name]).eval()
    theirs.load_state_dict(load_file(FOLDER / name / "model.safetensors"))
    pixels = np.asarray(test.pixels, np.float32) - np.load(FOLDER / name / "mean.npy")
    with torch.no_grad():
        found = torch.cat([theirs(part).argmax(1) for part in
                           torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).split(500)]).numpy()
    assert abs(100 * np.mean(found != np.asarray(test.labels)) - result["test_top1_error"]) < 0.011
