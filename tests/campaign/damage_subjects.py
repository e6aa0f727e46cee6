"""What `damage.py` damages: folders that resjax writes or reads, made once, and the commands that read each."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from campaign import kills, mutations
from networks import random_network
from photographs import write_archives, write_folders, write_prepared
from PIL import Image

import resjax
from resjax import Photographs, models
from resjax.console.command_line import execute
from resjax.data import find_images, measure_statistics
from resjax.detection import Detection, Detector, Sampling, Scenery, train_detector
from resjax.detection.images import open_annotated
from resjax.weights.files import read_tensors

Command = Callable[[Path], Any]


class Subject(NamedTuple):
    """A folder; its commands, each of which returns what it found; files whose bits a digest vouches for."""

    folder: Path
    commands: dict[str, Command]
    sealed: tuple[str, ...] = ()
    kinds: Callable[[str], str] = str


def typed(*arguments: str) -> Command:
    """Type a command; `PLACE` stands for the folder. What it prints is its answer."""
    return lambda place: execute([argument.replace("PLACE", str(place)) for argument in arguments])


def trained(command: Command, place: Path) -> Any:
    """Train, and return what the run has come to."""
    command(place)
    found = kills.end_of_runs(place)
    return found["log"], found["results"]


def exported(command: Command, place: Path) -> Any:
    """Export, and return what lies there."""
    command(place)
    return kills.contents(place / "out")


def shown(place: Path) -> Any:
    """Report, and return the parts of the page: one may be replaced by what is wrong with it."""
    execute(["report", str(place)])
    return (place / "report.html").read_text().split("<section>")


def kind_of_checkpoint_file(name: str) -> str:
    """Take two files that a checkpoint has many of for one."""
    parts = Path(name).parts
    return "/".join(parts[:-1]) if len(parts) > 1 and parts[-2] == "d" else name


def runs(folder: Path) -> dict[str, Subject]:
    """Two finished runs with their table, and one that was cut off."""
    known = kills.scenarios(folder)  # it makes the runs
    table = ["reproduce", "table6", "--seeds", "1", "--only", "plain20,resnet20", "--experiments", str(folder)]
    cut = folder / "cut"
    if not cut.exists():
        whole = folder / "whole"
        whole.mkdir()
        execute(known["train"].command(whole))
        shutil.move(whole, cut)
        shutil.rmtree(cut / "run" / "checkpoints" / "8")
        (cut / "run" / "result.json").unlink()
    run, picture = "PLACE/resnet20/seed0", folder / "digit.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(picture)
    finished = {
        "evaluate": typed("evaluate", run), "predict": typed("predict", run, str(picture)),
        "export": partial(exported, typed("export", run, "--to", "stablehlo", "--out", "PLACE/out")),
        "train": typed("train", f"{folder}/cifar10.py:resnet20", "--workdir", run, "--evaluate-test"),
        "report": shown, "reproduce": typed(*table, "--runs", "PLACE")}
    goes_on = partial(trained, typed("train", f"{folder}/cifar10.py:smallest", "--workdir", "PLACE/run"))
    return {
        "finished run": Subject(folder / "source", finished, ("resnet20/seed0/checkpoints/8/",),
                                kind_of_checkpoint_file),
        "cut run": Subject(cut, {"train": goes_on, "evaluate": typed("evaluate", "PLACE/run")},
                           ("run/checkpoints/6/",), kind_of_checkpoint_file)}


def weights(folder: Path) -> dict[str, Subject]:
    """An export with its description, and files of weights of every kind."""
    out, honest, picture = folder / "export", folder / "honest", folder / "picture.png"
    if not out.exists():
        resjax.export(random_network(depth=20, mean_image=True), "akamaster", out)
        honest.mkdir()
        with patch.object(models, "cifar_resnet", kills.REAL):  # the runs beside these have far smaller ones
            kept = mutations.honest_files(honest)
        shutil.rmtree(honest / "whole")
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(picture)
        assert all(file.exists() for file in kept)
    again = typed("export", "PLACE", "--to", "akamaster", "--out", "PLACE/out")
    commands = {"predict": typed("predict", "PLACE", str(picture)), "export": partial(exported, again)}
    read = {f"load {file.name}": partial(lambda name, place: sorted(
        (key, sha256(np.ascontiguousarray(value).tobytes()).hexdigest())
        for key, value in read_tensors(place / name).items()), file.name)
        for file in sorted(honest.iterdir()) if file.suffix}
    return {"export": Subject(out, commands, ("model.safetensors", "mean.npy")), "weights": Subject(honest, read)}


def sets(folder: Path) -> dict[str, Subject]:
    """A prepared set, what is kept of it, and a run on it."""
    place = folder / "prepared"
    if not place.exists():
        place.mkdir()
        execute(["prepare", "cifar10", "--directory", str(place), "--archive", str(folder / "cifar-10-binary.tar.gz")])
        with_cache(place, typed(*on_prepared(folder), "--data.directory", "PLACE"))
        shutil.rmtree(place / "run")
    train = partial(with_cache, command=partial(trained, typed(*on_prepared(folder), "--data.directory", "PLACE")))
    return {"prepared set": Subject(place, {"train": train})}


def on_prepared(folder: Path) -> tuple[str, ...]:
    """Type a training on the prepared set."""
    return ("train", f"{folder}/cifar10.py:smallest", "--workdir", "PLACE/run", "--data.source", "tfds:cifar10")


def with_cache(place: Path, command: Command) -> Any:
    """Give a command while decoded images are kept in the folder."""
    before = os.environ["RESJAX_CACHE"]
    os.environ["RESJAX_CACHE"] = str(place / "cache")
    try:
        return command(place)
    finally:
        os.environ["RESJAX_CACHE"] = before


def detectors(folder: Path) -> dict[str, Subject]:
    """Pictures with boxes, and a detector's finished run."""
    place, pictures = folder / "detector", folder / "pictures"
    if not pictures.exists():
        write_pictures(pictures)
    detection = Detection(
        name="squares", steps=1, batch_size=2, log_steps=1, evaluate_steps=100, checkpoint_steps=100,
        detector=Detector(backbone="tiny", anchor_sizes=(12.0, 24.0), anchor_ratios=(1.0,), rpn_channels=16,
                          frozen_batch_norm=False, ghost_batch_size=1),
        sampling=Sampling(anchors=32, smallest=4.0, train_candidates=60, train_proposals=20, test_candidates=60,
                          test_proposals=12, rois=8),
        data=Scenery(source=f"voc:{pictures}", train=("all",), test=("all",), shorter_side=48, longer_side=64))
    if not place.exists():
        train_detector(detection, place / "run")
    commands: dict[str, Command] = {
        "detect": typed("detect", "PLACE/run", str(pictures / "JPEGImages/0.jpg"), "--out", "PLACE/out"),
        "train": lambda place: train_detector(detection, place / "run")["state_digest"]}
    listed = {"open": lambda place: [
        (record.name, record.boxes.tolist()) for record in
        open_annotated(Scenery(source=f"voc:{place}", train=("all",), test=("all",)), train=True).records]}
    return {"detector": Subject(place, commands, ("run/checkpoints/1/",), kind_of_checkpoint_file),
            "annotations": Subject(pictures, listed)}


