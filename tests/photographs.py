"""Real photographs in ImageNet's layout, a few: as folders, as its official archives, as a prepared TFDS set."""

import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_sample_images

from resjax.data.archives import CLASSES, DEVKIT, TRAIN, TRUTH, VALIDATION
from resjax.data.prepared import quiet_absl

WNIDS = ("n02000001", "n02000002")
SIZES = ((150, 200), (200, 150), (300, 400))


def write_folders(root: Path, images: int = 24) -> None:
    """Crop scikit-learn's two photographs at random: `root/train/CLASS/*.JPEG`, `root/val/CLASS/*.JPEG`."""
    random = np.random.default_rng(0)
    number = 0
    for split, count in (("train", images), ("val", images // 2)):
        for label, photograph in enumerate(load_sample_images().images):
            folder = root / split / WNIDS[label]
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = SIZES[i % len(SIZES)]
                top, left = (random.integers(0, most + 1) for most in (427 - height, 640 - width))
                crop = Image.fromarray(photograph[top:top + height, left:left + width])
                number += 1
                name = f"{WNIDS[label]}_{i}.JPEG" if split == "train" else f"ILSVRC2012_val_{number * 7 % 1000:08}.JPEG"
                crop.save(folder / name, quality=90)


def write_archives(folders: Path, root: Path) -> None:
    """Put the same images into archives as ImageNet's are."""
    root.mkdir()
    with tarfile.open(root / TRAIN, "w") as outer:
        for folder in sorted((folders / "train").iterdir(), reverse=True):
            inner = BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for file in sorted(folder.iterdir(), reverse=True):
                    tar.add(file, file.name)
            add(outer, f"{folder.name}.tar", inner.getvalue())
    validation = sorted((folders / "val").glob("*/*"), key=lambda file: file.name)
    with tarfile.open(root / VALIDATION, "w") as tar:
        for file in reversed(validation):
            tar.add(file, file.name)
    ids = {WNIDS[0]: 2, WNIDS[1]: 1}  # ImageNet's own numbers are in another order than the classes' names
    kinds = [("ILSVRC2012_ID", "i4"), ("WNID", "O"), ("num_children", "i4")]
    synsets = np.array([(ids[name], name, 0) for name in WNIDS] + [(3, "n00000009", 2)], kinds)
    meta = BytesIO()
    savemat(meta, {"synsets": synsets})
    truth = "".join(f"{ids[file.parent.name]}\n" for file in validation)
    with tarfile.open(root / DEVKIT, "w:gz") as tar:
        add(tar, CLASSES, meta.getvalue())
        add(tar, TRUTH, truth.encode())


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, BytesIO(content))


class Photos(tfds.core.GeneratorBasedBuilder):
    """The same images as a TFDS set, whose records are in an order of their own."""

    VERSION = tfds.core.Version("1.0.0")
    folders: Path

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
            "image": tfds.features.Image(encoding_format="jpeg"), "file_name": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=WNIDS)}))

    def _split_generators(self, manager):
        return {"train": self._generate_examples("train"), "validation": self._generate_examples("val")}

    def _generate_examples(self, split):
        for file in sorted((self.folders / split).glob("*/*")):
            yield file.name, {"image": file.read_bytes(), "file_name": file.name, "label": file.parent.name}


def write_prepared(folders: Path, root: Path) -> None:
    Photos.folders = folders
    with quiet_absl():
        Photos(data_dir=root, file_format="array_record").download_and_prepare()
