"""Commands about this machine: get data, and check what there is: versions, devices, arithmetic, data."""

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

TOLERANCE = 1e-4  # float32 sums of some thousand terms; a wrong kernel is off by 1e-2 and more


def prepare(
    name: Annotated[Literal["cifar10"], tyro.conf.Positional],
    directory: Path | None = None,
    archive: Path | None = None,
) -> None:
    """Get a data set: CIFAR-10, 170 MB.

    The set is written in the format that TFDS reads.

    Args:
        name: The data set.
        directory: The folder to write into; by default RESJAX_DATA, else ~/tensorflow_datasets.
        archive: A local copy of the official cifar-10-binary.tar.gz; by default it is downloaded.
    """
    with working("loading"):  # here and below, so that the help is quick
        from resjax.data import prepare_cifar10
        from resjax.data.prepared import data_directory

    folder = prepare_cifar10(data_directory(directory), archive)
    where = "" if directory is None else f" --data.directory {directory}"
    say_end(f"In {folder}: 50,000 training and 10,000 test images", f"resjax train resnet20{where}")


def doctor(directory: Path | None = None) -> None:
    """Check this machine; say what is missing.

    This checks versions, devices, arithmetic against float64, and data. The exit code is 1 if the quickstart would fail
    or give wrong results. Anything else that is missing is named, with what it is needed for.

    Args:
        directory: The folder of prepared TFDS sets; by default RESJAX_DATA, else ~/tensorflow_datasets.
    """
    with working("loading JAX"):
        from resjax.data.prepared import data_directory

    passed = True
    for finding in diagnose(data_directory(directory)):
        say(hung(finding.mark, finding.text))
        passed &= finding.mark != WRONG
    say("\nNext: resjax quickstart" if passed else f"\nFix what is marked {WRONG} first")
    if not passed:
        sys.exit(1)


RIGHT, MISSING, WRONG = "ok  ", "note", "LOOK"


class Finding(NamedTuple):
    """One line of the report; where it is not right, the text says what it is needed for and what to do."""

    mark: str
    text: str


def diagnose(directory: Path) -> Iterator[Finding]:
    """Yield the findings, one by one; the data sets are looked for in `directory`."""
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
    yield Finding(MISSING if slower else RIGHT, "for convolutions twice as fast on this CPU: oneDNN's, in place of "
                  f"{convolutions}" if slower else f"convolutions by {convolutions}")
    with working("computing what the networks compute"):
        errors = arithmetic()
    for name, error in errors.items():
        right = error < TOLERANCE
        yield Finding(RIGHT if right else WRONG, f"{name}: relative error {error:.1e} against float64"
                      + ("" if right else f", above {TOLERANCE:g}: try another version of jaxlib"))
    yield Finding(RIGHT, "digits: embedded, 1797 images")
    for name, used in (("cifar10", "Table 6"), ("imagenet2012", "Tables 2 to 5, unless folder:PATH or tars:PATH")):
        try:
            yield Finding(RIGHT, f"{name}: {find_prepared(name, directory)}")
        except BadInput as error:
            yield Finding(MISSING, f"for {used}: {error}")
    yield cache_folder(cache_directory())
    for module, used in OPTIONAL.items():
        if not find_spec(module):
            yield Finding(MISSING, f"for {used}")
    if devices[0].platform == "cpu":
        yield Finding(MISSING, "for a GPU or TPU here: pip install 'resjax[cuda12]', 'resjax[cuda13]' or 'resjax[tpu]'")


OPTIONAL = {"tensorboardX": "resjax report --tensorboard: pip install 'resjax[tensorboard]'",
            "pycocotools": "Table 8, on COCO: pip install 'resjax[coco]'"}


def cache_folder(folder: Path) -> Finding:
    """See whether decoded data and compiled programs can be kept."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable, free = os.access(folder, os.W_OK), shutil.disk_usage(folder).free / 1e9
    except OSError:
        writable, free = False, 0.0
    if writable and free > 1:
        return Finding(RIGHT, f"cache: {folder}, {free:.0f} GB free")
    return Finding(MISSING, f"for quick starts: the cache {folder} cannot be written or has under 1 GB; RESJAX_CACHE "
                            "names another folder")
