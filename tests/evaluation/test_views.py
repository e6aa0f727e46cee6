"""The protocols of testing: one crop, ten crops, whole images at five scales, ensembles; every image counts once."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resjax import BadInput, Photographs, imagenet_resnet
from resjax.data import ImageFiles, Images, centre_crop, decode, find_images, of_run, resize_shorter_side
from resjax.evaluation import ensemble, error_rates, evaluate, log_probabilities_of_views, views_of
from resjax.evaluation.views import ten_crop, whole
from resjax.network import Classifier
from resjax.system.distributed import batch_sharding


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images():
    image = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3)
    crops = ten_crop(image, 4, 4)
    wanted = [image[:4, :4], image[:4, 6:], image[4:, :4], image[4:, 6:], image[2:6, 3:7]]
    assert np.array_equal(crops, np.stack([*wanted, *(crop[:, ::-1] for crop in wanted)]))


@pytest.mark.parametrize(("shape", "side", "size"), [
    ((375, 500), 224, (224, 288)), ((500, 375), 224, (288, 224)), ((100, 100), 640, (640, 640)),
    ((100, 1000), 256, (256, 512)), ((375, 500), 480, (480, 640))])
def test_a_whole_image_is_a_multiple_of_32_and_at_most_twice_as_long(shape, side, size):
    assert whole(*shape, side) == size


def test_the_papers_protocols():
    data = of_run(Photographs(), np.zeros((224, 224, 3)))
    assert [(view.side, view.size, view.number) for view in views_of("single", data)] == [(256, (224, 224), 1)]
    assert [(view.side, view.size, view.number) for view in views_of("ten-crop", data)] == [(256, (224, 224), 10)]
    assert [view.side for view in views_of("multi-scale", data)] == [224, 256, 384, 480, 640]
    with pytest.raises(BadInput, match="views is 'eleven-crop'; it must be one of single, ten-crop, multi-scale"):
        views_of("eleven-crop", data)


@pytest.fixture(scope="module")
def setting(photographs):
    """A small net with random parameters, and the 24 test images."""
    data = Photographs(source=f"folder:{photographs}/folders", size=64, shorter_side=(72, 90), test_shorter_side=80,
                       workers=0)
    model = imagenet_resnet(18, "A", classes=2)
    model = model.clone(blocks=(1, 1, 1, 1), filters=8)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    variables["params"]["fc"]["kernel"] *= 1e-3  # pixels of 0 to 255 and no training: softmax would be 0 or 1
    mean = jnp.full((64, 64, 3), 100.0) + jnp.arange(64)[:, None, None]
    return data, find_images(data).test, model, variables, mean


def probabilities(setting, protocol, batch_size=32, devices=1, **changes):
    data, photos, model, variables, mean = setting
    data = replace(data, **changes)
    sharding = batch_sharding(jax.devices()[:devices])
    classifier = Classifier(model, variables, of_run(data, mean))
    views = views_of(protocol, classifier.preprocessing)
    return np.exp(log_probabilities_of_views(classifier, photos, views, batch_size, sharding, data.workers))


def softmax(setting, pixels):
    _, _, model, variables, mean = setting
    mean = jax.image.resize(mean, pixels.shape[1:], "linear")
    return np.asarray(jax.nn.softmax(jax.jit(model.apply)(variables, pixels.astype(jnp.float32) - mean)))


def test_ten_crop_averages_the_softmax(setting):
    _, photos, *_ = setting
    found = probabilities(setting, "ten-crop")
    for index in (0, 7, 23):
        image = of_run(setting[0], setting[4]).resized(photos.read(index), "", 80)
        np.testing.assert_allclose(found[index], softmax(setting, ten_crop(image, 64, 64)).mean(0), rtol=1e-4)
    assert np.abs(found - probabilities(setting, "single")).max() > 1e-3


def test_multi_scale_averages_whole_images_over_scales(setting):
    data, photos, *_ = setting
    found = probabilities(setting, "multi-scale")
    for index in (0, 1):  # one lies, one stands
        image = decode(photos.read(index), "")
        seen = []
        for view in views_of("multi-scale", of_run(data, np.zeros((64, 64, 3)))):
            resized = resize_shorter_side(decode(photos.read(index), "", least=view.side), view.side)
            seen.append(softmax(setting, centre_crop(resized, *whole(*image.shape[:2], view.side))[None])[0])
        np.testing.assert_allclose(found[index], np.mean(seen, 0), rtol=1e-4)


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 1000}, {"devices": 8},
                                    {"workers": 2, "batch_size": 1}], ids=str)
@pytest.mark.parametrize("protocol", ["single", "ten-crop"])
def test_batch_size_devices_and_workers_change_nothing(setting, protocol, change):
    np.testing.assert_allclose(probabilities(setting, protocol, **change), probabilities(setting, protocol), rtol=1e-4)


def test_an_unreadable_test_image_stops_the_evaluation(setting, tmp_path):
    data, photos, *rest = setting
    cut = photos._replace(reader=lambda i: photos.read(i)[:500 if i == 3 else None])
    with pytest.raises(BadInput, match=f"{photos.name(3)}: damaged image"):
        probabilities((data, cut, *rest), "single")


def test_errors_of_probabilities_are_exact():
    probabilities = np.array([[0.1, 0.9, 0, 0, 0, 0], [0.3, 0.3, 0.4, 0, 0, 0], [0.2, 0.2, 0.2, 0.2, 0.15, 0.05],
                              [np.nan, 1, 0, 0, 0, 0]], np.float32)
    with np.errstate(divide="ignore"):
        errors = error_rates(np.log(probabilities), np.array([1, 0, 5, 1]))
    assert (errors.top1_error, errors.top5_error, errors.images) == (75.0, 50.0, 4)
    tied = np.log(np.full((2, 6), 1 / 6, np.float32))  # of equal ones the earlier is right, as in `evaluate`
    assert error_rates(tied, np.array([0, 5])).top1_error == 50
    assert error_rates(tied, np.array([4, 5])).top5_error == 50


def test_a_network_with_itself_is_no_other():
    logits = np.log(np.array([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], np.float32))
    np.testing.assert_allclose(ensemble([logits, logits]), logits, rtol=1e-6)
    other = np.log(np.array([[0.6, 0.1, 0.3], [0.3, 0.3, 0.4]], np.float32))
    np.testing.assert_allclose(np.exp(ensemble([logits, other])), [[0.4, 0.3, 0.3], [0.2, 0.2, 0.6]], rtol=1e-6)


def test_images_in_memory_have_the_same_errors_from_files(tmp_path, small):
    """The digits, once as an array and once as pictures: one evaluation."""
    from PIL import Image

    from resjax.data import load_data, mean_image

    run, dataset = small(), load_data(small().data)
    model, mean = run.architecture.model(10), mean_image(dataset.train)
    classifier = Classifier(model, jax.jit(model.init)(jax.random.key(0), mean[None]), of_run(run.data, mean))
    images = Images(dataset.test.pixels[:150], dataset.test.labels[:150])
    for number, pixels in enumerate(images.pixels):
        Image.fromarray(pixels[..., 0]).save(tmp_path / f"{number}.png")
    names = np.array([f"{number}.png".encode() for number in range(150)])
    files = ImageFiles(names, images.labels, lambda index: (tmp_path / f"{index}.png").read_bytes())
    seen = log_probabilities_of_views(classifier, files, views_of("single", classifier.preprocessing), 64,
                                      batch_sharding(jax.devices()[:1]), 0)
    found, wanted = error_rates(seen, images.labels), evaluate(classifier, images, 64)
    assert found[:2] == wanted[:2]
    assert found.loss == pytest.approx(wanted.loss, rel=1e-4)
