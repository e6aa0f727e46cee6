"""Networks that come with resjax: found by name, without a network; as good as their run's result and log say."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resjax
from resjax import BadInput
from resjax.console.command_line import execute
from resjax.weights.trained import trained

TABLE6 = Path(__file__).parents[2] / "experiments/results/table6"


def test_names_find_them_and_what_lies_here_goes_first(tmp_path, monkeypatch):
    assert trained() == ["plain20", "resnet20"]
    by_name, by_owner = resjax.load("resnet20"), resjax.load("resjax/resnet20")
    assert by_name.architecture == by_owner.architecture == resjax.Architecture(depth=20, shortcut="A")
    assert by_name.classes[3] == "cat"
    assert resjax.load("plain20").architecture == resjax.Architecture(depth=20, shortcut="plain")
    with pytest.raises(BadInput, match="resjax/resnet21: resjax comes with plain20, resnet20"):
        resjax.load("resjax/resnet21")
    with pytest.raises(BadInput, match=r"resnet21: .*, one that comes with resjax \(plain20, resnet20\), or OWNER/NAME"
                                       r" on the Hub, such as timm/resnet50.a1_in1k") as told:
        resjax.load("resnet21")
    assert ".safetensors" not in str(told.value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet20").mkdir()
    with pytest.raises(BadInput, match="resnet20: no run lies there"):
        resjax.load("resnet20")


def test_an_image_is_classified_and_they_are_a_start(small, tmp_path, capsys, one_device):
    Image.new("RGB", (64, 48), (40, 90, 200)).save(tmp_path / "sky.png")
    execute(["predict", "resnet20", str(tmp_path / "sky.png")])
    assert re.search(r"sky\.png: (ship|airplane) [5-9]\d\.\d %, ", capsys.readouterr().out)
    colours = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    for number, split in enumerate(("train", "test")):
        for name in ("sea", "sky"):
            (tmp_path / "own" / split / name).mkdir(parents=True)
            for copy in range(16):
                Image.fromarray(np.roll(colours[number], copy)).save(tmp_path / f"own/{split}/{name}/{copy}.png")
    run = small(architecture=resjax.Architecture(ghost_batch_size=16, unroll=0), initialize_from="resnet20", steps=2,
                data=resjax.Data(source=f"folder:{tmp_path}/own"), checkpoint_steps=2)
    result = resjax.train(run, tmp_path / "run")
    assert result["steps"] == 2
    stem = resjax.restore(tmp_path / "run").state.params["conv1"]["kernel"]
    assert np.allclose(stem, resjax.load("resnet20").variables["params"]["conv1"]["kernel"], atol=0.1)


@pytest.mark.parametrize("name", trained())
def test_the_log_has_each_step_once(name):
    """The run was stopped and resumed many times, and each line of its log is there once, in order."""
    for kind, apart in (("train", 100), ("test", 1000)):
        steps = [line["step"] for line in resjax.read_metrics(TABLE6 / name / "seed0", kind)]
        assert steps[:64_000 // apart] == list(range(apart, 64_001, apart))
