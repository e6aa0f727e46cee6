"""How images are prepared, as the weights' makers do: the same numbers for the same JPEG, or a refusal by name."""

import json
import math
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from resjax import Architecture, BadInput
from resjax.data import Preprocessing, centre_crop
from resjax.data.preprocessing import resize
from resjax.evaluation import views_of
from resjax.weights.configs import check_arch, read_config
from resjax.weights.describe import preprocessing_differences, processor_config, timm_config
from resjax.weights.metadata import PreprocessingEntry, preprocessing_entry


@pytest.fixture(scope="module")
def photograph():
    from sklearn.datasets import load_sample_images

    return Image.fromarray(load_sample_images().images[0]).crop((100, 0, 600, 375))  # 500 x 375


@pytest.fixture(scope="module", params=[(500, 375), (235, 235), (171, 256)], ids=str)
def picture(request, photograph):
    return photograph.resize(request.param)


def encoded(picture):
    out = BytesIO()
    picture.save(out, "png")
    return out.getvalue()


def seen(entry, picture):
    preprocessing = entry.read(None, 3)
    return np.asarray(preprocessing.normalize(preprocessing.prepare(encoded(picture), "x")[None])[0])


@pytest.mark.parametrize(("length", "crop", "floor", "even"), [
    (341, 224, 58, 58), (343, 224, 59, 60), (235, 224, 5, 6), (256, 224, 16, 16), (225, 224, 0, 0), (227, 224, 1, 2)])
def test_half_a_pixel_is_rounded_as_each_of_the_others_does(length, crop, floor, even):
    """torchvision: int(round((length - crop) / 2)); transformers: int((length - crop) / 2)."""
    image = np.arange(length, dtype=np.int32)[:, None, None].repeat(crop, 1)
    assert centre_crop(image, crop, crop)[0, 0, 0] == floor
    assert centre_crop(image, crop, crop, "half-even")[0, 0, 0] == even


@pytest.mark.parametrize("size", [(256, 341), (224, 224), (100, 500), (600, 700), (217, 341)])
@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic"])
def test_bytes_are_resized_as_pytorch_does(size, name, photograph):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")
    pixels = np.array(photograph)
    there = torch.nn.functional.interpolate(torch.from_numpy(pixels).permute(2, 0, 1)[None], size, **{
        "nearest": {"mode": "nearest-exact"}}.get(name, {"mode": name, "antialias": True}))
    assert np.array_equal(resize(pixels, *size, f"torch-{name}"), there[0].permute(1, 2, 0).numpy())


def by_torchvision(picture, side, crop, kernel):
    """What torchvision's and timm's transforms make of a picture, by Pillow alone."""
    width, height = picture.size
    short = min(width, height)
    sides = (side if width == short else int(side * width / short), side if height == short else int(
        side * height / short))
    large = picture.resize(sides, getattr(Image.Resampling, kernel.upper()))
    left, top = (round((length - crop) / 2.0) for length in sides)
    pixels = np.asarray(large.crop((left, top, left + crop, top + crop)), np.float64) / 255
    return (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]


COLOURS = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def timm(folder, architecture="resnet18", model_args=None, **images):
    pretrained = {"input_size": [3, 224, 224], "crop_mode": "center", **COLOURS, **images}
    (folder / "config.json").write_text(json.dumps({
        "architecture": architecture, "num_classes": 3, "pretrained_cfg": pretrained, "model_args": model_args or {}}))
    return read_config(folder)


@pytest.mark.parametrize(("crop_pct", "kernel"), [(0.95, "bicubic"), (0.875, "bilinear"), (1.0, "lanczos"),
                                                  (0.9, "nearest"), (0.965, "box")])
def test_timms_settings_are_done_as_timm_does(crop_pct, kernel, picture, tmp_path):
    found = timm(tmp_path, crop_pct=crop_pct, interpolation=kernel)
    assert found.architecture.stride_in == "3x3"
    wanted = by_torchvision(picture, math.floor(224 / crop_pct), 224, kernel)
    np.testing.assert_allclose(seen(found.preprocessing, picture), wanted, atol=1e-5)


