"""Photographs: found in three forms, decoded, cropped, and put into batches that are a function of (seed, step)."""

import gc
import os
import shutil
import tarfile
from dataclasses import replace
from io import BytesIO
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import SemLock
from pathlib import Path

import numpy as np
import pytest
from conftest import flip
from grain._src.python.ipc.shared_memory_array import SharedMemoryArray
from photographs import add
from PIL import Image

from resjax import BadInput, Photographs
from resjax.data import (
    centre_crop,
    decode,
    find_images,
    measure_statistics,
    random_box,
    training_batches,
)
from resjax.data.archives import DEVKIT, TRAIN, VALIDATION
from resjax.data.preprocessing import resize
from resjax.data.stream import copy_out, training_example

SEEDS = (3, 4)


def small(photographs, kind="folder", **changes):
    source = {"folder": f"folder:{photographs}/folders", "tars": f"tars:{photographs}/tars", "tfds": "tfds:photos"}
    return replace(Photographs(source=source[kind], directory=photographs / "tfds", size=64, shorter_side=(72, 120),
                               test_shorter_side=80, workers=0), **changes)


def batches(data, count, batch_size=16, step=0, process=0, processes=1):
    photos = find_images(data).train
    with training_batches(photos, data, SEEDS, batch_size, range(step, step + count), (process, processes)) as iterator:
        return list(iterator)