def write_pictures(root: Path) -> None:
    """Write two pictures with a square each, in VOC's layout."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for number in range(2):
        pixels = np.full((48, 64, 3), 40, np.uint8)
        pixels[10:30, 12:34] = 200
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{number}.jpg")
        box = "<bndbox><xmin>13</xmin><ymin>11</ymin><xmax>34</xmax><ymax>30</ymax></bndbox>"
        (root / "Annotations" / f"{number}.xml").write_text(
            "<annotation><size><width>64</width><height>48</height></size>"
            f"<object><name>square</name>{box}</object></annotation>")
    (root / "ImageSets/Main/all.txt").write_text("0\n1\n")


def photographs(folder: Path) -> dict[str, Subject]:
    """Photographs in archives and in a prepared set, with what is kept of each: its index, and the mean image."""
    place, source = folder / "photographs", folder / "jpegs"
    found = {"find tars": partial(with_cache, command=partial(found_and_measured, "tars:PLACE/tars")),
             "find tfds": partial(with_cache, command=partial(found_and_measured, "tfds:photos"))}
    if not place.exists():
        place.mkdir()
        write_folders(source, images=4)
        write_archives(source, place / "tars")
        write_prepared(source, place / "tfds")
        for command in found.values():
            command(place)
    return {"photographs": Subject(place, found, ("cache/data/",))}


def found_and_measured(source: str, place: Path) -> Any:
    """Find photographs, and measure their mean image."""
    data = Photographs(source=source.replace("PLACE", str(place)), directory=place / "tfds", size=32, workers=0,
                       shorter_side=(32, 40), test_shorter_side=32)
    images = find_images(data)
    measured = measure_statistics(images.train, data)
    digests = [sha256(part.tobytes()).hexdigest() for part in measured]
    return [(files.names.tolist(), files.labels.tolist()) for files in (images.train, images.test)], digests


SUBJECTS = (runs, weights, sets, detectors, photographs)
