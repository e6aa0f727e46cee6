"""Networks that come with resjax: found by name, without a network; as good as their run's result and log say."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resjax
from resjax import BadInput
from resjax.console.command_line import execute
from resjax.weights.trained import FOLDER, trained

RESULTS = Path(__file__).parents[2] / "experiments/results"
TABLE6, DETECTION = RESULTS / "table6", RESULTS / "detection"


def test_names_find_them_and_what_lies_here_goes_first(tmp_path, monkeypatch):
    assert trained() == ["plain20", "resnet20"]
    assert trained("detector.safetensors") == ["bccd"]
    by_name, by_owner = resjax.load("resnet20"), resjax.load("resjax/resnet20")
    assert by_name.architecture == by_owner.architecture == resjax.Architecture(depth=20, shortcut="A")
    assert by_name.classes[3] == "cat"
    assert resjax.load("plain20").architecture == resjax.Architecture(depth=20, shortcut="plain")
    with pytest.raises(BadInput, match="resjax/resnet21: resjax includes only bccd, plain20, resnet20"):
        resjax.load("resjax/resnet21")
    with pytest.raises(BadInput, match=r"resnet21: .*, a name that comes with .*plain20, resnet20\), or OWNER/NAME"
                                       r" on the Hub, such as timm/resnet50.a1_in1k") as told:
        resjax.load("resnet21")
    assert ".safetensors" not in str(told.value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet20").mkdir()
    with pytest.raises(BadInput, match="resnet20: contains neither a run"):
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


@pytest.mark.parametrize(("name", "form"), [("resnet20", "akamaster"), ("plain20", "resjax"), ("bccd", "resjax")])
def test_shipped_cards_tell_what_was_measured_and_exports_do_too(name, form, tmp_path):
    """An export has the card that lies here, word for word, and its numbers are those of the run's own record."""
    run = DETECTION / "bccd_shipped" if name == "bccd" else TABLE6 / name / "seed0"
    result = json.loads((run / "result.json").read_text())
    execute(["export", name, "--to", form, "--out", str(tmp_path / "out")])
    card = (tmp_path / "out" / "README.md").read_text()
    assert card == (FOLDER / name / "README.md").read_text()
    if name == "bccd":
        numbers = [(result["mean_average_precision"], result["eleven_point"], "mean"), *(
            (value, result["eleven_points"][label], label) for label, value in result["average_precision"].items())]
        assert all(f"| {label} | {area:.1f} | {points:.1f} |" in card for area, points, label in numbers)
        assert "Licence: MIT, copyright (c) 2017 shenggan" in card
        assert "https://github.com/Shenggan/BCCD_Dataset" in card
    else:
        assert (f"| tfds:cifar10, test | single | {result['test_top1_error']:.2f} | {result['test_top5_error']:.2f} "
                "| 10,000 |") in card
        assert "Learning Multiple Layers of Features from Tiny Images" in card
    assert ("8.38" in card) == (name == "resnet20")
    assert "## Licence\n\nApache-2.0" in card
    assert "Deep Residual Learning for Image Recognition. CVPR, 2016" in card
    again = tmp_path / "again"  # of what was exported
    execute(["export", str(tmp_path / "out"), "--to", form, "--out", str(again)])
    assert (again / "README.md").read_text() == card


def test_a_damaged_card_is_named(tmp_path):
    shutil.copytree(FOLDER / "resnet20", tmp_path / "net")
    (tmp_path / "net" / "card.json").write_text('{"errors": [["x", "single", "low", 1, 2]], "precisions": [], '
                                                '"recipe": "", "source": "", "licence": ""}')
    with pytest.raises(BadInput, match=r"card\.json: errors.* is 'low'"):
        execute(["export", str(tmp_path / "net"), "--to", "akamaster", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", trained())
def test_the_log_has_each_step_once(name):
    """The run was stopped and resumed many times, and each line of its log is there once, in order."""
    for kind, apart in (("train", 100), ("test", 1000)):
        steps = [line["step"] for line in resjax.read_metrics(TABLE6 / name / "seed0", kind)]
        assert steps[:64_000 // apart] == list(range(apart, 64_001, apart))
