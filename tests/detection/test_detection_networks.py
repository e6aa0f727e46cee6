"""Faster R-CNN against an independent one in PyTorch, with weights that come in through a file; VGG's counts."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax.data import normalize
from resjax.detection.config import Detection, Detector, Sampling, Scenery
from resjax.detection.evaluate import detections
from resjax.detection.images import Level
from resjax.detection.initialize import initial_weights, start_from
from resjax.detection.networks import FasterRCNN
from resjax.detection.phases import JOINT
from resjax.detection.proposals import propose
from resjax.detection.step import Proposed, anchors_of, draw_onto, frozen, stage_of
from resjax.models.vgg import VGG
from resjax.system.errors import BadInput

CLASSES = 4
RULES = Sampling(test_candidates=60, test_proposals=12, smallest=8.0)
TORCHVISION = tuple(255 * value for value in (0.229, 0.224, 0.225))
SIZE = (91, 122)  # of the image, in a padded one of 96x128


def detector_of(backbone):
    return Detector(backbone=backbone, anchor_sizes=(32.0, 64.0), anchor_ratios=(0.5, 1.0, 2.0), rpn_channels=32,
                    hidden=48)


def start(detection):
    """Make the first state of a run with the weights that it names, and heads that say something."""
    model = FasterRCNN(detection.detector, CLASSES)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    weights = initial_weights(detection, None)
    shapes = jax.eval_shape(lambda: draw_onto(place, detection, CLASSES, weights.mean))  # compiling it takes long
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.replace(key=None))
    state = start_from(weights, blank)
    random = np.random.default_rng(0)
    heads = {name: jax.tree.map(lambda leaf: jnp.float32(random.normal(0, 0.3 / np.sqrt(np.prod(leaf.shape[:-1])),
                                                                       leaf.shape)), state.params[name])
             for name in ("rpn", "scores", "boxes")}
    return model, state.replace(params=state.params | heads)


def to_torch(torch, theirs, params):
    """Give the heads of ours to PyTorch's."""
    layers = {"conv": params["rpn"]["conv"], "objectness": params["rpn"]["objectness"],
              "deltas": params["rpn"]["deltas"], "scores": params["scores"], "boxes": params["boxes"]}
    with torch.no_grad():
        for name, layer in layers.items():
            kernel = np.asarray(layer["kernel"])
            axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
            getattr(theirs, name).weight.copy_(torch.from_numpy(kernel.transpose(axes).copy()))
            getattr(theirs, name).bias.copy_(torch.from_numpy(np.array(layer["bias"])))


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_all_outputs_are_those_of_pytorch(backbone, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")
    import torch_detector
    from networks import randomized

    torch.manual_seed(0)
    if backbone == "vgg16":
        network, channels, width, pooled = torch_detector.VGG(48), 512, 48, 7
        network.eval()
    else:
        network = randomized(torch, torch_detector.ResNetC4((3, 4, 6, 3), 64, 10, "B", True, "1x1"))
        channels, width, pooled = 1024, 2048, 14
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    std = TORCHVISION
    detection = Detection(name="x", detector=detector_of(backbone), sampling=RULES, data=Scenery(std=std),
                          initialize_from=str(tmp_path / "weights.pth"))
    with pytest.raises(BadInput, match="with std"):  # of weights for divided images, which these would not be
        initial_weights(replace(detection, data=Scenery()), None)
    model, state = start(detection)
    theirs = torch_detector.FasterRCNN(network, channels, width, CLASSES, 6, 32).eval()
    to_torch(torch, theirs, state.params)

    pixels = np.random.default_rng(1).integers(0, 256, (1, 96, 128, 3)).astype(np.float32)
    images = np.array(normalize(pixels, state.mean, std))
    images[:, SIZE[0]:] = images[:, :, SIZE[1]:] = 0

    @jax.jit
    def ours(variables, images):
        anchors = anchors_of(model.detector, 96, 128)
        choose = partial(propose, anchors=anchors, size=jnp.array(SIZE), rules=RULES, train=False)
        return model.apply(variables, images, jnp.array([SIZE]), lambda scores, deltas: Proposed(
            *jax.tree.map(lambda x: x[None], choose(scores[0], deltas[0]))))

    found = ours(state.variables, images)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), SIZE, model.detector, RULES, pooled)
    count = len(wanted[2])
    assert count >= 6
    assert found.regions.valid[0].sum() == count
    for mine, other in zip((found.objectness[0], found.anchor_deltas[0], found.regions.boxes[0, :count],
                            found.logits[0, :count], found.deltas[0, :count]), wanted, strict=True):
        other = np.asarray(other)
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-4 * max(1, np.abs(other).max()))


