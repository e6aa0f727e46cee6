"""Commands that apply a trained network to images: name what is in them, find objects."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from resjax.console.networks import NOTHING_SAID, load_as
from resjax.console.networks import Asked as Told
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
    """Files of what is found; - stands for standard output, in place of words."""

    json: Target = None
    """Also write the boxes, in pixels, to this file; - prints JSON instead of words."""
    csv: Target = None
    """Also write the objects to this file, one line each; - prints CSV instead of words."""
    coco: Path | None = None
    """Also write the boxes to this file in COCO's results format, for pycocotools and COCO's server. With --score 0,
    all boxes are written."""
    annotations: Path | None = None
    """The COCO annotation file that --coco belongs to: its ids of images and classes are used. Without it, both count
    from 1."""


def predict(
    network: Annotated[str, tyro.conf.Positional],
    images: Pictures,
    top: int = 5,
    json: Target = None,
    csv: Target = None,
    weights: Told = NOTHING_SAID,
) -> None:
    """Name the likeliest classes of images.

    An image that cannot be read is named, and the others are classified.

    Args:
        network: A run directory, weights (a file, or a folder with one), OWNER/NAME on the Hugging Face Hub, or
            one that comes with resjax, such as resnet20.
        images: Image files of any size, and folders of them; the centre is brought to the network's size.
        top: How many classes to name for each image.
        json: Also write the classes to this file; - prints JSON instead of words.
        csv: Also write the classes to this file, one line each; - prints CSV instead of words.
        weights: What a file of weights cannot say.
    """
    check(top >= 1, f"top is {top}; it must be at least 1")
    with working("loading"):
        from resjax.data.pictures import find_pictures

        files = find_pictures(images)
    check_results((json, csv), files)
    found = look_at_all(*load_as(network, weights), files, Asked(top=top), (json, csv))
    if len(found) < len(files):
        sys.exit(1)


def detect(
    network: Annotated[str, tyro.conf.Positional],
    images: Pictures,
    out: Path = Path("detections"),
    score: float = 0.5,
    files: tyro.conf.OmitArgPrefixes[Written] = Written(),
) -> None:
    """Find objects in images, and draw them.

    The objects are printed, and their boxes drawn into copies of the images. An image that cannot be read is named, and
    the others are searched.

    Args:
        network: A detector's run directory; `resjax train scenes` makes one without a download.
        images: Image files of any size, and folders of them.
        out: The folder of the images with boxes, each named like its file.
        score: The lowest score that counts, 0 to 1.
        files: Where else to write what is found.
    """
    check(0 <= score <= 1, f"score is {score}; it lies in [0, 1]")
    check(files.coco is not None or files.annotations is None, "annotations gives --coco its numbers: name both")
    with working("loading"):
        from resjax.data.pictures import find_pictures
        from resjax.detection.detections import numbers_of, write_results

        pictures = find_pictures(images)
    check_drawings(pictures, out)
    check_results((files.json, files.csv, files.coco), pictures)
    kind, loaded = load_as(network, NOTHING_SAID)
    check(files.coco is None or "x1" in kind.FOUND, f"{network} is a {kind.NOUN}, which finds no boxes for --coco")
    numbers = None if files.coco is None else numbers_of(files.annotations, pictures, loaded.classes)
    found = look_at_all(kind, loaded, pictures, Asked(score=score, out=out), (files.json, files.csv))
    if files.coco is not None and numbers is not None:
        write_results(files.coco, [(file, seen.found) for file, seen in found], numbers)
    if len(found) < len(pictures):
        sys.exit(1)


def saliency(
    network: Annotated[str, tyro.conf.Positional],
    images: Pictures,
    of: str | None = None,
    out: Path = Path("saliency"),
    weights: Told = NOTHING_SAID,
) -> None:
    """Draw which pixels a class's logit depends on.

    The map is drawn beside each image: the gradient of the logit with respect to the pixels (Simonyan et al. 2014).

    Args:
        network: A run directory, weights (a file, or a folder with one), OWNER/NAME on the Hugging Face Hub, or
            one that comes with resjax, such as resnet20.
        images: Image files of any size, and folders of them; the centre is brought to the network's size.
        of: The name of the class whose logit is explained; by default the likeliest class of each image.
        out: The folder to draw into; each file is named like its image.
        weights: What a file of weights cannot say.
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
    """Raise BadInput where two images would be drawn into one file, or an image would be replaced by its drawing."""
    twice = next((name for name, times in Counter(file.stem for file in files).items() if times > 1), None)
    check(twice is None, f"two images have the same name, {twice}, and would be drawn into one file")
    check(out.is_dir() or not out.exists(), f"--out {out} is no folder")
    check_kept([out / f"{file.stem}.png" for file in files], files)


def check_results(targets: Sequence[str | Path | None], files: Sequence[Path]) -> None:
    """Raise BadInput, before any image is looked at, where results cannot be written or would replace another file."""
    places = [Path(target) for target in targets if target is not None]
    twice = next((place for place, times in Counter(places).items() if times > 1), None)
    check(twice is None, f"two results would be written to {twice}: name a file for each")
    for place in places:
        check(str(place) == STANDARD_OUTPUT or regular(place).parent.is_dir(), f"{place}: there is no such folder")
    check_kept(places, files)


def check_kept(places: Sequence[Path], files: Sequence[Path]) -> None:
    """Raise BadInput where one of the images would be written over."""
    images = {file.resolve() for file in files}
    lost = next((place for place in places if place.resolve() in images), None)
    check(lost is None, f"{lost} is one of the images, and would be written over: name another file or --out")


def look_at_all(kind: Kind, loaded: Any, files: Sequence[Path], asked: Asked,
                to: tuple[str | None, str | None]) -> list[tuple[Path, Seen]]:
    """Say what is in each image, one after the other, and return it; those that cannot be read are named."""
    tell(wrapped(harmless(f"{kind.title_of(loaded)} knows {kind.knows(loaded)}"), room(sys.stderr)))
    found: list[tuple[Path, Seen]] = []
    for file in track(files, f"images through {kind.title_of(loaded)}", len(files)):
        try:
            seen = kind.look(loaded, file, asked)
        except BadInput as error:
            tell(f"resjax: {harmless(str(error))}")
            continue
        found.append((file, seen))
        for line in seen.lines if STANDARD_OUTPUT not in to else ():
            say(wrapped(harmless(line), room(sys.stdout), 4))
    rows = [(harmless(str(file)), *values) for file, seen in found for values in seen.found]
    for place, text in zip(to, (as_json(kind, found), as_csv(("file", *kind.FOUND), rows)), strict=True):
        if place == STANDARD_OUTPUT:
            say(text.rstrip())
        elif place is not None:
            write_text(Path(place), text)
    return found


def as_json(kind: Kind, found: Sequence[tuple[Path, Seen]]) -> str:
    """Write a list of objects: the file, and a list of what was found in it."""
    return json.dumps([{"file": harmless(str(file)), "found": [
        dict(zip(kind.FOUND, values, strict=True)) for values in seen.found]} for file, seen in found], indent=1) + "\n"
