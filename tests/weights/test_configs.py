"""The config.json of timm and transformers: stride, classes and preprocessing, and other networks refused."""

import json
import shutil

import pytest
from networks import random_network

from resjax import BadInput, export, load
from resjax.network import imagenet_classes


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(random_network(), "akamaster", tmp_path_factory.mktemp("weights") / "out")


@pytest.mark.parametrize(("config", "message"), [
    ({"model_type": "bert"}, "describes 'bert'"),
    ({"model_type": "resnet", "layer_type": "basic", "depths": [1, 1]}, r"basic blocks \(1, 1\).*not a network"),
    ({"model_type": "resnet", "layer_type": "basic"}, "not in the format of timm or transformers"),
    ({"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_act": "gelu"}, "'gelu'"),
    ({"architecture": "resnet50d", "pretrained_cfg": {}}, "'resnet50d' is not a network of the paper"),
    ({"architecture": "resnet50", "model_args": {"aa_layer": "blur"}, "pretrained_cfg": {}}, "aa_layer"),
    ({"architecture": "resnet50", "pretrained_cfg": {"input_size": 9}}, "not in the format of timm or transformers"),
    ({"architecture": "resnet50", "pretrained_cfg": {}}, "says ResNet B-50"),  # timm's defaults, of another network
    ({"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 9, 9], "mean": ["x", 1, 1], "std": [1, 1, 1]}},
     r"config\.json: .*mean is 'x'"),
    ({"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 9, 9], "mean": [1, 1, 1], "std": [1, 1, 1],
                                                     "crop_pct": 1.2}}, r"config\.json: .* the crop must fit into it"),
    ({"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 9, 9], "mean": [1, 1, 1], "std": [1, 1, 1],
                                                     "label_names": [[]]}}, r"config\.json: .*classes is \[\]"),
])
def test_configs_of_other_networks_are_refused(config, message, exported, tmp_path):
    shutil.copy(exported / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=message):
        load(tmp_path)


def test_timms_config_tells_stride_and_colours(tmp_path):
    network = random_network("imagenet", 50, "B", "ab", stride_in="3x3")
    out = export(network, "torchvision", tmp_path / "out")
    (out / "model.json").unlink()
    (out / "config.json").write_text(json.dumps({
        "architecture": "resnet50", "num_classes": 2, "model_args": {"in_chans": 3, "global_pool": "avg"},
        "pretrained_cfg": {"input_size": [3, 288, 288], "crop_pct": 0.95, "mean": [0.5, 0.4, 0.3],
                           "std": [0.1, 0.2, 0.3]}}))
    loaded = load(out)
    assert loaded.architecture.title() == "ResNet B-50 v1.5 in ImageNet form"
    assert (loaded.data.size, loaded.data.test_shorter_side, loaded.mean.shape) == (288, 303, (288, 288, 3))
    assert loaded.mean[0, 0].tolist() == pytest.approx([127.5, 102, 76.5])
    assert loaded.preprocessing.std == pytest.approx((25.5, 51, 76.5))


@pytest.mark.parametrize(("images", "crop", "side"), [
    ({"size": 224, "crop_pct": 0.875}, 224, 256),  # as microsoft/resnet-50 has it
    ({"size": {"shortest_edge": 320}, "crop_size": {"height": 288, "width": 288}, "do_center_crop": True}, 288, 320),
    ({"size": {"height": 256, "width": 256}, "do_rescale": True}, 256, 256),
])
def test_transformers_configs_tell_crop_and_classes(images, crop, side, tmp_path):
    names = [name.partition(",")[0] for name in imagenet_classes().values()]
    out = export(random_network("imagenet", 18, "B", tuple(imagenet_classes())), "huggingface", tmp_path / "out")
    (out / "model.json").unlink()
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"id2label": dict(enumerate(names))}))
    (out / "preprocessor_config.json").write_text(json.dumps(
        images | {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}))
    loaded = load(out)
    assert (loaded.mean.shape[0], loaded.data.size, loaded.data.test_shorter_side) == (crop, crop, side)
    assert loaded.mean[0, 0].tolist() == pytest.approx([127.5, 102, 76.5])
    assert loaded.classes == tuple(imagenet_classes())


def test_what_an_image_processor_leaves_out_is_left_out(tmp_path):
    out = export(random_network("imagenet", 18, "B", "ab"), "huggingface", tmp_path / "out")
    (out / "model.json").unlink()
    images = {"size": 224, "image_mean": [5, 6, 7], "image_std": [1, 2, 3], "do_rescale": False}
    for changes, mean, std in (({}, [5, 6, 7], (1, 2, 3)), ({"do_normalize": False}, [0, 0, 0], ())):
        (out / "preprocessor_config.json").write_text(json.dumps(images | changes))
        network = load(out)
        assert network.mean[0, 0].tolist() == mean
        assert network.preprocessing.std == std