def same(a, b):
    return all(np.array_equal(x, y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def three(photographs):
    return batches(small(photographs), 7)  # of 48 images: three epochs' worth


def test_what_macs_put_beside_images_is_no_image_in_archives_within_archives(photographs, tmp_path):
    """macOS's tar writes `._NAME.JPEG` beside every picture."""
    def packed_again(content, file):
        with tarfile.open(fileobj=content) as tar, tarfile.open(fileobj=file, mode="w") as mac:
            for member in tar:
                inner = tar.extractfile(member).read()
                if member.name.endswith(".tar"):
                    inner = packed_again(BytesIO(inner), BytesIO())
                for name in (f"./._{member.name}", ".DS_Store"):
                    add(mac, name, b"Mac OS X")
                add(mac, f"./{member.name}", inner)
        return file.getvalue()

    shutil.copytree(photographs / "tars", tmp_path / "tars")
    for name in (TRAIN, VALIDATION):
        content = (photographs / "tars" / name).read_bytes()
        (tmp_path / "tars" / name).write_bytes(packed_again(BytesIO(content), BytesIO()))
    plain, mac = (find_images(small(root, "tars")) for root in (photographs, tmp_path))
    for split in ("train", "test"):
        a, b = getattr(plain, split), getattr(mac, split)
        assert np.array_equal(a.labels, b.labels)
        assert all(a.read(i) == b.read(i) for i in range(len(a.labels)))


@pytest.mark.parametrize("kind", ["tars", "tfds"])
def test_folders_archives_and_prepared_sets_give_the_same_batches(photographs, three, kind):
    assert same(batches(small(photographs, kind), 7), three)
    one, other = (find_images(small(photographs, name)) for name in ("folder", kind))
    assert one.classes == other.classes
    for split in ("train", "test"):
        a, b = getattr(one, split), getattr(other, split)
        assert a.labels.tolist() == b.labels.tolist()
        assert [a.read(i) for i in range(len(a.labels))] == [b.read(i) for i in range(len(b.labels))]


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(photographs, three, workers):
    assert same(batches(small(photographs, workers=workers), 5), three[:5])


def test_a_batch_is_a_function_of_seed_and_step(photographs, three):
    assert same(batches(small(photographs), 2, step=5), three[5:])


def test_two_processes_share_a_batch(photographs, three):
    halves = [batches(small(photographs), 3, process=process, processes=2) for process in range(2)]
    for whole, first, second in zip(three, *halves, strict=False):
        assert np.array_equal(whole.pixels, np.concatenate([first.pixels, second.pixels]))
        assert np.array_equal(whole.labels, np.concatenate([first.labels, second.labels]))


def test_an_epoch_visits_every_image_once_and_the_next_in_another_order(photographs, three):
    labels = np.concatenate([batch.labels for batch in three])
    first, second = labels[:48], labels[48:96]
    assert sorted(first) == sorted(second) == [0] * 24 + [1] * 24
    assert first.tolist() != second.tolist()
    assert len(np.unique([batch.pixels.mean() for batch in three])) == 7


def test_crops_differ_between_epochs(photographs):
    data = small(photographs, flip=False)
    photos = find_images(data).train
    boxes = [random_box(150, 200, data, np.random.default_rng(seed)) for seed in range(2)]
    assert boxes[0] != boxes[1]
    assert photos.name(0).endswith("n02000001_0.JPEG")


@pytest.mark.parametrize(("rule", "filter"), [("pillow-nearest", Image.Resampling.NEAREST),
                                              ("pillow-bicubic", Image.Resampling.BICUBIC)])
def test_training_crops_are_resized_by_the_rule_of_the_run(photographs, rule, filter):
    """From all pixels of a JPEG, which is only decoded at a reduced size to average over areas."""
    data = small(photographs, size=32, shorter_side=(32, 40), flip=False, resize=rule)
    files = find_images(data).train
    for index in range(3):
        whole = Image.open(BytesIO(files.read(index))).convert("RGB")
        box = random_box(whole.height, whole.width, data, np.random.default_rng(index))
        top, left, tall, wide = map(round, box)
        right = np.asarray(whole.crop((left, top, left + wide, top + tall)).resize((32, 32), filter)).astype(int)
        seen = training_example(files, data, index, np.random.default_rng(index)).pixels
        assert np.abs(seen - right).max() <= 1


def test_statistics_are_those_of_the_centre_crops_and_are_kept(photographs, monkeypatch):
    data = small(photographs)
    photos = find_images(data)
    found = measure_statistics(photos.train, data)
    crops = []
    for encoded in map(photos.train.read, range(len(photos.train.labels))):
        sides = decode(encoded, "").shape[:2]  # as stated; a JPEG that is decoded at 3/8 has another aspect ratio
        height, width = (max(80, round(80 * side / min(sides))) for side in sides)
        crops.append(centre_crop(resize(decode(encoded, "", least=80), height, width), 64, 64))
    crops = np.stack(crops)
    np.testing.assert_allclose(found.mean, crops.mean(0), rtol=1e-6)
    covariance = np.cov(crops.reshape(-1, 3).T, bias=True)
    np.testing.assert_allclose(found.colours @ found.colours.T, covariance, rtol=1e-4)
    monkeypatch.setattr("resjax.data.statistics.sum_over_images", None)
    again = measure_statistics(photos.train, data)
    assert np.array_equal(found.mean, again.mean)
    with pytest.raises(TypeError):  # another crop is another mean
        measure_statistics(photos.train, replace(data, size=72))


def test_shared_memory_is_given_back_as_soon_as_it_is_copied():
    """Left to Grain, a thread of its and Python's collector close it both, and what then fails leaks."""
    shared = SharedMemoryArray((2, 3), np.uint8)
    shared[:] = 7
    shared.unlink_on_del()
    copy = copy_out(shared)
    with pytest.raises(FileNotFoundError):
        SharedMemory(shared.shm.name)
    del shared
    assert type(copy) is np.ndarray
    assert copy.tolist() == [[7, 7, 7]] * 2


def test_a_closed_stream_leaves_no_semaphores_to_pythons_collector(photographs):
    """Where a collection began in Python's tracker of resources, each of Grain's was told as an ignored exception."""

    def semaphores():
        return {id(thing) for thing in gc.get_objects() if issubclass(type(thing), SemLock)}

    run = small(photographs, workers=2)
    before = semaphores()
    with training_batches(find_images(run).train, run, SEEDS, 16, range(5)) as stream:
        next(stream)
        assert len(semaphores() - before) > 10
        gc.disable()
    try:
        assert len(semaphores() - before) <= 2  # a pool of threads of Grain's stays for all streams
    finally:
        gc.enable()


def test_a_stream_goes_on_while_others_are_opened_and_closed(photographs, three):
    """As a training does while it is evaluated."""
    run = small(photographs, workers=1)
    photos = find_images(run).train
    with training_batches(photos, run, SEEDS, 16, range(7)) as outer:
        found = [next(outer)]
        for _ in range(2):
            with training_batches(photos, run, SEEDS, 16, range(9)) as inner:
                next(inner)
            found += [next(outer), next(outer)]
    assert same(found, three[:5])


def test_statistics_are_the_same_for_any_number_of_workers(photographs, monkeypatch, tmp_path):
    found = []
    for workers in (0, 2):
        monkeypatch.setenv("RESJAX_CACHE", str(tmp_path / str(workers)))
        data = small(photographs, workers=workers)
        found.append(measure_statistics(find_images(data).train, data))
    assert same([found[0]], [found[1]])


@pytest.fixture
def copy(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "copy")
    return tmp_path / "copy"


def link_to_nothing(file):
    file.unlink()
    file.symlink_to("gone.JPEG")


def folder(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("spoil", [lambda file: file.write_bytes(file.read_bytes()[:1000]), link_to_nothing, folder],
                         ids=["cut", "a link to nothing", "a folder"])
def test_an_unreadable_image_is_marked_and_the_next_takes_its_place(copy, spoil):
    data = small(copy, flip=False)
    photos = find_images(data)
    spoil(Path(photos.train.name(5)))
    found = batches(data, 3)
    broken = np.concatenate([batch.broken for batch in found])
    assert sorted(broken) == [-1] * 47 + [5]
    assert np.isfinite(measure_statistics(photos.train, data).mean).all()
    with pytest.raises(BadInput, match=f"1 images .* data.broken-images allows 0: {photos.train.name(5)}"):
        measure_statistics(photos.train, replace(data, broken_images=0))  # although the mean is known already


def test_statistics_are_measured_anew_where_other_images_have_the_old_names(copy):
    data = small(copy)
    photos = find_images(data).train
    measure_statistics(photos, data)
    for colour in ((10, 20, 30), (200, 90, 40)):  # the second time, not even the size of a file changes
        for index in range(len(photos.labels)):
            Image.new("RGB", (100, 90), colour).save(photos.name(index), "bmp")  # whatever the name says
        after = measure_statistics(find_images(data).train, data)
        np.testing.assert_array_equal(after.mean, np.broadcast_to(np.float32(colour), (64, 64, 3)))
        assert np.abs(after.colours).max() < 0.01  # one colour varies along no axis


def test_a_training_whose_images_are_all_gone_ends(copy):
    data = small(copy, broken_images=3)
    photos = find_images(data)
    for name in photos.train.names:
        (copy / "folders" / "train" / os.fsdecode(name)).unlink()
    gone = "|".join(photos.train.name(index) for index in range(len(photos.train.labels)))
    with pytest.raises(BadInput, match=f"({gone}) and the images after it are unreadable, 5 in a row"), \
            training_batches(photos.train, data, (1, 2), 16, range(3)) as found:
        next(found)


@pytest.mark.parametrize("damage", [
    lambda root: shutil.rmtree(root / "folders" / "val"),
    lambda root: shutil.rmtree(root / "folders" / "val" / "n02000002"),
    lambda root: [file.unlink() for file in (root / "folders" / "train" / "n02000001").iterdir()],
    lambda root: shutil.rmtree(root / "folders")], ids=["no val", "a class less", "an empty class", "nothing"])
def test_wrong_folders_are_named(copy, damage):
    damage(copy)
    with pytest.raises(BadInput, match="folders"):
        find_images(small(copy))


@pytest.mark.parametrize(("name", "damage"), [
    (TRAIN, lambda file: file.unlink()), (VALIDATION, lambda file: file.unlink()), (DEVKIT, lambda file: file.unlink()),
    (TRAIN, lambda file: flip(file, 150)), (DEVKIT, lambda file: file.write_bytes(file.read_bytes()[:300])),
    (VALIDATION, lambda file: file.write_bytes(b""))],
    ids=["no train", "no val", "no devkit", "a byte", "half a devkit", "empty val"])
def test_wrong_archives_are_named(copy, name, damage):
    damage(copy / "tars" / name)
    with pytest.raises(BadInput, match=name.replace(".", r"\.")):
        find_images(small(copy, "tars"))


@pytest.mark.parametrize(("changes", "message"), [
    ({"source": "digits"}, "'folder:PATH', 'tars:PATH' or 'tfds:NAME'"),
    ({"source": "tars:"}, "must follow the colon: 'tars:PATH'"),
    ({"size": 16}, "data.size is 16"), ({"shorter_side": (300, 200)}, "data.shorter-side"),
    ({"shorter_side": (100, 300)}, "data.shorter-side"), ({"test_shorter_side": 200}, "data.test-shorter-side is 200"),
    ({"colour_noise": -1.0}, "data.colour-noise"), ({"workers": -1}, "data.workers"),
    ({"broken_images": -1}, "data.broken-images")])
def test_wrong_values_are_refused(changes, message):
    with pytest.raises(BadInput, match=message):
        Photographs(**changes)