def test_timms_squash_and_its_defaults(picture, tmp_path):
    entry = timm(tmp_path, crop_pct=0.9, crop_mode="squash", interpolation="bicubic").preprocessing
    pixels = np.asarray(picture.resize((248, 248), Image.Resampling.BICUBIC).crop((12, 12, 236, 236)), np.float64)
    np.testing.assert_allclose(seen(entry, picture), (pixels / 255 - COLOURS["mean"]) / COLOURS["std"], atol=1e-5)
    assert [view.squash for view in views_of("single", entry.read(None, 3))] == [(248, 248)]
    (tmp_path / "config.json").write_text('{"architecture": "resnet50", "pretrained_cfg": {}}')
    entry = read_config(tmp_path).preprocessing
    assert (entry.resize, entry.shorter_side, entry.crop) == ("pillow-bicubic", 256, "half-even")


@pytest.mark.parametrize(("settings", "message"), [
    ({"crop_mode": "border"}, "crop_mode is 'border'"), ({"interpolation": "random"}, "interpolation is 'random'"),
    ({"input_size": [3, 192, 256]}, "crops of 192x256"), ({"architecture": "resnetblur18"}, "'resnetblur18' is not"),
    ({"model_args": {"output_stride": 16}}, "output_stride")])
def test_what_timm_does_otherwise_is_refused_by_name(settings, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        timm(tmp_path, **settings)


BIT = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "image_mean": COLOURS["mean"],
       "image_std": COLOURS["std"]}
PROCESSORS = {
    "ConvNext": ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    "ConvNext, crop of 0.95": ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}, "crop_pct": 0.95}),
    "ConvNext at 384": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "Bit": ("BitImageProcessor", BIT), "Bit's defaults": ("BitImageProcessor", {}),
    "ViT": ("ViTImageProcessor", {}), "Lanczos": ("BitImageProcessor", BIT | {"resample": 1}),
    "nearest": ("BitImageProcessor", BIT | {"resample": 0}),
    "not normalized": ("BitImageProcessor", BIT | {"do_normalize": False}),
    "not rescaled": ("BitImageProcessor", BIT | {"do_rescale": False}),
    "other scale": ("BitImageProcessor", BIT | {"rescale_factor": 1 / 127.5}),
    "192x256": ("BitImageProcessor", BIT | {"size": {"height": 192, "width": 256}, "do_center_crop": False}),
    "crop of 192x256": ("BitImageProcessor", BIT | {"crop_size": {"height": 192, "width": 256}})}
