"""Commands that prepare data, and that check this machine's packages, devices, arithmetic and data."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from resjax.system.errors import BadInput
from resjax.system.platform import cache_directory
from resjax.system.progress import working
from resjax.system.terminal import hung, say, say_end
from resjax.system.version import __version__

TOLERANCE = 1e-4  # float32 sums of some thousand terms stay below this; a wrong kernel is off by 1e-2 or more


def prepare(
    name: Annotated[Literal["cifar10"], tyro.conf.Positional],
    directory: Path | None = None,
    archive: Path | None = None,
) -> None:
    """Download and prepare CIFAR-10 (170 MB).

    The command writes the data set in the format of TensorFlow Datasets (TFDS).

    Args:
        name: The data set.
        directory: The folder to write to. Defaults to the environment variable RESJAX_DATA or, if unset, to
            ~/tensorflow_datasets.
        archive: A local copy of the official cifar-10-binary.tar.gz. By default, the archive is downloaded.
    """
    with working("loading"):  # imported here and below, so that the help is quick
        from resjax.data import prepare_cifar10
        from resjax.data.prepared import data_directory

    folder = prepare_cifar10(data_directory(directory), archive)
    where = "" if directory is None else f" --data.directory {directory}"
    say_end(f"Wrote 50,000 training and 10,000 test images to {folder}", f"resjax train resnet20{where}")


def doctor(directory: Path | None = None) -> None:
    """Check this machine and its packages.

    The command lists package versions and devices, looks for data sets, and compares the results of float32 arithmetic
    with those of float64 arithmetic.

    The exit code is 1 if the float32 results are wrong.

    For anything optional that is missing, a note says what it is needed for.

    Args:
        directory: The folder of prepared TensorFlow Datasets. Defaults to the environment variable RESJAX_DATA or, if
            unset, to ~/tensorflow_datasets.
    """
    with working("loading JAX"):
        from resjax.data.prepared import data_directory

    passed = True
    for finding in diagnose(data_directory(directory)):
        say(hung(finding.mark, finding.text))
        passed &= finding.mark != WRONG
    say("\nNext: resjax quickstart" if passed else f"\nFirst fix the problems marked {WRONG}")
    if not passed:
        sys.exit(1)


RIGHT, MISSING, WRONG = "ok  ", "note", "FAIL"


class Finding(NamedTuple):
    """One line of the report. For a failed check, the text says what is affected and what to do."""

    mark: str
    text: str


def diagnose(directory: Path) -> Iterator[Finding]:
    """Yield the findings one by one; data sets are looked up in `directory`."""
    import jax

    from resjax.console.arithmetic import arithmetic
    from resjax.data.prepared import find_prepared
    from resjax.models.convolutions import convolutions_of

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets")
    yield Finding(RIGHT, f"resjax {__version__}, " + ", ".join(f"{name} {version(name)}" for name in packages))
    with working("starting the devices"):
        devices = jax.devices()
    yield Finding(RIGHT, f"{len(devices)} x {devices[0].device_kind}; XLA_FLAGS={os.environ.get('XLA_FLAGS', '')}")
    convolutions = convolutions_of(devices[0].platform)
    slower = convolutions.startswith("XLA (")
    yield Finding(MISSING if slower else RIGHT, f"convolutions by {convolutions}"
                  + ("; oneDNN would be twice as fast on this CPU" if slower else ""))
    with working("checking the arithmetic"):
        errors = arithmetic()
    for name, error in errors.items():
        right = error < TOLERANCE
        yield Finding(RIGHT if right else WRONG, f"{name}: relative error {error:.1e} against float64"
                      + ("" if right else f", which is above {TOLERANCE:g}; try another version of jaxlib"))
    yield Finding(RIGHT, "digits: 1,797 images, included")
    for name, used in (("cifar10", "Table 6"), ("imagenet2012", "Tables 2 to 5, unless folder:PATH or tars:PATH")):
        try:
            yield Finding(RIGHT, f"{name}: {find_prepared(name, directory)}")
        except BadInput as error:
            yield Finding(MISSING, f"needed for {used}: {error}")
    yield cache_folder(cache_directory())
    for module, used in OPTIONAL.items():
        if not find_spec(module):
            yield Finding(MISSING, f"needed for {used}")
    if devices[0].platform == "cpu":
        yield Finding(MISSING, "to use a GPU or TPU: pip install 'resjax[cuda12]', 'resjax[cuda13]' or 'resjax[tpu]'")


OPTIONAL = {"tensorboardX": "resjax report --tensorboard: pip install 'resjax[tensorboard]'",
            "pycocotools": "Tables 8 and 9, and other runs on COCO: pip install 'resjax[coco]'"}


def cache_folder(folder: Path) -> Finding:
    """Check whether decoded data and compiled programs can be cached."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable, free = os.access(folder, os.W_OK), shutil.disk_usage(folder).free / 1e9
    except OSError:
        writable, free = False, 0.0
    if writable and free > 1:
        return Finding(RIGHT, f"cache: {folder}, {free:.0f} GB free")
    return Finding(MISSING, f"the cache {folder} is not writable or has less than 1 GB free, so programs start more "
                            "slowly; set RESJAX_CACHE to another folder")