def test_padding_and_the_images_beside_it_change_no_detection():
    detector = Detector(backbone="tiny", anchor_sizes=(16.0, 32.0), rpn_channels=16)
    rules = Sampling(test_candidates=200, test_proposals=20, smallest=4.0)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    run = Detection(name="x", detector=detector, sampling=rules, initialize_from="weights")
    model = FasterRCNN(detector, 3)
    state = draw_onto(place, run, 3, np.full((1, 1, 3), 128, np.float32))
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (2, 64, 96, 3)).astype(np.uint8)
    images[0, 48:] = images[0, :, 64:] = 128
    sizes = jnp.array([[48.0, 64.0], [64.0, 96.0]])
    both = detections(model, run, state.variables, state.mean, (Level(images, sizes),))
    alone = detections(model, run, state.variables, state.mean, (Level(images[:1], sizes[:1]),))
    np.testing.assert_allclose(both.boxes[0], alone.boxes[0], atol=1e-3)
    np.testing.assert_allclose(both.scores[0], alone.scores[0], rtol=1e-4)
    boxes = both.boxes[0][both.valid[0]]
    assert len(boxes)
    assert boxes[:, [0, 2]].max() <= 64
    assert boxes[:, [1, 3]].max() <= 48


@pytest.mark.parametrize(("depth", "parameters"), [(16, 138_357_544), (19, 143_667_240)])
def test_parameters_of_vgg(depth, parameters):
    shapes = jax.eval_shape(VGG(depth).init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.parametrize(("backbone", "stride", "convolutions"), [("resnet101", 16, 91), ("vgg16", 16, 13),
                                                                  ("small", 8, None)])
def test_what_is_shared(backbone, stride, convolutions):
    detector = Detector(backbone=backbone)
    model = FasterRCNN(detector, 20)
    assert detector.stride == stride
    features = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 96, 128, 3)), method="features"))
    stacked = [leaf.shape[0] if "rest" in jax.tree_util.keystr(path) else 1
               for path, leaf in jax.tree_util.tree_leaves_with_path(features["params"])
               if "kernel" in jax.tree_util.keystr(path) and "shortcut" not in jax.tree_util.keystr(path)]
    if convolutions:  # appendix A: "91 conv layers in ResNet-101"
        assert sum(stacked) == convolutions


def test_what_stays_as_it_is():
    detector = Detector(backbone="resnet18", frozen_stages=2)
    shapes = jax.eval_shape(lambda: draw_onto(
        jax.sharding.SingleDeviceSharding(jax.devices()[0]),
        Detection(name="x", detector=detector, initialize_from="weights"), 3, np.zeros((1, 1, 3), np.float32)))
    stays = frozen(detector, JOINT[0], shapes.params)
    assert all(jax.tree.leaves([stays["shared"][name] for name in ("conv1", "bn1", "stage1")]))
    block = stays["shared"]["stage2"]["first"]
    assert (block["conv1"]["kernel"], block["bn1"]["scale"], block["shortcut"]["bn"]["bias"]) == (False, True, True)
    assert not any(jax.tree.leaves([stays[name] for name in ("rpn", "scores", "boxes")]))
    assert [stage_of(name) for name in ("conv1", "bn1", "stage1", "stage3", "conv1_2", "conv5_1")] == [1, 1, 2, 4, 1, 5]