CONFIG = {"model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2]}


def processed(folder, **images):
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return read_config(folder).preprocessing


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.filterwarnings("default")  # transformers' own
def test_transformers_settings_are_done_as_transformers_does(name, picture, tmp_path):
    """Its processors of pictures need no torchvision; those of tensors differ by `test_bytes_are_resized_...`."""
    transformers = pytest.importorskip("transformers", reason="pip install -e '.[peers]'")
    kind, settings = PROCESSORS[name]
    if not hasattr(transformers, f"{kind}Pil"):
        pytest.skip("these transformers have no processors of pictures")
    processor = getattr(transformers, f"{kind}Pil")(**settings)
    processor.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "preprocessor_config.json").read_text())
    entry = processed(tmp_path, **(written | {"image_processor_type": f"{kind}Pil"}))
    wanted = processor(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_allclose(seen(entry, picture), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(("settings", "message"), [
    ({"do_center_crop": False}, "do_center_crop is false and size has only shortest_edge"),
    ({"do_resize": False}, "do_resize is false; resjax needs"), ({"do_pad": True}, "do_pad is True"),
    ({"resample": 4}, "resample is 4"),
    ({"image_processor_type": "EfficientNetImageProcessor"}, "image_processor_type is 'EfficientNetImageProcessor'"),
    ({"size": {"shortest_edge": 256, "longest_edge": 300}}, "size is"),
    ({"crop_size": 300}, "the crop is 300x300")])
def test_what_transformers_does_otherwise_is_refused_by_name(settings, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        processed(tmp_path, **({"image_processor_type": "BitImageProcessor"} | BIT | settings))


def test_tensors_are_what_transformers_resizes_where_nothing_says_pictures(tmp_path):
    assert processed(tmp_path, image_processor_type="BitImageProcessor", **BIT).resize == "torch-bicubic"
    assert processed(tmp_path, image_processor_type="BitImageProcessorPil", **BIT).resize == "pillow-bicubic"
    old = processed(tmp_path, feature_extractor_type="ConvNextFeatureExtractor", size=224, crop_pct=0.875, resample=3,
                    image_mean=COLOURS["mean"], image_std=COLOURS["std"])  # microsoft/resnet-50's
    assert (old.shorter_side, old.size, old.resize, old.crop) == (256, 224, "torch-bicubic", "floor")


def test_pixels_of_0_to_1_without_a_deviation():
    """What 255 becomes is what all is divided by: without it the input is 255 times too large."""
    preprocessing = PreprocessingEntry(mean=(0.5, 0.5, 0.5), value_range=1.0).read(None, 3)
    pixels = np.full((1, 224, 224, 3), 255, np.uint8)
    np.testing.assert_allclose(preprocessing.normalize(pixels), 0.5, rtol=1e-6)
    assert PreprocessingEntry(mean=(1.0, 2.0, 3.0)).read(None, 3).std == ()


@pytest.mark.parametrize(("arch", "depth"), [("resnet18", 18), ("resnet50.a1_in1k", 50), ("vgg16", 16),
                                             ("my_net", None), ("resnet20_cifar", None), ("resnet20", None)])
def test_the_arch_of_a_checkpoint(arch, depth):
    found = check_arch(arch, "a.pth")
    assert (found and found.depth) == depth


@pytest.mark.parametrize("arch", ["resnetblur18", "resnetaa50", "resnet18d", "vgg16bn"])
def test_an_arch_of_another_network_is_refused(arch):
    with pytest.raises(BadInput, match=rf"a\.pth: its arch is '{arch}', which is not a network of the paper"):
        check_arch(arch, "a.pth")


def described(**changes):
    mean = np.broadcast_to(np.float32([120, 110, 100]), (224, 224, 3))
    return Preprocessing(mean, (60.0, 59.0, 58.0), **changes)


@pytest.mark.parametrize("side", [*range(224, 300), 320, 512])
def test_what_is_written_for_timm_gives_the_same_shorter_side(side, tmp_path):
    network = SimpleNamespace(architecture=Architecture(family="imagenet", depth=18, shortcut="B"), outputs=3,
                              classes=("a", "b", "c"), preprocessing=described(
                                  shorter_side=side, resize="pillow-bilinear", crop="half-even"))
    config = timm_config(network)
    assert math.floor(224 / config["pretrained_cfg"]["crop_pct"]) == side
    (tmp_path / "config.json").write_text(json.dumps(config))
    back = read_config(tmp_path).preprocessing.read(tmp_path, 3)
    np.testing.assert_allclose(back.std, network.preprocessing.std)
    assert back._replace(mean=0, std=()) if hasattr(back, "_replace") else (
        back.replace(mean=0, std=()) == network.preprocessing.replace(mean=0, std=()))


@pytest.mark.parametrize("images", [
    {"shorter_side": 256, "resize": "torch-bicubic"}, {"squash": (224, 224), "resize": "torch-bilinear"}], ids=str)
def test_what_is_written_for_transformers_is_read_back(images, tmp_path):
    preprocessing = described(**images)
    back = processed(tmp_path, **processor_config(preprocessing_entry(preprocessing))).read(tmp_path, 3)
    np.testing.assert_allclose(back.std, preprocessing.std)
    assert back.replace(mean=0, std=()) == preprocessing.replace(mean=0, std=())
    assert differences(preprocessing, "huggingface") == []


def differences(preprocessing, to, family="imagenet"):
    architecture = Architecture(family=family, depth=50 if family == "imagenet" else 20, shortcut="B")
    return preprocessing_differences(SimpleNamespace(architecture=architecture, preprocessing=preprocessing), to)


def test_what_the_other_side_prepares_otherwise_is_said():
    ours = described(shorter_side=256)
    assert differences(ours, "torchvision") == [
        "torchvision and timm: resizes images with bilinear instead of area",
        "torchvision and timm: rounds half a pixel the other way when it crops an odd border"]
    assert differences(ours, "onnx") == []
    assert differences(described(squash=(224, 224), resize="pillow-nearest"), "keras") == []
    small = Preprocessing(np.random.default_rng(0).uniform(90, 130, (32, 32, 3)).astype(np.float32))
    assert differences(small, "huggingface") == ["transformers: subtracts the mean colour instead of the mean image"]
    assert differences(small, "torchvision", "cifar") == []  # whose code leaves preprocessing to the reader


def test_a_colour_that_went_through_a_resize_is_one_colour():
    """So that a network that was fine-tuned at another size is written with a preparation."""
    import jax

    colour = np.broadcast_to(np.float32([123.675, 116.28, 103.53]), (224, 224, 3))
    small = np.asarray(jax.image.resize(colour, (96, 96, 3), "linear"))
    entry = preprocessing_entry(Preprocessing(small, shorter_side=110))
    assert entry.mean_image == ""
    assert entry.mean == pytest.approx((123.675, 116.28, 103.53), abs=1e-3)
