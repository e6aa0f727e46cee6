"""Lists images in folders, with one folder per class."""

import os
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from resjax.data.classes import composed
from resjax.data.decode import EXTENSIONS
from resjax.data.image_files import ImageFiles
from resjax.system.errors import BadInput, check
from resjax.system.files import stamp_of

SYSTEMS = {"__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN"}
SPLITS = ("train", "test", "val", "valid", "validation")  # common names of split folders


@dataclass(frozen=True)
class FileReader:
    """Reads `root/name`."""

    root: Path
    names: np.ndarray

    def __call__(self, index: int) -> bytes:
        return (self.root / os.fsdecode(self.names[index])).read_bytes()

    def head(self, index: int, size: int) -> bytes:
        with (self.root / os.fsdecode(self.names[index])).open("rb") as stream:
            return stream.read(size)

    def sizes(self) -> np.ndarray:
        """Return the sizes of the files; -1 if one cannot be read."""
        sizes: np.ndarray = self.asked_for[:, 0]
        return sizes

    def stamps(self) -> np.ndarray:
        return self.asked_for

    @cached_property
    def asked_for(self) -> np.ndarray:
        """Ask for the size and time of every file once, because the mean image and the run's identity need them."""
        paths = (os.path.join(os.fsencode(self.root), name) for name in self.names)
        return np.array([stamp_of(path) for path in paths], np.int64).reshape(-1, 2)


def existing(root: Path) -> Path:
    """Return a folder. Raises BadInput if it does not exist."""
    check(root.is_dir(), f"{root}: no such folder; folder:PATH must contain one folder per class")
    return root


def class_folders(root: Path) -> dict[str, str]:
    """Map class names, in alphabetical order, to folders. Hidden folders and the operating system's are left out.

    Names are in the composed form (NFC) that most systems write. Raises BadInput for fewer than two folders, or for two
    folders with the same name.
    """
    pairs = sorted((composed(path.name), path.name) for path in root.iterdir()
                   if path.is_dir() and not is_hidden(path.name))
    there = f"; {pairs[0][1]!r} is the only one" if pairs else ", which contains the images of that class"
    check(len(pairs) >= 2, f"{root}: {len(pairs)} class folders; there must be at least two, one folder per class"
                           + there)
    folders = dict(pairs)
    twice = next((name for (name, _), (same, _) in pairwise(pairs) if name == same), None)
    check(twice is None, f"{root}: two folders are named {twice!r}, in different Unicode forms; merge them")
    return folders


def class_names(root: Path) -> tuple[str, ...]:
    """List the class names; see `class_folders`."""
    return tuple(class_folders(root))


def is_hidden(name: str) -> bool:
    """Return whether a file belongs to the operating system, such as `.DS_Store`, `__MACOSX` or `@eaDir`."""
    return name.startswith((".", "@")) or name in SYSTEMS


def list_classes(root: Path, classes: tuple[str, ...]) -> tuple[ImageFiles, str]:
    """List the images in all class folders, by name, with a remark about other files.

    Every file with an image's extension counts, even a broken link, so that nothing is silently left out.
    """
    names: list[str] = []
    labels: list[int] = []
    others: list[str] = []
    inner: list[str] = []
    folders = class_folders(root)
    for label, folder in enumerate(folders[name] for name in classes):
        content = sorted(name for name in os.listdir(root / folder) if not is_hidden(name) and name != "Thumbs.db")
        files = [name for name in content if name.lower().endswith(EXTENSIONS)]
        if not files:
            raise BadInput(f"{root / folder}: the class folder contains no images{instead(root / folder, content)}")
        names += [f"{folder}/{name}" for name in files]
        labels += [label] * len(files)
        for name in sorted(set(content) - set(files)):
            (inner if (root / folder / name).is_dir() else others).append(f"{folder}/{name}")
    encoded = np.array([os.fsencode(name) for name in names])
    remarks = []
    if others:
        remarks.append(f"{root}: ignored {len(others)} files without the extension of an image, such as {others[0]}")
    if inner:
        remarks.append(f"{root}: ignored {len(inner)} folders inside class folders, such as {inner[0]}")
    if all(name.isdecimal() for name in classes) and sorted(classes, key=int) != list(classes):
        remarks.append(f"{root}: the classes are sorted by name as text, not as numbers: {', '.join(classes[:5])} ...")
    listed = ImageFiles(encoded, np.array(labels, np.int32), FileReader(root, encoded), f"{root}/")
    return listed, "; ".join(remarks)


def instead(folder: Path, content: list[str]) -> str:
    """Describe what a class folder without images contains, and suggest what to do."""
    inner = next((name for name in content if (folder / name).is_dir()), None)
    if inner is None:
        return " (.jpg, .png, or another extension that Pillow knows)"
    if folder.name.lower() in SPLITS:
        return f"; it contains the folder {inner!r}; name a split train, test or val, in lower case"
    return f"; it contains the folder {inner!r}; move the images up, out of it"