def test_wrong_weights_are_named(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[peers]'")
    from torch_resnets import ResNet

    torch.save(ResNet((2, 2, 2, 2), 64, 10).state_dict(), tmp_path / "r18.pth")
    for backbone, message in (("resnet50", "contains ResNet B-18"), ("vgg16", "contains ResNet")):
        run = Detection(name="x", detector=Detector(backbone=backbone), initialize_from=str(tmp_path / "r18.pth"))
        with pytest.raises(BadInput, match=message):
            initial_weights(run, None)
    grey = torch.load(tmp_path / "r18.pth")
    torch.save(grey | {"conv1.weight": grey["conv1.weight"][:, :1]}, tmp_path / "r18.pth")
    (tmp_path / "r18.json").write_text('{"preprocessing": {"mean": [0.5], "value_range": 1.0, "shorter_side": 256}}')
    with pytest.raises(BadInput, match=r"initialize-from: .* needs images with 1 channels, but a detector's have 3"):
        initial_weights(run, None)


@pytest.mark.parametrize(("field", "value", "message"), [
    ("backbone", "resnet20", "detector.backbone is 'resnet20'; it must be one of 'vgg16', 'resnet50'"),
    ("anchor_sizes", (), "one or more numbers"), ("anchor_ratios", (0.0,), "must be above 0"),
    ("frozen_stages", -1, "must be at least 0"),
    ("frozen_stages", 5, "detector.frozen-stages is 5; resnet101 has 4 stages that process whole images")])
def test_wrong_detectors(field, value, message):
    with pytest.raises(BadInput, match=message):
        Detector(**{field: value})


def test_wrong_rules_and_data():
    with pytest.raises(BadInput, match="it must be an overlap"):
        Sampling(foreground=50.0)
    with pytest.raises(BadInput, match="two overlaps in ascending order"):
        Sampling(background=(0.5, 0.5))
    with pytest.raises(BadInput, match=r"sampling.background starts at 0.5; it must start below sampling.foreground"):
        Sampling(background=(0.5, 0.9))
    with pytest.raises(BadInput, match="shorter-side is 700"):
        Scenery(shorter_side=700, longer_side=600)
    with pytest.raises(BadInput, match="have three numbers"):
        Scenery(std=(1.0,))
    with pytest.raises(BadInput, match="batch-size 3 is not a multiple"):
        Detection(name="x", detector=Detector(frozen_batch_norm=False, ghost_batch_size=2), batch_size=3)


@pytest.mark.parametrize(("field", "least", "message"), [
    ("anchors", 2, "sampling.anchors is 1; it must be at least 2"), ("rois", 4, "sampling.rois is 3; it must be at l")])
def test_a_sample_has_room_for_an_object(field, least, message):
    """Half of the anchors and a quarter of the regions show objects, rounded down: of fewer, none would."""
    assert getattr(Sampling(**{field: least}), field) == least
    with pytest.raises(BadInput, match=message):
        Sampling(**{field: least - 1})


@pytest.mark.parametrize("score", [1, 5, -0.1])
def test_the_lowest_score_is_below_those_of_detections(score):
    with pytest.raises(BadInput, match=r"sampling.lowest-score is .*; it must be in \[0, 1\)"):
        Sampling(lowest_score=score)


def test_what_no_image_has_room_for_is_refused():
    images = Scenery(source="scenes", shorter_side=64, longer_side=96)
    few = Detector(backbone="tiny", frozen_batch_norm=False, anchor_sizes=(64.0, 500.0), anchor_ratios=(0.5, 1.0))
    fitting = Detection(name="x", detector=few, data=images)
    with pytest.raises(BadInput, match=r"sampling\.smallest is 65\.0; it must be at most data.shorter-side 64"):
        replace(fitting, sampling=Sampling(smallest=65.0))
    with pytest.raises(BadInput, match=r"detector.anchor-sizes are \(65.0, 500.0\); at least one anchor must fit"):
        replace(fitting, detector=replace(few, anchor_sizes=(65.0, 500.0), anchor_ratios=(1.0,)))
    with pytest.raises(BadInput, match="at least one anchor must fit"):  # 32 x 128 pixels
        replace(fitting, detector=replace(few, anchor_sizes=(64.0,), anchor_ratios=(4.0,)))
