"""Commands that apply a trained network to images, to classify them, detect objects or explain predictions."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path
from typing import Annotated, Any

import tyro

from resjax.console.networks import NOTHING_SAID, load_as
from resjax.console.networks import Asked as AskedWeights
from resjax.system.errors import BadInput, check
from resjax.system.files import as_csv, regular, write_text
from resjax.system.progress import track, working
from resjax.system.terminal import harmless, room, say, tell, wrapped
from resjax.training.kinds import Asked, Kind, Seen

Pictures = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE ...", help_behavior_hint="")]
Target = Annotated[str | None, tyro.conf.arg(metavar="FILE")]
STANDARD_OUTPUT = "-"


@dataclass(frozen=True)
class Written:
    """Files to write. If a file is -, its content is printed instead of the usual text."""

    json: Target = None
    """Also write the objects, with their boxes in pixels, to this file as JSON. If the file is -, print the JSON
    instead of the usual output."""
    csv: Target = None
    """Also write the objects to this file as CSV, one per line. If the file is -, print the CSV instead of the
    usual output."""
    coco: Path | None = None
    """Also write the boxes to this file in COCO's results format, for pycocotools and COCO's evaluation server. To
    include boxes with low scores, add --score 0."""
    annotations: Path | None = None
    """The COCO annotation file from which --coco takes the ids of images and classes. Without this file, images and
    classes are numbered from 1."""


def predict(
    network: Annotated[str, tyro.conf.Positional],
    images: Pictures,
    top: int = 5,
    json: Target = None,
    csv: Target = None,
    weights: AskedWeights = NOTHING_SAID,
) -> None:
    """Predict the classes of images.

    If an image cannot be read, an error is printed, and the other images are still classified.

    Args:
        network: A run directory, a weights file or its folder, OWNER/NAME on the Hugging Face Hub, or a network that
            comes with resjax, such as resnet20.
        images: Image files and folders of images. Each image is resized and centre-cropped to the network's input
            size.
        top: The number of classes to print for each image.
        json: Also write the classes and their probabilities to this file as JSON. If the file is -, print the JSON
            instead of the usual output.
        csv: Also write the classes and their probabilities to this file as CSV, with one line per image and class. If
            the file is -, print the CSV instead of the usual output.
        weights: Details that some weights files do not state.
    """
    check(top >= 1, f"top is {top}; it must be at least 1")
    with working("loading"):
        from resjax.data.pictures import find_pictures

        files = find_pictures(images)
    check_results((json, csv), files)
    answers = look_at_all(*load_as(network, weights), files, Asked(top=top), (json, csv))
    if len(answers) < len(files):
        sys.exit(1)


def detect(
    network: Annotated[str, tyro.conf.Positional],
    images: Pictures,
    out: Path = Path("detections"),
    score: float = 0.5,
    files: tyro.conf.OmitArgPrefixes[Written] = Written(),
) -> None:
    """Detect objects in images and draw their boxes.

    The command prints the objects and draws their boxes on copies of the images.

    If an image cannot be read, an error is printed, and the other images are still processed.

    Args:
        network: The run directory or the exported folder of a detector, or bccd, which comes with resjax and detects
            blood cells.
        images: Image files and folders of images.
        out: The folder for the copies with boxes. The copy of photo.jpg is named photo.png.
        score: The minimum score of a detection, from 0 to 1.
        files: Other files to write the detections to.
    """
    check(0 <= score <= 1, f"score is {score}; it must be in [0, 1]")
    check(files.coco is not None or files.annotations is None, "--annotations only affects --coco; give both")
    with working("loading"):
        from resjax.data.pictures import find_pictures
        from resjax.detection.detections import numbers_of, write_results

        pictures = find_pictures(images)
    check_drawings(pictures, out)
    check_results((files.json, files.csv, files.coco), pictures)
    kind, loaded = load_as(network, NOTHING_SAID)
    check("x1" in kind.COLUMNS, f"{network} is a {kind.NOUN}; use resjax predict")
    numbers = None if files.coco is None else numbers_of(files.annotations, pictures, loaded.classes)
    answers = look_at_all(kind, loaded, pictures, Asked(score=score, out=out), (files.json, files.csv))
    if files.coco is not None and numbers is not None:
        write_results(files.coco, [(file, seen.predictions) for file, seen in answers], numbers)
    if len(answers) < len(pictures):
        sys.exit(1)


def saliency(
    network: Annotated[str, tyro.conf.Positional],
    images: Pictures,
    of: str | None = None,
    out: Path = Path("saliency"),
    weights: AskedWeights = NOTHING_SAID,
) -> None:
    """Show which pixels a prediction depends on.

    The command draws each image beside its saliency map, which shows for each pixel how large the gradient of a class's
    logit is.

    The method is from Simonyan et al. 2014 (arXiv 1312.6034).

    Args:
        network: A run directory, a weights file or its folder, OWNER/NAME on the Hugging Face Hub, or a network that
            comes with resjax, such as resnet20.
        images: Image files and folders of images. Each image is resized and centre-cropped to the network's input
            size.
        of: The name of the class whose logit is used. Defaults to the most likely class of each image.
        out: The folder for the drawings. The drawing of photo.jpg is named photo.png.
        weights: Details that some weights files do not state.
    """
    with working("loading"):
        from resjax.data.pictures import find_pictures

        files = find_pictures(images)
    check_drawings(files, out)
    kind, loaded = load_as(network, weights)
    unread = False
    for file in track(files, "drawing", len(files)):
        try:
            say(wrapped(harmless(kind.explain(loaded, file, of, out)), room(sys.stdout), 4))
        except BadInput as error:
            unread = True
            tell(f"resjax: {harmless(str(error))}")
    if unread:
        sys.exit(1)


def check_drawings(files: Sequence[Path], out: Path) -> None:
    """Raise BadInput if two drawings would have the same file name, or if a drawing would replace its image."""
    twice = next((name for name, times in Counter(file.stem for file in files).items() if times > 1), None)
    check(twice is None, f"two images have the same name, {twice}; their drawings would overwrite each other")
    check(out.is_dir() or not out.exists(), f"--out {out} is not a folder")
    check_kept([out / f"{file.stem}.png" for file in files], files)


def check_results(targets: Sequence[str | Path | None], files: Sequence[Path]) -> None:
    """Raise BadInput, before any image is processed, if results cannot be written or would replace a file."""
    places = [Path(target) for target in targets if target is not None]
    twice = next((place for place, times in Counter(places).items() if times > 1), None)
    check(twice is None, f"two results would be written to {twice}; choose a separate file for each")
    for place in places:
        check(str(place) == STANDARD_OUTPUT or regular(place).parent.is_dir(), f"{place}: its folder does not exist")
    check_kept(places, files)


def check_kept(places: Sequence[Path], files: Sequence[Path]) -> None:
    """Raise BadInput if an image would be overwritten."""
    images = {realpath(file) for file in files}  # unlike Path.resolve, realpath accepts a link that points to itself
    lost = next((place for place in places if realpath(place) in images), None)
    check(lost is None, f"{lost} is one of the images and would be overwritten; choose another file or --out")


def look_at_all(kind: Kind, loaded: Any, files: Sequence[Path], asked: Asked,
                to: tuple[str | None, str | None]) -> list[tuple[Path, Seen]]:
    """Process the images one by one, print and return the results, and report unreadable images."""
    tell(wrapped(harmless(f"{kind.title_of(loaded)} recognises {kind.knows(loaded)}"), room(sys.stderr)))
    answers: list[tuple[Path, Seen]] = []
    for file in track(files, f"images, with {kind.title_of(loaded)}", len(files)):
        try:
            seen = kind.look(loaded, file, asked)
        except BadInput as error:
            tell(f"resjax: {harmless(str(error))}")
            continue
        answers.append((file, seen))
        for line in seen.lines if STANDARD_OUTPUT not in to else ():
            say(wrapped(harmless(line), room(sys.stdout), 4))
    rows = [(harmless(str(file)), *values) for file, seen in answers for values in seen.predictions]
    for place, text in zip(to, (as_json(kind, answers), as_csv(("file", *kind.COLUMNS), rows)), strict=True):
        if place == STANDARD_OUTPUT:
            say(text.rstrip())
        elif place is not None:
            write_text(Path(place), text)
    return answers


def as_json(kind: Kind, answers: Sequence[tuple[Path, Seen]]) -> str:
    """Write a JSON list with, for each file, the file and a list of the classes or objects found in it."""
    objects = [{"file": harmless(str(file)),
                "found": [dict(zip(kind.COLUMNS, values, strict=True)) for values in seen.predictions]}
               for file, seen in answers]
    return json.dumps(objects, indent=1) + "\n"
